/* Lanes: events of threads that do not hold the GIL (raw memory, the C library's), without a lock.

   Every thread that allocates without the GIL has a lane: a gate of its own (`busy`, as in gate.h), a small cache from where it
   stands to the cohort, and sums: how many blocks each cohort gained and lost by this thread. Sums do not depend on the order of
   events, so whoever holds the tables can add those of all lanes, one lane after the other. Between two events the shadow is
   right at once: the cohort's id goes into it by the thread that owns the block.

   What a lane does not know (another stack, a new size, a new epoch) it asks for with the tables held: some microseconds,
   once. A lane never follows a pointer into tables that can grow.

   Not exact until counted: live bytes, and with them the peak. A lane is counted when it has touched many cohorts, when it has
   allocated PMT_LANE_BYTES, at every cut, and when the holder of the GIL frees a block whose birth must still be in a lane,
   because its cohort has none left (pmt__lanes_owe): so no count is ever less than none. */
#ifndef PMT_RECORD_LANE_H
#define PMT_RECORD_LANE_H

#include <stdint.h>

#include "record/gate.h"
#include "record/tables.h"

#define PMT_LANE_SUM_BITS 8
#define PMT_LANE_SUMS (1u << PMT_LANE_SUM_BITS)
#define PMT_LANE_PROBES 8 /* places where the sum of a cohort can stand */
#define PMT_LANE_BYTES ((uint64_t)4 << 20)
#define PMT_LANE_BLOCK_MAX ((uint64_t)256 << 10) /* larger blocks are counted at once */
#define PMT_LANE_LEAF_BITS 8

/* What a lane did to a cohort since it was counted. */
typedef struct pmt__lane_sum {
    uint32_t cohort; /* 0: unused */
    uint32_t allocs;
    uint32_t frees;
    uint32_t temporaries; /* of the frees: blocks that were among the newest of the thread */
    uint32_t exact;       /* its blocks are known to be small: no size stands behind them */
    uint32_t unused_;
    uint64_t alloc_bytes; /* of a sizeless cohort; 0 else */
    uint64_t free_bytes;
    uint64_t temporary_bytes;
} pmt__lane_sum;

/* (callers' node, instruction of the top frame, key as in pmt__leaf) → cohort */
typedef struct pmt__lane_leaf {
    uint64_t instr;
    uint32_t parent;
    uint32_t key;
    uint32_t cohort;
    uint32_t sum; /* where its sum stood last */
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
    uint32_t touched;    /* there is something to count */
    uint64_t bytes;      /* allocated and not counted */
    void *last[2];       /* newest blocks, newest first */
    struct pmt__lane *next;
    struct pmt__mixed *mixed; /* owned, stays when the thread has gone; NULL: not asked yet */
    uint64_t size_allocs[64]; /* as in pmt__tables, not counted yet */
    uint64_t size_bytes[64];
    pmt__lane_leaf leaves[1 << PMT_LANE_LEAF_BITS];
    pmt__lane_sum sums[PMT_LANE_SUMS + PMT_LANE_PROBES];
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
                     & ~(uint32_t)(PMT_ATTENTION_CHECK | PMT_ATTENTION_SLOW | PMT_ATTENTION_MIXED
                                   | PMT_ATTENTION_NAME))) {
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

/* The sum of a cohort; NULL: there is no room for it before the lane is counted. Inside. */
PMT_INLINE pmt__lane_sum *
pmt__lane_sum_of(pmt__lane *lane, uint32_t cohort)
{
    pmt__lane_sum *sum = &lane->sums[cohort * PMT_MIX32 >> (32 - PMT_LANE_SUM_BITS)];
    for (int i = 0; i < PMT_LANE_PROBES; i++, sum++) {
        if (PMT_LIKELY(sum->cohort == cohort)) {
            return sum;
        }
        if (sum->cohort == 0) {
            sum->cohort = cohort;
            return sum;
        }
    }
    return NULL;
}

/* Is this the state of a thread that was seen with the GIL and that has not been freed since? Only such a state may be looked at
   without the GIL: at the end of the interpreter, threads that go on lose theirs. It stays as long as the caller is inside, or holds
   the tables: whoever frees a state waits for that (watched_died_nopy in src/cpython). */
int pmt__state_is_alive(const void *state);
PMT_INLINE int
pmt__lane_state_is_alive(const pmt__lane *lane, const void *state)
{
    const pmt__thread *thread = lane->thread;
    return PMT_LIKELY(thread != NULL && lane->state == state
                      && __atomic_load_n(&thread->state, __ATOMIC_ACQUIRE) == state)
           || pmt__state_is_alive(state);
}

/* The thread of the lane: the one with this state, or, without one, one for the lane. The caller holds the tables. NULL: no memory. */
pmt__thread *pmt__lane_thread_nopy(pmt__lane *lane, const void *state, uint64_t state_id,
                                   uint64_t ident);

/* Forgets an earlier recording. Nobody is inside. */
void pmt__lanes_begin(void);
/* Counts what all lanes have summed up. The caller holds the tables. */
void pmt__lanes_count_nopy(void);
/* The lanes of threads that have ended are free for others. The caller holds the tables. */
void pmt__lanes_sweep_nopy(void);
/* Waits until nobody is inside; for pmt__tables_acquire. */
void pmt__lanes_wait(void);
int pmt__lanes_busy(void); /* is anybody? */
/* In a forked child, with the tables held: only the calling thread is left. */
void pmt__lanes_forked(void);

#endif
