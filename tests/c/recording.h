/* What the tests that record have in common. */
#ifndef PMT_TESTS_RECORDING_H
#define PMT_TESTS_RECORDING_H

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "record/writer.h"

enum {
    RECORDING_PATH = sizeof "/tmp/pymemtrace-test-XXXXXX"
};

/* An empty file to record into, which the test removes. */
static inline void
recording_file(char path[RECORDING_PATH])
{
    memcpy(path, "/tmp/pymemtrace-test-XXXXXX", RECORDING_PATH);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
}

/* Cuts are those of the flushes. */
static inline pmt__record_options
recording_options(const char *path, pmt__buffer *facts)
{
    pmt__buffer_init(facts);
    return (pmt__record_options){
        .path = path,
        .replace = 1,
        .interval_ns = (uint64_t)3600 * 1000000000,
        .temporaries_n = 1,
        .facts = facts,
        .max_memory_bytes = (uint64_t)64 << 20,
    };
}

#endif
