/* Lanes: events of threads that do not hold the GIL (raw memory, and later the C library's), without a lock.

   Every thread that allocates without the GIL has a lane: a gate of its own (`busy`, as in gate.h), a small cache from where it
   stands to the cohort, and a list of what it did: which cohort gained or lost a block. Sums do not depend on their order, so
   whoever holds the tables can count the lists of all lanes, one after the other. Between two events the shadow is right at
   once: the cohort's id goes into it by the thread that owns the block.

   What a lane does not know (another stack, a new size, a new epoch) it asks for with the tables held: some microseconds,
   once. A lane never follows a pointer into tables that can grow.

   Not exact until counted: live bytes, and with them the peak. A lane is counted when its list is full, when it has allocated
   PMT_LANE_BYTES, at every cut, and when the holder of the GIL frees a block whose birth must still be in a lane, because its
   cohort has none left (pmt__lanes_owe): so no count is ever less than none. */
#ifndef PMT_RECORD_LANE_H
#define PMT_RECORD_LANE_H

#include <stdint.h>

#include "record/gate.h"
#include "record/tables.h"

#define PMT_LANE_DELTAS 1024
#define PMT_LANE_BYTES ((uint64_t)4 << 20)
#define PMT_LANE_BLOCK_MAX ((uint64_t)256 << 10) /* larger blocks are counted at once */
#define PMT_LANE_LEAF_BITS 8

enum {
    PMT_DELTA_ALLOC = 1,
    PMT_DELTA_FREE = 2,
    PMT_DELTA_TEMPORARY = 3 /* a free, of one of the newest blocks of its thread */
};

typedef struct pmt__delta {
    uint32_t cohort;
    uint32_t kind;
    uint64_t bytes; /* of a sizeless cohort; 0 else */
} pmt__delta;

/* (callers' node, instruction of the top frame, key as in pmt__leaf) → cohort */
typedef struct pmt__lane_leaf {
    uint64_t instr;
    uint32_t parent;
    uint32_t key;
    uint32_t cohort;
    uint32_t unused_;
} pmt__lane_leaf;

/* Owned by its thread while that is inside, except the list `next`; else by the holder of the tables. */
typedef struct pmt__lane {
    uint32_t busy;  /* atomic: its thread is inside */
    uint32_t taken; /* atomic: it belongs to a living thread */
    uint64_t native_id;
    const void *state; /* of `thread`, NULL: a thread that Python does not know */
    uint64_t state_id;
    pmt__thread *thread; /* NULL: not asked yet */
    uint32_t thread_key;
    uint32_t generation; /* of tables.lane_generation, for which its leaves hold */
    uint32_t count;
    uint64_t bytes; /* allocated and not counted */
    void *last[2];  /* newest blocks, newest first */
    struct pmt__lane *next;
    pmt__lane_leaf leaves[1 << PMT_LANE_LEAF_BITS];
    pmt__delta deltas[PMT_LANE_DELTAS];
} pmt__lane;

/* atomic; lanes are added, never removed */
extern pmt__lane *pmt__lanes __attribute__((visibility("hidden")));

/* This thread's own events are not counted: the writer, and a thread that forks. */
extern __thread int pmt__lanes_closed
    __attribute__((tls_model("initial-exec"), visibility("hidden")));

/* The lane of the calling thread; NULL: no memory. */
pmt__lane *pmt__lane_new(void);
PMT_INLINE pmt__lane *
pmt__lane_own(void)
{
    extern __thread pmt__lane *pmt__lane_mine
        __attribute__((tls_model("initial-exec"), visibility("hidden")));
    return PMT_LIKELY(pmt__lane_mine != NULL) ? pmt__lane_mine : pmt__lane_new();
}

/* 1: inside; 0: nobody records, or this thread is inside already (a signal handler). */
int pmt__lane_enter_slow_nopy(pmt__lane *lane);
PMT_INLINE int
pmt__lane_enter_nopy(pmt__lane *lane)
{
    if (PMT_UNLIKELY(__atomic_load_n(&lane->busy, __ATOMIC_RELAXED))) {
        return 0;
    }
    __atomic_store_n(&lane->busy, 1, __ATOMIC_RELAXED);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    if (PMT_UNLIKELY(__atomic_load_n(&pmt__t.attention, __ATOMIC_ACQUIRE)
                     & ~(uint32_t)(PMT_ATTENTION_CHECK | PMT_ATTENTION_SLOW))) {
        return pmt__lane_enter_slow_nopy(lane);
    }
    return 1;
}

PMT_INLINE void
pmt__lane_leave_nopy(pmt__lane *lane)
{
    __atomic_store_n(&lane->busy, 0, __ATOMIC_RELEASE);
}

/* Takes the tables and counts all lanes. The caller is not inside. */
void pmt__lanes_flush(void);

/* A block of this cohort is about to die: was its birth not counted yet? For the holder of the GIL, who then calls
   pmt__lanes_flush before he goes inside. */
PMT_INLINE int
pmt__lanes_owe(uint32_t cohort)
{
    return cohort != 0 && pmt__t.cohorts[cohort].live == 0;
}

/* Notes an event; inside. */
PMT_INLINE void
pmt__lane_note(pmt__lane *lane, uint32_t cohort, uint32_t kind, uint64_t bytes)
{
    lane->deltas[lane->count++] = (pmt__delta){cohort, kind, bytes};
}

/* To be asked before an event: is there room for it? Inside. */
PMT_INLINE int
pmt__lane_is_full(const pmt__lane *lane)
{
    return lane->count == PMT_LANE_DELTAS || lane->bytes > PMT_LANE_BYTES;
}

/* The thread of the lane: the one with this state, or, without one, one for the lane. The caller holds the tables. NULL: no memory. */
pmt__thread *pmt__lane_thread_nopy(pmt__lane *lane, const void *state, uint64_t state_id,
                                   uint64_t ident);

/* Forgets an earlier recording. Nobody is inside. */
void pmt__lanes_begin(void);
/* Counts what all lanes have noted. The caller holds the tables. */
void pmt__lanes_count_nopy(void);
/* The lanes of threads that have ended are free for others. The caller holds the tables. */
void pmt__lanes_sweep_nopy(void);
/* Waits until nobody is inside; for pmt__tables_acquire. */
void pmt__lanes_wait(void);
int pmt__lanes_busy(void); /* is anybody? */
/* In a forked child, with the tables held: only the calling thread is left. */
void pmt__lanes_forked(void);

#endif
