/* A small made-up capture for the C tests, written with the encoder. Static functions in a header, as
   each test is one executable. */
#ifndef PMT_TESTS_CAPTURE_H
#define PMT_TESTS_CAPTURE_H

#include <stdlib.h>
#include <string.h>

#include "format/encode.h"
#include "format/spec.h"

#define SECOND UINT64_C(1000000000)

enum {
    CAPTURE_STACKS = 40,
    CAPTURE_SITES = 120,
    CAPTURE_CUTS = 12,
    CAPTURE_MEAN = 1000 /* of samples; at the end twice that */
};

/* xorshift64 (Marsaglia, Xorshift RNGs, 2003): the same captures on every run. */
static uint64_t capture_random_state = 88172645463325252u;

static inline uint64_t
capture_random(uint64_t limit)
{
    capture_random_state ^= capture_random_state << 13;
    capture_random_state ^= capture_random_state >> 7;
    capture_random_state ^= capture_random_state << 17;
    return capture_random_state % limit;
}

static inline void
capture_section(pmt__buffer *payload, uint8_t kind, pmt__buffer *body)
{
    pmt__section_put(payload, kind, body);
    pmt__buffer_clear(body);
}

static inline void
capture_numbers(pmt__buffer *out, const uint64_t *numbers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        pmt__buffer_put_varint(out, numbers[i]);
    }
}

/* Live blocks by site and birth epoch: only what is alive is freed. */
static uint64_t capture_live[CAPTURE_SITES + 1][CAPTURE_CUTS + 2];

#define CAPTURE_PUT(out, ...)                               \
    capture_numbers((out), (const uint64_t[]){__VA_ARGS__}, \
                    sizeof(const uint64_t[]){__VA_ARGS__} / sizeof(uint64_t))

static inline void
capture_proc(pmt__buffer *out)
{
    static const char *const path[] = {"/app", "/usr/lib/python3"};
    pmt__buffer payload;
    pmt__buffer_init(&payload);
    pmt__buffer_put_varint(&payload, 5);
    pmt__fact_put_number(&payload, "pid", 4711);
    pmt__fact_put_number(&payload, "sample_bytes", CAPTURE_MEAN);
    pmt__fact_put_text(&payload, "cwd", "/app");
    pmt__fact_put_list(&payload, "sys_path", path, 2);
    pmt__fact_put_text(&payload, "mode", "sampled");
    pmt__chunk_put(out, "PROC", 0, 1, payload.data, payload.len);
    pmt__buffer_dispose(&payload);
}

/* Strings, codes, nodes of every kind, sites of every kind, threads, a mark. */
static inline void
capture_names(pmt__buffer *payload)
{
    static const char *const texts[] = {"/app/shop/cache.py", "Cache.load", "/usr/lib/libx.so",
                                        "[folded]",           "MainThread", "batch; \"1\"\n"};
    static const uint8_t table[] = {0x80 | 13 << 3 | 7, 0, 0x80 | 13 << 3 | 7, 2};
    pmt__buffer body;
    pmt__buffer_init(&body);
    CAPTURE_PUT(&body, 1, 6);
    for (size_t i = 0; i < 6; i++) {
        pmt__buffer_put_text(&body, texts[i], strlen(texts[i]));
    }
    capture_section(payload, PMT_SECTION_STRINGS, &body);
    CAPTURE_PUT(&body, 1, 2);
    for (uint64_t i = 0; i < 2; i++) {
        CAPTURE_PUT(&body, 1, 2, 0);
        pmt__buffer_put_zigzag(&body, (int64_t)(10 + i));
        CAPTURE_PUT(&body, 0, 32, sizeof table);
        pmt__buffer_put(&body, table, sizeof table);
    }
    capture_section(payload, PMT_SECTION_CODES, &body);
    CAPTURE_PUT(&body, 1, CAPTURE_STACKS);
    for (uint64_t id = 1; id <= CAPTURE_STACKS; id++) {
        uint64_t up = 1 + capture_random(id);
        switch (id % 8) {
        case 5:
            CAPTURE_PUT(&body, PMT_NODE_NATIVE, up, 3, 0x10 * id);
            break;
        case 6:
            CAPTURE_PUT(&body, PMT_NODE_INLINED, up, 2, 1, id);
            break;
        case 7:
            CAPTURE_PUT(&body, PMT_NODE_SYNTHETIC, up, 4);
            break;
        default:
            CAPTURE_PUT(&body, PMT_NODE_PYTHON, up, 1 + id % 2, 1 + 2 * capture_random(16));
        }
    }
    capture_section(payload, PMT_SECTION_NODES, &body);
    CAPTURE_PUT(&body, 1, CAPTURE_SITES);
    int64_t before = 0;
    for (uint64_t id = 1; id <= CAPTURE_SITES; id++) {
        int64_t node = (int64_t)capture_random(CAPTURE_STACKS + 1);
        pmt__buffer_put_zigzag(&body, node - before);
        CAPTURE_PUT(&body, id % 4 == 0 ? PMT_SIZE_LARGE : id, 1 + id % 6, id % 3);
        before = node;
    }
    capture_section(payload, PMT_SECTION_SITES, &body);
    CAPTURE_PUT(&body, 1, 1, 1001, 99, 0, 5, 0, 0);
    capture_section(payload, PMT_SECTION_THREADS, &body);
    CAPTURE_PUT(&body, 1, 1, SECOND / 2, 6);
    capture_section(payload, PMT_SECTION_MARKS, &body);
    CAPTURE_PUT(&body, 1, 9, 3, 2000);
    capture_section(payload, PMT_SECTION_SIZES, &body);
    CAPTURE_PUT(&body, 1, 3);
    pmt__buffer_put_text(&body, "build id", 8);
    capture_section(payload, PMT_SECTION_OBJECTS, &body);
    pmt__buffer_dispose(&body);
}

static inline void
capture_cut(pmt__buffer *payload, uint64_t number)
{
    pmt__buffer body;
    pmt__buffer_init(&body);
    uint64_t flags = number == 7 ? PMT_CUT_PEAK_MOVED : number == 10 ? PMT_CUT_MAIN_RETURNED : 0;
    uint64_t epoch = number + 1;
    CAPTURE_PUT(&body, number, number * SECOND, SECOND, 0, flags, epoch);
    CAPTURE_PUT(&body, number * 1000, 3, 4, 5, 6, 7, 8, 9, 10, number, 12, 13, 14);
    CAPTURE_PUT(&body, 1, PMT_COUNTER_MEMORY_LIMIT, 5);
    CAPTURE_PUT(&body, CAPTURE_SITES);
    for (uint64_t id = 1; id <= CAPTURE_SITES; id++) {
        uint64_t age = capture_random(3) == 0 ? capture_random(number) : 0;
        uint64_t allocs = age == 0 ? capture_random(9) : 0;
        uint64_t *live = &capture_live[id][epoch - age];
        uint64_t frees = capture_random(*live + allocs + 1);
        *live += allocs - frees;
        CAPTURE_PUT(&body, 1, age, allocs, frees, frees / 2);
        if (id % 4 == 0) {
            CAPTURE_PUT(&body, allocs * 1000, frees * 1000, frees / 2 * 1000);
        }
        if (flags & PMT_CUT_PEAK_MOVED) {
            pmt__buffer_put_zigzag(&body, (int64_t)(id % 5));
            if (id % 4 == 0) {
                pmt__buffer_put_zigzag(&body, (int64_t)(id % 5) * 1000);
            }
        }
    }
    capture_section(payload, PMT_SECTION_CUT, &body);
    pmt__buffer_dispose(&body);
}

static inline void
capture_sums(pmt__buffer *out, int64_t samples, int64_t sure, double variance)
{
    const double variances[2] = {variance, variance * 10000};
    pmt__buffer_put_zigzag(out, samples);
    pmt__buffer_put_zigzag(out, sure);
    pmt__buffer_put_zigzag(out, (int64_t)((uint64_t)sure * 100));
    pmt__buffer_put(out, variances, sizeof variances);
}

/* Of two in three sites, in two entries; the last cut, where one sample of each dies, says that the mean was doubled. */
static inline void
capture_samples(pmt__buffer *payload, uint64_t number)
{
    pmt__buffer body;
    pmt__buffer_init(&body);
    int last = number == CAPTURE_CUTS, moved = number == 7;
    CAPTURE_PUT(&body, last ? 2 * CAPTURE_MEAN : CAPTURE_MEAN, (uint64_t)moved,
                CAPTURE_SITES / 3 * 2);
    int64_t before = 0;
    for (int64_t id = 1; id <= CAPTURE_SITES / 3; id++) {
        for (int64_t i = 0; i < 2; i++) {
            int64_t site = i == 0 ? id : CAPTURE_SITES + 1 - id;
            pmt__buffer_put_zigzag(&body, site - before);
            before = site;
            capture_sums(&body, 2, id % 5 == 0, id % 5 == 0 ? 0 : 3);
            capture_sums(&body, last, 0, last ? 1 : 0);
            if (moved) {
                capture_sums(&body, -1, 0, -1);
            }
        }
    }
    capture_section(payload, PMT_SECTION_SAMPLES, &body);
    pmt__buffer_dispose(&body);
}

/* A moment whose figures follow from its number: `which` is 1000 * number + which. Every third cut has one. */
static inline void
capture_resident(pmt__buffer *payload, uint64_t number)
{
    pmt__buffer body;
    pmt__buffer_init(&body);
    if (number % 3 == 0) {
        CAPTURE_PUT(&body, 4, PMT_RESIDENT_T, number * SECOND, PMT_RESIDENT_RSS,
                    1000 * number + PMT_RESIDENT_RSS, PMT_RESIDENT_HEAP,
                    1000 * number + PMT_RESIDENT_HEAP, 12345 /* not known */, 1);
        CAPTURE_PUT(&body, 2, 16, 1, 2, 512, 3, 4);
        capture_section(payload, PMT_SECTION_RESIDENT, &body);
    }
    pmt__buffer_dispose(&body);
}

/* A file's header; *out is the caller's to dispose of. */
static inline void
capture_begin(pmt__buffer *out, const uint8_t id[16], uint64_t started_unix_ns)
{
    uint8_t start[PMT_HEADER_SIZE] = {0};
    pmt__header_encode(start, id, started_unix_ns, 0, PMT_FEATURE_EPOCHS);
    pmt__buffer_init(out);
    pmt__buffer_put(out, start, sizeof start);
}

static inline void
capture_end(pmt__buffer *out, uint64_t sequence, uint64_t t_ns)
{
    pmt__buffer payload;
    pmt__buffer_init(&payload);
    CAPTURE_PUT(&payload, PMT_END_NORMAL, t_ns);
    pmt__chunk_put(out, "END ", 0, sequence, payload.data, payload.len);
    pmt__buffer_dispose(&payload);
    pmt__slot slot = {.seq = 1, .status = PMT_STATUS_ENDED, .data_end = out->len};
    pmt__slot_encode(out->data + PMT_SLOT_A_OFFSET, &slot);
}

/* Symbols of two of the native nodes of capture_names: two frames, and that nothing is known. */
static inline void
capture_symbols(pmt__buffer *payload)
{
    static const char *const texts[] = {"/usr/lib/libx.so", "x::load(int)", "/src/x.cc"};
    CAPTURE_PUT(payload, 3);
    for (size_t i = 0; i < 3; i++) {
        pmt__buffer_put_text(payload, texts[i], strlen(texts[i]));
    }
    CAPTURE_PUT(payload, 2, 1, 0x50, 2, 2, 3, 7, 2, 0, 0, 1, 0xd0, 0);
}

/* The whole file in *out, which the caller disposes of. */
static inline void
capture_build(pmt__buffer *out)
{
    static const uint8_t id[16] = {1, 2, 3};
    capture_random_state = 88172645463325252u;
    memset(capture_live, 0, sizeof capture_live);
    capture_begin(out, id, 1700000000 * SECOND);
    capture_proc(out);
    pmt__buffer payload;
    pmt__buffer_init(&payload);
    capture_names(&payload);
    uint64_t sequence = 2;
    for (uint64_t number = 1; number <= CAPTURE_CUTS; number++) {
        capture_resident(&payload, number);
        capture_samples(&payload, number);
        capture_cut(&payload, number);
        pmt__chunk_put(out, "DLTA", 0, sequence++, payload.data, payload.len);
        pmt__buffer_clear(&payload);
    }
    capture_end(out, sequence, (CAPTURE_CUTS + 1) * SECOND);
    capture_symbols(&payload);
    pmt__chunk_put(out, "SYMB", 0, sequence + 1, payload.data, payload.len);
    pmt__buffer_dispose(&payload);
}

#endif
