/* Made-up captures of several processes of one program, for the tests that combine them. The stacks of all are the same
   tree of frames, but each process numbers its strings, code objects and sites in another order; with `own` stacks on
   top, that no other process has. */
#ifndef PMT_TESTS_PROCESSES_H
#define PMT_TESTS_PROCESSES_H

#include <stdio.h>

#include "capture.h"
#include "pymemtrace/reader.h"

typedef struct process {
    uint64_t pid;
    uint64_t parent;
    uint64_t start_ns; /* since PROCESS_EPOCH_NS */
    uint64_t stacks;   /* of the common tree */
    uint64_t own;      /* further ones */
    uint64_t
        inherited_sites;   /* of the first sites, births of epoch 1 are inherited; PROC says so */
    const char *inherited; /* what PROC says of it, as text; NULL: a number if there are any */
    const char *thread;
} process;

#define PROCESS_EPOCH_NS (1700000000 * SECOND)

enum {
    PROCESS_CODES = 211,
    PROCESS_SIZE = 100 /* bytes of every block */
};

/* Blocks of the site of a stack: allocated in the second cut, freed in the third one, inherited. */
static inline uint64_t
process_allocs(const process *self, uint64_t stack)
{
    return 2 + (stack + self->pid) % 5;
}

static inline uint64_t
process_frees(const process *self, uint64_t stack)
{
    return (stack + self->pid) % 2;
}

static inline uint64_t
process_inherited(uint64_t stack)
{
    return 10 + stack % 3;
}

static inline void
process_proc(pmt__buffer *out, const process *self)
{
    char name[32];
    snprintf(name, sizeof name, "worker-%llu.py", (unsigned long long)self->pid);
    const char *const command[] = {"/usr/bin/python3", name};
    pmt__buffer payload;
    pmt__buffer_init(&payload);
    bool has_inherited = self->inherited_sites != 0 && self->inherited == NULL;
    pmt__buffer_put_varint(&payload,
                           5u + (self->parent != 0) + has_inherited + (self->inherited != NULL));
    pmt__fact_put_number(&payload, "pid", self->pid);
    pmt__fact_put_number(&payload, "started_unix_ns", PROCESS_EPOCH_NS + self->start_ns);
    pmt__fact_put_list(&payload, "command", command, 2);
    pmt__fact_put_text(&payload, "cwd", "/app");
    pmt__fact_put_text(&payload, "mode", "full");
    if (self->parent != 0) {
        pmt__fact_put_number(&payload, "fork_parent_pid", self->parent);
    }
    if (has_inherited) {
        pmt__fact_put_number(&payload, "inherited", 1);
    } else if (self->inherited != NULL) {
        pmt__fact_put_text(&payload, "inherited", self->inherited);
    }
    pmt__chunk_put(out, "PROC", 0, 1, payload.data, payload.len);
    pmt__buffer_dispose(&payload);
}

static inline void
process_text(pmt__buffer *body, const char *format, uint64_t number)
{
    char text[64];
    int n = snprintf(text, sizeof text, format, (unsigned long long)number);
    pmt__buffer_put_text(body, text, (size_t)n);
}

/* The code object with this id is the function of this number. */
static inline uint64_t
process_function(const process *self, uint64_t code)
{
    return (code * 7 + self->pid) % PROCESS_CODES;
}

static inline void
process_names(pmt__buffer *payload, const process *self)
{
    static const uint8_t table[] = {0x80 | 13 << 3 | 7, 0};
    uint64_t codes[PROCESS_CODES];
    pmt__buffer body;
    pmt__buffer_init(&body);
    CAPTURE_PUT(&body, 1, 3 + PROCESS_CODES);
    pmt__buffer_put_text(&body, "/app/worker.py", 14);
    process_text(&body, "own_%llu", self->pid);
    pmt__buffer_put_text(&body, self->thread, strlen(self->thread));
    for (uint64_t id = 0; id < PROCESS_CODES; id++) {
        process_text(&body, "function_%llu", process_function(self, id));
        codes[process_function(self, id)] = id + 1;
    }
    capture_section(payload, PMT_SECTION_STRINGS, &body);
    CAPTURE_PUT(&body, 1, PROCESS_CODES);
    for (uint64_t id = 0; id < PROCESS_CODES; id++) {
        CAPTURE_PUT(&body, 1, 4 + id, 0);
        pmt__buffer_put_zigzag(&body, (int64_t)process_function(self, id));
        CAPTURE_PUT(&body, 0, 16, sizeof table);
        pmt__buffer_put(&body, table, sizeof table);
    }
    capture_section(payload, PMT_SECTION_CODES, &body);
    uint64_t count = self->stacks + self->own;
    CAPTURE_PUT(&body, 1, count);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t parent = i == 0 ? 0 : (i - 1) / 3 + 1;
        if (i >= self->stacks) {
            CAPTURE_PUT(&body, PMT_NODE_INLINED, i + 1 - parent, 2, 1, i);
        } else if (i % 11 == 5) {
            CAPTURE_PUT(&body, PMT_NODE_NATIVE, i + 1 - parent, 1, i);
        } else {
            CAPTURE_PUT(&body, PMT_NODE_PYTHON, i + 1 - parent, codes[i % PROCESS_CODES],
                        1 + 2 * (i % 3));
        }
    }
    capture_section(payload, PMT_SECTION_NODES, &body);
    CAPTURE_PUT(&body, 1, count);
    for (uint64_t i = 0; i < count; i++) {
        pmt__buffer_put_zigzag(&body, 1);
        CAPTURE_PUT(&body, PROCESS_SIZE, PMT_DOMAIN_OBJ, 1);
    }
    capture_section(payload, PMT_SECTION_SITES, &body);
    CAPTURE_PUT(&body, 1, 1, self->pid, self->pid, 0, 3, 0, 0);
    capture_section(payload, PMT_SECTION_THREADS, &body);
    pmt__buffer_dispose(&body);
}

/* Cut 1, epoch 1: what was inherited. Cut 2, epoch 2: allocations, and with them the peak. Cut 3, epoch 2: frees. */
static inline void
process_cut(pmt__buffer *payload, const process *self, uint64_t number)
{
    uint64_t count = self->stacks + self->own;
    uint64_t inherited = 0;
    uint64_t allocs = 0;
    uint64_t frees = 0;
    for (uint64_t i = 0; i < count; i++) {
        inherited += i < self->inherited_sites ? process_inherited(i) : 0;
        allocs += process_allocs(self, i);
        frees += process_frees(self, i);
    }
    uint64_t peak = inherited + allocs;
    uint64_t live = number == 1 ? inherited : peak - (number == 3 ? frees : 0);
    uint64_t born = number == 1 ? inherited : peak;
    uint64_t flags = number == 2 ? PMT_CUT_PEAK_MOVED : number == 3 ? PMT_CUT_MAIN_RETURNED : 0;
    pmt__buffer body;
    pmt__buffer_init(&body);
    CAPTURE_PUT(&body, number, number * SECOND, SECOND,
                PROCESS_EPOCH_NS + self->start_ns + number * SECOND, flags, number == 1 ? 1 : 2);
    CAPTURE_PUT(&body, live * PROCESS_SIZE, live, born, number == 3 ? frees : 0,
                born * PROCESS_SIZE, number == 1 ? live * PROCESS_SIZE : peak * PROCESS_SIZE,
                number == 1 ? live : peak, (number == 1 ? 1 : 2) * SECOND, 1000000 * self->pid, 1,
                2, 3, 4096, 0);
    CAPTURE_PUT(&body, number == 1 ? self->inherited_sites : count);
    for (uint64_t i = 0; i < (number == 1 ? self->inherited_sites : count); i++) {
        CAPTURE_PUT(&body, 1, 0);
        switch (number) {
        case 1:
            CAPTURE_PUT(&body, process_inherited(i), 0, 0);
            break;
        case 2:
            CAPTURE_PUT(&body, process_allocs(self, i), 0, 0, 0);
            break;
        default:
            CAPTURE_PUT(&body, 0, process_frees(self, i), process_frees(self, i));
        }
    }
    capture_section(payload, PMT_SECTION_CUT, &body);
    pmt__buffer_dispose(&body);
}

/* The whole file in *out, which the caller disposes of. */
static inline void
process_build(pmt__buffer *out, const process *self)
{
    uint8_t id[16] = {(uint8_t)self->pid, (uint8_t)(self->pid >> 8)};
    capture_begin(out, id, PROCESS_EPOCH_NS + self->start_ns);
    process_proc(out, self);
    pmt__buffer payload;
    pmt__buffer_init(&payload);
    process_names(&payload, self);
    uint64_t sequence = 2;
    for (uint64_t number = 1; number <= 3; number++) {
        process_cut(&payload, self, number);
        pmt__chunk_put(out, "DLTA", 0, sequence++, payload.data, payload.len);
        pmt__buffer_clear(&payload);
    }
    pmt__buffer_dispose(&payload);
    capture_end(out, sequence, 4 * SECOND);
}

static inline pmt_reader *
process_open(const process *self, const pmt_allocator *allocator)
{
    const pmt_reader_options options = {.allocator = allocator};
    pmt__buffer capture;
    pmt_reader *reader;
    process_build(&capture, self);
    int result = pmt_reader_open_bytes(&reader, capture.data, capture.len, &options, NULL);
    pmt__buffer_dispose(&capture);
    return result < 0 ? NULL : reader;
}

#endif
