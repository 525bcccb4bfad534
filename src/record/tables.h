/* The recording tables: what the hooks write and a cut reads.

   The idea. An allocation event must cost a few nanoseconds, so it touches four cache lines that are hot anyway: the
   thread's stack cache, one leaf-cache entry, the block's shadow entry, the cohort's counters. Everything that can be
   derived later (totals, lifetimes, sizes, lines, names) is derived by the writer from the counters' changes, once a
   second, or by the reader.

     node     a stack: (parent node, instruction). The tree holds every distinct stack once.
     site     (node, size, domain, thread)
     cohort   (site, birth epoch): its id stands in the shadow for every live block. Counters live here.

   Who may touch what. All of it is owned by whoever holds *the tables*: either the thread that runs inside a hook with
   the GIL (`busy` is set), or the writer while it takes a cut (see exclusion in gate.h). The shadow entries of blocks in
   the RAW domain are exchanged atomically, because RAW runs without the GIL.

   Ids are indices for ever. The arrays grow, and may move, only in pmt__tables_room_nopy, which the slow ways call when they
   begin: nobody keeps a pointer into them across a slow way. */
#ifndef PMT_RECORD_TABLES_H
#define PMT_RECORD_TABLES_H

#include <stddef.h>
#include <stdint.h>

#include "format/encode.h"
#include "format/spec.h"

#define PMT_LIKELY(x) __builtin_expect(!!(x), 1)
#define PMT_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define PMT_NOINLINE __attribute__((noinline))
#define PMT_INLINE static inline __attribute__((always_inline))

/* --- nodes ----------------------------------------------------------------------------------------------------------- */

enum {
    PMT_NODE_ROOT = 0,
    PMT_NODE_NO_STACK = 1, /* "[no Python stack]" */
    PMT_NODE_FOLDED = 2,   /* "[folded]": the memory limit was reached */
    PMT_NODE_FIRST = 3     /* the first real one */
};

/* A node is a stack: its place below its parent's. There can be two for every stack that allocates, so they are small. */
typedef struct pmt__node {
    uint32_t parent;
    uint32_t place; /* id; PMT_PLACE_NONE = synthetic */
    uint32_t first; /* list of the first children (then the hash), linked by next */
    uint32_t next;
    uint32_t site; /* list of sites, most recently found first */
} pmt__node;

/* A place is an instruction of a code object: the first place of the code + the number of the code unit. What it stands for is
   true for ever, while the address of the instruction is true only as long as the code object lives. */
enum {
    PMT_PLACE_FOLDED = 0, /* the memory limit was reached */
    PMT_PLACE_NONE = 0x7fffffff,
    PMT_PLACE_BLOCK = 16 /* code units; codes begin at blocks, so that the block tells the code */
};
/* | place: a frame that has not reached its first traceable instruction does not count as running: what it allocates (cells, a
   generator) is its caller's, as in tracemalloc and in tracebacks. */
#define PMT_PLACE_NOT_BEGUN 0x80000000u

/* A code object that was seen on a stack. Its id survives it: when an equal one appears (exec in a loop), the id and the
   nodes below it come back to life instead of new ones growing. */
typedef struct pmt__code {
    const void *object; /* NULL when it died */
    uint64_t start;     /* address of its first instruction */
    uint64_t fingerprint;
    uint32_t size;      /* of its bytecode, bytes */
    uint32_t traceable; /* offset of the first instruction of a complete frame */
    uint32_t first;     /* place of its first code unit */
    uint32_t next_dead; /* next dead code with the same slot in the fingerprint table */
} pmt__code;

/* What the hot path must know of a code object to find a place; direct-mapped by its address, cleared when it dies. */
typedef struct pmt__code_entry {
    const void *object; /* NULL: empty */
    uint64_t start;
    uint32_t first;
    uint32_t begin; /* the first traceable code unit */
    uint32_t span;  /* code units from there on */
    uint32_t unused_;
} pmt__code_entry;

#define PMT_KNOWN_BITS 12

typedef struct pmt__text {
    const void *data; /* borrowed */
    size_t length;    /* in code points */
    uint8_t width;    /* bytes per code point: 1, 2, 4 */
} pmt__text;

typedef struct pmt__code_facts {
    uint64_t start;
    uint32_t size;
    uint32_t traceable;
    int32_t first_line;
    pmt__text file;
    pmt__text name; /* qualified */
    const uint8_t *line_table;
    size_t line_table_size;
} pmt__code_facts;

/* What the recorder must know about the interpreter; src/cpython fills it, tests bring their own. `_nopy`: called from
   inside a hook, must not call into the interpreter. */
typedef struct pmt__frame_source {
    void (*code_describe_nopy)(const void *code, pmt__code_facts *facts);
    /* collections since the process started, by generation; called without the GIL, plain reads */
    void (*gc_counts_nopy)(uint64_t counts[3]);
} pmt__frame_source;

/* --- sites and cohorts ------------------------------------------------------------------------------------------------ */

typedef struct pmt__site {
    uint32_t node;
    uint32_t next;   /* of the same node */
    uint32_t cohort; /* the newest */
    uint16_t size;   /* 0..512 exactly, or PMT_SIZE_LARGE */
    uint16_t thread; /* thread id | domain << 12 */
} pmt__site;

#define PMT_THREAD_BITS 12
#define PMT_THREAD_MAX 1000 /* further threads share one id */
#define PMT_THREAD_FOLDED (PMT_THREAD_MAX + 1)

#define PMT_COHORT_SIZELESS 0x80000000u /* | index into the large table */

#define PMT_COHORT_DIRTY 0x80000000u /* with the site: the next cut will report it */
#define PMT_COHORT_SITE(cohort) ((cohort)->site & ~PMT_COHORT_DIRTY)

typedef struct pmt__cohort { /* 32 bytes: what a miss of the leaf cache needs is in one line */
    uint64_t allocs;         /* since the last cut */
    uint32_t live;           /* blocks */
    uint32_t stamp;          /* equal to tables.stamp: seen since the last cut and peak */
    uint32_t size;           /* bytes, or PMT_COHORT_SIZELESS | index */
    uint32_t temporaries;    /* since the last cut */
    uint32_t site;           /* | PMT_COHORT_DIRTY; 0: recycled */
    uint32_t epoch;          /* of birth */
} pmt__cohort;

/* Bytes of a sizeless cohort. */
typedef struct pmt__large {
    uint64_t live_bytes;
    uint64_t alloc_bytes;     /* since the last cut */
    uint64_t temporary_bytes; /* since the last cut */
    uint64_t live_bytes_at_cut;
    uint64_t peak_bytes;  /* live bytes at the peak, if the peak entry of the cohort is current */
    uint64_t noted_bytes; /* freed since the last cut, of which a life note tells */
} pmt__large;

/* How old blocks were that died before a mark. The row of a cohort has one age for all that it frees, which is right as long as no
   mark lies within the span of the cut. Where one does, the first change of a cohort after it finds what was freed up to it: the mark
   raises `stamp`, so that the hot path comes by pmt__cohort_seen_slow_nopy. Not touched by a program without marks. */
typedef struct pmt__life_note {
    uint32_t
        cut; /* valid while this is the current one; else nothing changed since the span began */
    uint32_t epoch; /* of the last change */
    uint32_t frees; /* since the last cut, that were noted */
} pmt__life_note;

/* --- peaks ------------------------------------------------------------------------------------------------------------ */

/* A peak instance follows the maximum of live bytes since it was created, and what every cohort held at that moment, in
   O(1) per event: while new maxima follow one another nothing is noted; when the run ends, `run` is raised, and from then on
   the first change of a cohort notes what it held (its state at the maximum). At any time a cohort's state at the peak is
   its note if that carries the current run, else what it holds now. */
typedef struct pmt__peak_note {
    uint32_t run;
    uint32_t live;
} pmt__peak_note;

typedef struct pmt__peak {
    uint64_t bytes;
    uint64_t ticks; /* when it ended, by pmt__ticks() */
    uint32_t run;
    uint32_t growing;      /* the current state is the maximum */
    uint32_t moved;        /* since the last cut */
    pmt__peak_note *notes; /* by cohort id */
} pmt__peak;

#define PMT_PEAKS 1 /* instances; more come with nested scopes */

/* --- the leaf cache ---------------------------------------------------------------------------------------------------- */

/* (parent node, place of the top frame, key) → cohort. key = size | domain << 10 | thread << 13 | epoch tag << 24; the
   cache is emptied when the tag wraps. It is large, because programs of many stacks come back to each seldom; small programs
   touch little of it. */
typedef struct pmt__leaf {
    uint32_t parent;
    uint32_t place; /* | PMT_PLACE_NOT_BEGUN */
    uint32_t key;
    uint32_t cohort;
} pmt__leaf;

#define PMT_LEAF_BITS 16
/* hash of (parent node, place) → child, for nodes with many children. A hint: the node tells whether it is the one. */
#define PMT_CHILD_BITS 16

#define PMT_KEY_DOMAIN_SHIFT 10
#define PMT_KEY_THREAD_SHIFT 13
#define PMT_KEY_EPOCH_SHIFT 24
#define PMT_KEY_THREAD(key) \
    ((key) >> PMT_KEY_THREAD_SHIFT & ((1u << (PMT_KEY_EPOCH_SHIFT - PMT_KEY_THREAD_SHIFT)) - 1))

/* --- threads ------------------------------------------------------------------------------------------------------------ */

#define PMT_POSITIONS 1024 /* hash of frame address → index in the stack cache */
#define PMT_TEMPORARIES_MAX 16

typedef struct pmt__link {
    uint64_t previous;
    uint64_t instr;
} pmt__link;

/* The cached stack of a thread, root first. Owned by that thread while it holds the tables; `depth = 0, top = NULL` may be set by
   whoever holds the tables. */
typedef struct pmt__thread {
    const void
        *state; /* atomic: NULL when the thread state was freed (it may happen without the GIL) */
    uint64_t state_id;
    uint64_t native_id;
    uint64_t ident;
    uint64_t birth_ns;
    uint32_t id;     /* in the capture */
    uint32_t name;   /* string id, 0 = none yet */
    uint32_t key;    /* id << PMT_KEY_THREAD_SHIFT */
    const void *top; /* the top frame of the newest event, or NULL; with it go: */
    const void *top_caller;
    uint64_t top_caller_instr;
    uint32_t top_parent; /* the node of its callers */
    int32_t depth;       /* frames that are cached */
    int32_t capacity;
    int32_t
        heap_top; /* no frame above this index is in a heap object (a generator), whose memory can vanish; -1: none */
    uint32_t ended;
    uint32_t name_asked; /* its first stack has been seen, and with it a chance to learn its name */
    void *fresh;         /* the newest block, until an object was made in it (reference tracer) */
    void *last[PMT_TEMPORARIES_MAX + 1]; /* addresses of the newest blocks, newest first */
    void **frame;                        /* [capacity] */
    pmt__link *link;                     /* [capacity] */
    uint32_t
        *node; /* [capacity + 1]: node[i + 1] is the stack that ends in frame i; node[0] = root */
    uint32_t position[PMT_POSITIONS];
    struct pmt__thread *next;
} pmt__thread;

/* --- everything together -------------------------------------------------------------------------------------------------- */

#define PMT_LOG2_SIZES 64

typedef struct pmt__tables {
    /* written at every event: one line */
    uint32_t busy;      /* atomic: the owner of the GIL is inside a hook */
    uint32_t attention; /* atomic: why hooks must take the slow way in; see gate.h */
    uint32_t **
        shadow; /* these three outlive a recording: threads without the GIL may still be reading them */
    uint64_t live_bytes; /* from here on: cleared by create and dispose */
    uint64_t peak_floor; /* the lowest peak that does not grow: one compare for all instances */
    uint32_t stamp;
    uint32_t growing;    /* some peak instance grows */
    pmt__thread *thread; /* the one that had the last event */
    pmt__cohort *cohorts;
    /* read at every event */
    pmt__leaf *leaves;
    uint32_t *children;
    pmt__node *nodes;
    pmt__code_entry *known;
    uint32_t epoch_key; /* tag of the epoch << PMT_KEY_EPOCH_SHIFT */
    uint32_t temporaries_n;
    uint32_t marking; /* frames can be marked as verified */
    uint32_t log_on;  /* events go to the log too (log.h) */
    uint32_t mixed;   /* stacks are those of mixed.h */
    uint32_t parents; /* with the frames that await a task (mixed.h) */
    uint32_t
        lane_generation; /* atomic: raised when what the lanes have cached holds no longer (lane.h) */

    /* the rest */
    uint32_t epoch;
    uint32_t
        span_epoch; /* that the span of this cut began with: another one than epoch if a mark lies in it */
    uint32_t cut;            /* number of the cut that is being collected: 1, 2, … */
    uint32_t cuts_per_epoch; /* automatic epochs */
    pmt__site *sites;
    uint32_t *live_at_cut;      /* blocks, by cohort */
    pmt__life_note *life_notes; /* by cohort */
    uint32_t *code_of;          /* by block of places */
    pmt__large *large;
    uint32_t *dirty; /* cohorts that changed since the last cut */
    uint32_t dirty_count;
    uint32_t node_count, site_count, cohort_count, large_count, code_count, string_count;
    uint32_t node_limit, site_limit, cohort_limit, large_limit, code_limit;
    uint32_t node_room, site_room, cohort_room, large_room, code_room; /* what is mapped now */
    uint32_t block_count, block_limit, block_room, blocks_wanted;      /* of places */
    uint32_t cohort_free, large_free; /* lists of unused ids, linked by live / live_bytes */
    uint32_t node_flushed, site_flushed, code_flushed, string_flushed; /* what the capture has */

    uint32_t *node_hash; /* ids; key (parent, place) */
    uint32_t node_hash_mask;
    uint32_t node_hashed; /* children that are not in the list of their parent */
    uint32_t *code_hash;  /* ids; key object */
    uint32_t code_hash_mask;
    uint32_t *dead_hash; /* heads of lists of dead codes; key fingerprint */
    uint32_t dead_hash_mask;
    pmt__code *codes;
    uint64_t *string_hash; /* pairs (hash, id) */
    uint32_t string_hash_mask;
    pmt__buffer new_strings,
        new_codes; /* encoded bodies; what was not flushed yet, or with names_kept all of them */
    size_t string_bytes_flushed, code_bytes_flushed;
    uint32_t names_kept; /* for children that are forked: their captures need all of them again */
    pmt__buffer new_lifetimes;
    uint32_t lifetime_count;
    uint32_t lifetime_site, lifetime_birth; /* of the entry before */

    pmt__peak peaks[PMT_PEAKS];
    pmt__thread *threads; /* all */
    uint32_t thread_count;
    uint32_t threads_changed;

    uint64_t
        size_allocs[PMT_LOG2_SIZES]; /* large requests since the last cut, by log2 of the size */
    uint64_t size_bytes[PMT_LOG2_SIZES];
    uint64_t counters[PMT_COUNTER_LIMIT];
    uint64_t start_ns;
    uint64_t start_ticks;
    uint64_t table_bytes; /* of grown tables (hashes, threads), for own_bytes */
    const pmt__frame_source *source;
} pmt__tables;

extern pmt__tables pmt__t __attribute__((aligned(64), visibility("hidden")));

/* Reserves the tables for at most max_memory_bytes of own memory. 0 or PMT_ERR_NOMEM. */
int pmt__tables_create(const pmt__frame_source *source, uint64_t max_memory_bytes,
                       uint32_t temporaries_n);
/* Gives the memory back. The shadow stays mapped (zeroed): a thread without the GIL may still be reading it. */
void pmt__tables_dispose(void);

/* Threads of earlier recordings. Their memory is never unmapped: a hook in another interpreter, which has a GIL of its own, may be
   about to look whether the thread of the newest event is its own. Protected by the tables. */
extern pmt__thread *pmt__threads_spare;

/* Resident bytes of all tables: an estimate from what has been used. */
uint64_t pmt__tables_bytes(void);

/* Sites and cohorts that are kept free for folding: every size and domain. */
#define PMT_FOLD_RESERVE (4 * (PMT_SIZE_LARGE + 1))

void pmt__tables_grow_nopy(void);

/* Room for one more of everything, where there is any. With the tables held. */
PMT_INLINE void
pmt__tables_room_nopy(void)
{
    if (PMT_UNLIKELY(pmt__t.node_count + 1 >= pmt__t.node_room
                     || pmt__t.site_count + PMT_FOLD_RESERVE >= pmt__t.site_room
                     || pmt__t.cohort_count + PMT_FOLD_RESERVE >= pmt__t.cohort_room
                     || pmt__t.large_count + 1 >= pmt__t.large_room
                     || pmt__t.code_count + 1 >= pmt__t.code_room)) {
        pmt__tables_grow_nopy();
    }
}

/* --- slow ways (tree.c, cohort.c, threads.c): call them with the tables held ---------------------------------------------- */

/* The place of an instruction; PMT_PLACE_FOLDED where there is no room for another code object. code: NULL for an entry frame;
   generator: the frame is a generator's own. */
uint32_t pmt__place_slow_nopy(uint64_t instr, const void *code, int generator);
/* The same without the cache that goes by address. */
uint32_t pmt__place_plain_nopy(uint64_t instr, const void *code, int generator);
/* The node for a place below parent: found or made; parent itself for a place that has not begun. */
uint32_t pmt__node_slow_nopy(uint32_t parent, uint32_t place);
/* The same without hints. */
uint32_t pmt__node_plain_nopy(uint32_t parent, uint32_t place);
/* The code object at this address dies now. */
void pmt__code_died_nopy(const void *object);
int pmt__code_known(const void *object);
/* Is what stands at this address still the code object that was known there? Else that one has died. */
void pmt__code_verify_nopy(const void *object);
uint32_t pmt__string_intern_nopy(const pmt__text *text);

/* The cohort of the current epoch for (node, size, domain, thread id). Never fails: at the limits it folds. */
uint32_t pmt__cohort_get_nopy(uint32_t node, uint32_t size, uint32_t domain, uint32_t thread);
void pmt__cohort_seen_slow_nopy(pmt__cohort *cohort);
/* Notes the ages of what the cohort's frees up to now had before the last mark. Only in a span with a mark. */
void pmt__life_note_slow_nopy(uint32_t id);
void pmt__peak_reached_slow_nopy(void);
void pmt__peak_passed_slow_nopy(void);
void pmt__epoch_next_nopy(void);
/* Gives back the id of a cohort of a past epoch that has no live block (cut.c). */
void pmt__cohort_recycle_nopy(uint32_t id);

/* Makes or finds the thread with this state; the caller knows that it belongs to the main interpreter. NULL: no memory. */
pmt__thread *pmt__thread_get_nopy(const void *state, uint64_t state_id, uint64_t ident,
                                  uint64_t native_id);
int pmt__thread_grow_nopy(pmt__thread *thread, int32_t capacity); /* 0, or -1: no memory */
void pmt__threads_drop_caches_nopy(void);

#define PMT_MIX 0x9E3779B97F4A7C15ull /* 2^64 / golden ratio: Knuth's multiplicative hashing */
#define PMT_MIX32 0x9E3779B1u

/* The parent is added, not hashed: recursive programs come by nodes in the order of their ids, and so walk the caches forwards. */
PMT_INLINE size_t
pmt__leaf_index(uint32_t parent, uint32_t place, uint32_t size)
{
    return (parent + ((place ^ size << 20) * PMT_MIX32 >> (32 - PMT_LEAF_BITS)))
           & ((1u << PMT_LEAF_BITS) - 1);
}

PMT_INLINE size_t
pmt__child_index(uint32_t parent, uint32_t place)
{
    return (parent + (place * PMT_MIX32 >> (32 - PMT_CHILD_BITS))) & ((1u << PMT_CHILD_BITS) - 1);
}

PMT_INLINE pmt__code_entry *
pmt__code_slot(const void *object)
{
    return &pmt__t.known[(uintptr_t)object * PMT_MIX >> (64 - PMT_KNOWN_BITS)];
}

#endif
