/* Fuzzing of everything that reads a capture.

   The first byte of the input chooses how the rest is used:
     even: as a file, as it is;
     odd:  as chunks, each one byte of kind, two of length (little-endian), and the payload. They are
           put into a file with right checksums, because no mutation would get past those.

   With clang:  clang -g -O1 -fsanitize=fuzzer,address,undefined … fuzz_reader.c …
   Without:     link with replay_main.c, which replays files and mutates seeds of its own. */
#include <stdlib.h>
#include <string.h>

#include "analyze/replay.h"
#include "everything.h"
#include "format/encode.h"
#include "format/spec.h"
#include "pymemtrace/reader.h"

/* What a hostile file can make the reader take is bounded by what it holds; this bounds the rest. */
#define MEMORY_LIMIT ((size_t)256 << 20)

typedef struct {
    size_t used;
} limited;

typedef union {
    size_t size;
    max_align_t align;
} block_head;

static void
limited_release(void *context, void *block)
{
    if (block != NULL) {
        block_head *head = (block_head *)block - 1;
        ((limited *)context)->used -= head->size;
        free(head);
    }
}

static void *
limited_resize(void *context, void *block, size_t size)
{
    limited *self = context;
    block_head *head = block == NULL ? NULL : (block_head *)block - 1;
    size_t old = head == NULL ? 0 : head->size;
    if (size > MEMORY_LIMIT || self->used - old + size > MEMORY_LIMIT) {
        return NULL;
    }
    head = realloc(head, sizeof *head + size);
    if (head == NULL) {
        return NULL;
    }
    head->size = size;
    self->used += size - old;
    return head + 1;
}

static void
put_chunks(pmt__buffer *file, const uint8_t *data, size_t size)
{
    static const char kinds[][5] = {"DLTA", "PROC", "END ", "EVTS", "NEWS", "SYMB"};
    static const uint8_t id[16];
    uint8_t start[PMT_HEADER_SIZE] = {0};
    pmt__header_encode(start, id, 0, 0, 0);
    pmt__buffer_put(file, start, sizeof start);
    for (uint64_t sequence = 1; size >= 3; sequence++) {
        const char *kind = kinds[data[0] % (sizeof kinds / sizeof *kinds)];
        size_t length = (size_t)(data[1] | data[2] << 8);
        data += 3;
        size -= 3;
        length = length < size ? length : size;
        pmt__chunk_put(file, kind, 0, sequence, data, length);
        data += length;
        size -= length;
    }
}

/* The log was checked when the capture was opened, so nothing can be wrong with it now. */
static int
replay_log(const pmt_reader *reader, const pmt__buffer *file, pmt_error *err)
{
    pmt_event_walk *walk;
    int result = pmt_event_walk_open_bytes(&walk, reader, file->data, file->len, err);
    if (result < 0) {
        return result;
    }
    pmt__replay replay;
    result = pmt__replay_init(&replay, reader, walk, UINT64_MAX, err);
    if (result == PMT_OK) {
        result = pmt__replay_run(&replay, UINT64_MAX, err);
        if (result == 0 && (replay.events < replay.stop || replay.frees > replay.allocations)) {
            abort();
        }
    }
    pmt__replay_dispose(&replay);
    pmt_event event;
    while (result == PMT_OK && (result = pmt_event_walk_next(walk, &event, err)) == 1) {
        result = PMT_OK;
    }
    pmt_event_walk_destroy(walk);
    return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    pmt__buffer file;
    pmt__buffer_init(&file);
    if (data[0] % 2 == 0) {
        pmt__buffer_put(&file, data + 1, size - 1);
    } else {
        put_chunks(&file, data + 1, size - 1);
    }
    limited memory = {0};
    const pmt_allocator allocator = {limited_resize, limited_release, &memory};
    const pmt_reader_options options = {.allocator = &allocator};
    pmt_error err = PMT_ERROR_INIT;
    pmt_reader *reader;
    int result = pmt_reader_open_bytes(&reader, file.data, file.len, &options, &err);
    if (result == PMT_OK) {
        result = everything(reader, &err);
        if (result == PMT_OK) {
            result = replay_log(reader, &file, &err);
        }
        pmt_reader_destroy(reader);
        if (result != PMT_OK && result != PMT_ERR_NOMEM && result != PMT_ERR_LIMIT) {
            abort(); /* what is wrong with a capture must be found when it is opened */
        }
    }
    if (memory.used != 0 || (result < 0) != (err.message[0] != '\0')) {
        abort(); /* a leak, or an error without a message */
    }
    pmt__buffer_dispose(&file);
    return 0;
}
