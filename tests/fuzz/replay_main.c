/* Runs a fuzzing target without a fuzzer.

   usage: replay [-n COUNT] [-s SEED] [-w FOLDER] [FILE…]

   Replays the files, then the built-in seeds and COUNT mutations of each (300), the same ones for the
   same SEED. -w writes the seeds into FOLDER instead, for a real fuzzer to start from. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "capture.h"
#include "format/events.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int
replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return 1;
    }
    static uint8_t bytes[1 << 20];
    size_t size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    LLVMFuzzerTestOneInput(bytes, size);
    return 0;
}

/* The payload of an EVTS chunk: blocks come and go, some by realloc. */
static void
put_events(pmt__buffer *payload, uint64_t number)
{
    enum {
        COUNT = 40
    };
    pmt__event_cache cache = {0};
    CAPTURE_PUT(payload, (number - 1) * COUNT, COUNT, (number - 1) * SECOND, SECOND);
    for (uint32_t i = 0; i < COUNT; i++) {
        uint32_t site = 1 + i / 2 * 7 % CAPTURE_SITES;
        unsigned kind = i % 8 < 6 ? i % 2 : 1 - i % 2; /* the pairs: a free first */
        uint8_t *at = pmt__buffer_reserve(payload, PMT_EVENT_CONTROL_BYTES + PMT_EVENT_BYTES_MAX);
        uint8_t *start = at;
        if (i % 8 == 6) {
            at = pmt__event_put_control(at, PMT_CONTROL_REALLOC);
        }
        at = pmt__event_put(&cache, at, kind, site, 0x7f0000 + 64 * (i / 2));
        if (kind == PMT_EVENT_ALLOC && site % 4 == 0) { /* a sizeless one of capture.h */
            at = pmt__varint_put(at, 1000);
        }
        payload->len += (size_t)(at - start);
    }
}

/* Seed 0: a file. Seed 1: its chunks, for the target to put together again. */
static void
make_seeds(pmt__buffer seeds[2])
{
    pmt__buffer_init(&seeds[0]);
    pmt__buffer_init(&seeds[1]);
    uint8_t mode = 0;
    pmt__buffer capture;
    capture_build(&capture);
    pmt__buffer_put(&seeds[0], &mode, 1);
    pmt__buffer_put(&seeds[0], capture.data, capture.len);
    pmt__buffer_dispose(&capture);

    mode = 1;
    pmt__buffer payload;
    pmt__buffer_init(&payload);
    pmt__buffer_put(&seeds[1], &mode, 1);
    /* An empty list of facts is enough to start with. */
    static const uint8_t proc[] = {1, 1, 0, 0};
    pmt__buffer_put(&seeds[1], proc, sizeof proc);
    capture_names(&payload);
    for (uint64_t number = 1; number <= CAPTURE_CUTS; number++) {
        capture_resident(&payload, number);
        capture_samples(&payload, number);
        capture_cut(&payload, number);
        const uint8_t head[] = {0, (uint8_t)payload.len, (uint8_t)(payload.len >> 8)};
        pmt__buffer_put(&seeds[1], head, sizeof head);
        pmt__buffer_put(&seeds[1], payload.data, payload.len);
        pmt__buffer_clear(&payload);
        put_events(&payload, number);
        const uint8_t log_head[] = {3, (uint8_t)payload.len, (uint8_t)(payload.len >> 8)};
        pmt__buffer_put(&seeds[1], log_head, sizeof log_head);
        pmt__buffer_put(&seeds[1], payload.data, payload.len);
        pmt__buffer_clear(&payload);
    }
    capture_symbols(&payload);
    const uint8_t symbols_head[] = {5, (uint8_t)payload.len, (uint8_t)(payload.len >> 8)};
    pmt__buffer_put(&seeds[1], symbols_head, sizeof symbols_head);
    pmt__buffer_put(&seeds[1], payload.data, payload.len);
    pmt__buffer_dispose(&payload);
}

static int
write_seeds(const char *folder, const pmt__buffer seeds[2])
{
    for (int i = 0; i < 2; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/seed-%d", folder, i);
        FILE *file = fopen(path, "wb");
        if (file == NULL || fwrite(seeds[i].data, 1, seeds[i].len, file) != seeds[i].len
            || fclose(file) != 0) {
            fprintf(stderr, "%s: %s\n", path, strerror(errno));
            return 1;
        }
    }
    return 0;
}

static void
mutate(uint8_t *bytes, size_t *size)
{
    static const uint8_t interesting[] = {0, 1, 0x7f, 0x80, 0xff, 0xfe, 0x40};
    for (uint64_t n = 1 + capture_random(4); n > 0 && *size > 2; n--) {
        size_t at = 1 + (size_t)capture_random(*size - 1);
        size_t run = (size_t)capture_random(16);
        run = run < *size - at ? run : *size - at;
        switch (capture_random(5)) {
        case 0:
            bytes[at] ^= (uint8_t)(1u << capture_random(8));
            break;
        case 1:
            bytes[at] = interesting[capture_random(sizeof interesting)];
            break;
        case 2: /* takes a piece out */
            memmove(bytes + at, bytes + at + run, *size - at - run);
            *size -= run;
            break;
        case 3: /* a large number */
            memset(bytes + at, 0xff, run);
            break;
        default: /* copies a piece over another */
            memmove(bytes + 1 + capture_random(*size - run), bytes + at,
                    run < *size / 2 ? run / 2 : 0);
        }
    }
}

int
main(int argc, char **argv)
{
    unsigned long count = 300;
    uint64_t random_seed = 1;
    const char *folder = NULL;
    int failed = 0;
    for (int i = 1; i < argc; i++) {
        if (i + 1 < argc && strcmp(argv[i], "-n") == 0) {
            count = strtoul(argv[++i], NULL, 10);
        } else if (i + 1 < argc && strcmp(argv[i], "-s") == 0) {
            random_seed = strtoull(argv[++i], NULL, 10);
        } else if (i + 1 < argc && strcmp(argv[i], "-w") == 0) {
            folder = argv[++i];
        } else {
            failed |= replay_file(argv[i]);
        }
    }
    pmt__buffer seeds[2];
    make_seeds(seeds);
    if (folder != NULL) {
        failed |= write_seeds(folder, seeds);
        count = 0;
    }
    capture_random_state = random_seed * 0x9e3779b97f4a7c15u | 1;
    for (int i = 0; i < 2; i++) {
        LLVMFuzzerTestOneInput(seeds[i].data, seeds[i].len);
        uint8_t *copy = malloc(seeds[i].len);
        for (unsigned long n = 0; copy != NULL && n < count; n++) {
            size_t size = seeds[i].len;
            memcpy(copy, seeds[i].data, size);
            mutate(copy, &size);
            LLVMFuzzerTestOneInput(copy, size);
        }
        free(copy);
        pmt__buffer_dispose(&seeds[i]);
    }
    return failed;
}
