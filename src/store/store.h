/* A capture in memory, as the analysis sees it.

   What a capture says per node is turned into *stacks* while it is read: an instruction becomes a
   location (file, function, line), and nodes that are equal then become one stack. The rows of the
   cuts, which are most of a capture, stay as the bytes of the file (5 to 10 per row instead of 60
   in columns): an analysis walks them in order with pmt__rows_next, at some ten million a second.
   They were checked when the capture was opened. */
#ifndef PMT_STORE_STORE_H
#define PMT_STORE_STORE_H

#include "base/index.h"
#include "base/memory.h"
#include "format/decode.h"
#include "pymemtrace/reader.h"

/* A text in the pool. */
typedef struct pmt__string {
    uint32_t offset;
    uint32_t len;
} pmt__string;

typedef struct pmt__frame {
    uint32_t function; /* strings */
    uint32_t file;
    uint32_t module;
    uint32_t object; /* of a native frame */
    uint8_t kind;
    uint8_t flags;
    int64_t line;
} pmt__frame;

typedef struct pmt__stack {
    uint32_t parent;
    uint32_t frame;
} pmt__stack;

typedef struct pmt__stored_site {
    uint32_t stack;
    uint32_t thread; /* place in `threads` */
    uint16_t size;   /* PMT_SIZE_LARGE: sizeless */
    uint8_t domain;
} pmt__stored_site;

typedef struct pmt__stored_mark {
    uint64_t epoch;
    uint64_t t_ns;
    uint32_t label; /* string */
} pmt__stored_mark;

typedef struct pmt__stored_thread {
    uint64_t id;
    uint64_t native_id;
    uint64_t python_id;
    uint64_t birth_ns;
    uint64_t flags;
    uint64_t interpreter;
    uint32_t name; /* string */
} pmt__stored_thread;

/* The rows of one cut. */
typedef struct pmt__rows {
    const uint8_t *bytes; /* owned by the store */
    size_t size;
    size_t count;
    size_t site_limit; /* sites that were defined when it was written */
    uint64_t offset;   /* of its chunk */
} pmt__rows;

/* Of the blocks that a row counts as freed, those that died before a mark: at this age, not at that of the row. */
typedef struct pmt__stored_lifetime {
    uint32_t site;
    uint64_t birth; /* epoch */
    uint64_t age;
    uint64_t blocks;
    uint64_t bytes;
    size_t cut;
} pmt__stored_lifetime;

/* Where a chunk of the event log is. The events stay in the file: a log can be larger than all the rest together. */
typedef struct pmt__event_chunk {
    uint64_t offset;
    uint64_t sequence;
    uint64_t first;
    uint64_t count;
    uint64_t site_limit; /* sites that were defined when it was written */
} pmt__event_chunk;

/* Where a section RESIDENT lies in `resident_bytes`. */
typedef struct pmt__stored_moment {
    size_t offset;
    size_t size;
    size_t cut; /* its place among the cuts */
} pmt__stored_moment;

/* Where a section SAMPLES lies in `sample_bytes`. */
typedef struct pmt__stored_samples {
    size_t offset;
    size_t size;
    size_t cut; /* its place among the cuts */
} pmt__stored_samples;

/* Of a capture that is followed: what its cuts up to `cuts` add up to, so that the analysis (running.c) need not walk over
   them again. */
typedef struct pmt__running_site {
    uint64_t live_blocks;
    uint64_t live_bytes;
    uint64_t peak_blocks; /* at the last cut with `peak moved` */
    uint64_t peak_bytes;
    uint64_t end_blocks; /* when main had returned; until then as live */
    uint64_t end_bytes;
    uint64_t total_blocks;
    uint64_t total_bytes;
    uint64_t temp_blocks;
    uint64_t temp_bytes;
} pmt__running_site;

typedef struct pmt__running {
    size_t cuts;
    uint64_t exclude_epoch; /* as in pmt_query */
    bool main_returned;
    PMT__VEC(pmt__running_site) sites; /* owned */
} pmt__running;

/* An executable or library that native frames are of. */
typedef struct pmt__stored_object {
    uint32_t path; /* string */
    uint8_t build_id_size;
    uint8_t build_id[PMT_BUILD_ID_MAX];
} pmt__stored_object;

/* A native place that nobody has looked up. */
typedef struct pmt__stored_place {
    uint32_t path;   /* string: of its object */
    uint32_t object; /* 1 + its place among the objects; 0: it is none of them */
    uint64_t offset;
} pmt__stored_place;

typedef struct pmt__size_class {
    uint64_t allocations;
    uint64_t bytes;
} pmt__size_class;

struct pmt_reader {
    const pmt_allocator *allocator; /* borrowed */
    pmt__header header;
    pmt__slot slot;
    bool has_slot;
    bool has_end;
    uint64_t end_t_ns;
    uint32_t main_ended; /* PMT_MAIN_* */
    uint64_t exit_status;
    bool has_proc;
    uint64_t fork_epoch; /* blocks that were born up to it are inherited; 0: no forked child */
    char torn[256];
    bool damaged;
    pmt_ended ended;

    uint8_t *proc; /* owned: payload of PROC, which the facts borrow from */
    PMT__VEC(pmt_fact) facts;
    PMT__VEC(char) pool;
    PMT__VEC(pmt__string) strings; /* 0 = the empty one; equal texts are one string */
    PMT__VEC(pmt__frame) frames;
    PMT__VEC(pmt__stack) stacks;
    PMT__VEC(pmt__stored_site) sites; /* 0 is not used */
    PMT__VEC(pmt__stored_thread) threads;
    PMT__VEC(pmt__stored_mark) marks;
    PMT__VEC(pmt_cut) cuts;
    PMT__VEC(pmt__rows) rows;                 /* one per cut */
    PMT__VEC(pmt__stored_lifetime) lifetimes; /* by cut */
    PMT__VEC(pmt__event_chunk) event_chunks;
    PMT__VEC(uint8_t) resident_bytes;
    PMT__VEC(pmt__stored_moment) moments; /* resident.h */
    PMT__VEC(uint8_t) sample_bytes;
    PMT__VEC(pmt__stored_samples) samples; /* samples.h; by cut */
    uint64_t sample_mean;                  /* bytes, of the last of them */
    PMT__VEC(pmt__stored_object) objects;
    PMT__VEC(pmt__stored_place) unresolved;
    uint64_t end_offset;   /* where the reading ended: behind the last whole chunk */
    uint64_t end_sequence; /* the number that a chunk there would have */
    uint64_t counters[PMT_COUNTERS];
    pmt__size_class large_sizes[64]; /* by log2 */
    pmt__running *running;           /* owned; NULL: the capture is not followed */
};

static inline pmt_string
pmt__reader_string(const pmt_reader *self, uint32_t string)
{
    pmt__string place = self->strings.data[string];
    return (pmt_string){self->pool.data + place.offset, place.len};
}

/* The number that a text is in decimal digits; 0 if it is none, or too large. */
uint64_t pmt__decimal(pmt_string text);

/* Whether the recorded process can be seen to run on this host. */
bool pmt__reader_process_runs(const pmt_reader *self);

/* Checks every event of an EVTS chunk, so that no walk can meet anything wrong, and notes where it is. */
int pmt__reader_add_events(pmt_reader *self, const pmt__chunk *chunk, pmt_error *err);

/* --- rows ------------------------------------------------------------------------------------ */

typedef struct pmt__row {
    uint32_t site;
    bool sizeless;
    uint64_t birth; /* epoch */
    uint64_t age;
    uint64_t allocs;
    uint64_t frees;
    uint64_t temps;
    uint64_t alloc_bytes;
    uint64_t free_bytes;
    uint64_t temp_bytes;
    uint64_t peak_blocks; /* correction, to be added modulo 2^64; 0 if the cut has none */
    uint64_t peak_bytes;
} pmt__row;

typedef struct pmt__row_walk {
    pmt__cursor cursor;
    size_t left;
    const pmt_reader *reader;
    uint64_t epoch;
    size_t site_limit;
    bool corrections;
    uint64_t site;
} pmt__row_walk;

/* `err` may be NULL for rows that were checked already. */
void pmt__rows_begin(pmt__row_walk *walk, const pmt_reader *reader, size_t cut, pmt_error *err);

/* Fills *row and returns true, or returns false at the end or at something wrong, which is in
   walk->cursor.code. */
static inline bool
pmt__rows_next(pmt__row_walk *walk, pmt__row *row)
{
    if (walk->left == 0) {
        return false;
    }
    walk->left--;
    pmt__cursor *in = &walk->cursor;
    walk->site += pmt__get_varint(in);
    if (walk->site == 0 || walk->site >= walk->site_limit) {
        pmt__cursor_fail(in, "a row refers to site %llu", (unsigned long long)walk->site);
        return false;
    }
    row->site = (uint32_t)walk->site;
    uint16_t size = walk->reader->sites.data[row->site].size;
    row->sizeless = size == PMT_SIZE_LARGE;
    row->age = pmt__get_varint(in);
    row->birth = walk->epoch - row->age;
    row->allocs = pmt__get_varint(in);
    row->frees = pmt__get_varint(in);
    row->temps = pmt__get_varint(in);
    if (row->sizeless) {
        row->alloc_bytes = pmt__get_varint(in);
        row->free_bytes = pmt__get_varint(in);
        row->temp_bytes = pmt__get_varint(in);
    } else {
        row->alloc_bytes = row->allocs * size;
        row->free_bytes = row->frees * size;
        row->temp_bytes = row->temps * size;
    }
    row->peak_blocks = row->peak_bytes = 0;
    if (walk->corrections) {
        row->peak_blocks = (uint64_t)pmt__get_zigzag(in);
        row->peak_bytes = row->sizeless ? (uint64_t)pmt__get_zigzag(in) : row->peak_blocks * size;
    }
    if (row->age >= walk->epoch && in->code == PMT_OK) {
        pmt__cursor_fail(in, "a row is older than the recording");
    }
    return in->code == PMT_OK;
}

#endif
