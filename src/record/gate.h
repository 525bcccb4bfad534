/* Who holds the tables: the gate between the hooks and the writer.

   Hooks run with the GIL, so there is one of them at a time; but the writer has no GIL and must see a state between two
   events. A lock in every hook would cost more than all the rest, so the gate is asymmetric: a hook stores `busy`, then reads
   `attention`, with only a compiler barrier in between; the writer sets `attention`, has the kernel run a memory barrier
   on every thread (membarrier), and then waits until `busy` is 0. Either the hook sees `attention` and waits, or the writer
   sees `busy` and waits. Where the system has no such barrier, `attention` keeps a bit that sends every hook through the slow
   way in, which has a real fence. Threads without the GIL have gates of their own (lane.h), for which the same holds.

   A hook waits for the length of one cut at most (a copy of what changed: well under a millisecond). The holder of the tables
   makes no call that could wait for the program. */
#ifndef PMT_RECORD_GATE_H
#define PMT_RECORD_GATE_H

#include "record/tables.h"

enum {
    PMT_ATTENTION_OFF = 1,  /* not recording: hooks pass through */
    PMT_ATTENTION_HELD = 2, /* somebody without the GIL holds the tables, or wants to */
    PMT_ATTENTION_MIXED =
        4, /* stacks are those of mixed.h: not the short way of the hooks, which knows none */
    PMT_ATTENTION_FENCE = 8,   /* no asymmetric barrier here */
    PMT_ATTENTION_WRITER = 16, /* the writer thread must be started again (after a fork) */
    PMT_ATTENTION_CHECK = 32,  /* compare every stack with a plain walk (tests) */
    PMT_ATTENTION_NAME =
        128, /* the thread of the newest event has no name yet, and a frame that knows it */
    PMT_ATTENTION_SLOW =
        64 /* the short way does not do: temporaries over more than one allocation, an event log */
};

enum {
    PMT_GATE_CLOSED = 0,
    PMT_GATE_OPEN = 1,
    PMT_GATE_CHECK = 2
};

/* An event has found that the tables are held. 0: look again; -1: it has waited for too long, and is counted so. */
int pmt__event_wait(uint32_t attention, uint64_t *since_ns);
void pmt__event_waited(void);

/* The slow way in; when it returns PMT_GATE_CLOSED the event must not be recorded, and the hook has left already. */
int pmt__enter_slow_nopy(void);

PMT_INLINE int
pmt__enter_nopy(void)
{
    __atomic_store_n(&pmt__t.busy, 1, __ATOMIC_RELAXED);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    if (PMT_UNLIKELY(__atomic_load_n(&pmt__t.attention, __ATOMIC_ACQUIRE)
                     & ~(uint32_t)(PMT_ATTENTION_SLOW | PMT_ATTENTION_MIXED))) {
        return pmt__enter_slow_nopy();
    }
    return PMT_GATE_OPEN;
}

/* For the short ways: 1 inside, 0 if anything is out of the ordinary (then it is outside). */
PMT_INLINE int
pmt__enter_fast_nopy(void)
{
    __atomic_store_n(&pmt__t.busy, 1, __ATOMIC_RELAXED);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    if (PMT_UNLIKELY(__atomic_load_n(&pmt__t.attention, __ATOMIC_ACQUIRE) != 0)) {
        __atomic_store_n(&pmt__t.busy, 0, __ATOMIC_RELEASE);
        return 0;
    }
    return 1;
}

PMT_INLINE void
pmt__leave_nopy(void)
{
    __atomic_store_n(&pmt__t.busy, 0, __ATOMIC_RELEASE);
}

/* Events wait for the holder of the tables so long at most, in all, and are let through uncounted then (PMT_COUNTER_WAITED). Nobody holds
   them for more than some milliseconds, with one exception: a fork, whose other handlers and locks we do not know. One of them may
   wait for a thread that is in an event. */
#define PMT_EVENT_WAIT_NS ((uint64_t)1000000000)

/* For everybody who is not inside a hook: the writer, start and stop. */
void pmt__tables_acquire(void);
/* The same for an event of a thread without the GIL. 0, or -1: waited for too long, and counted so. */
int pmt__tables_acquire_event(void);
void pmt__tables_release(void);
/* Whether nobody was inside or held them at some moment of this time. 0: the calling thread itself may be, and acquire would never
   return. For the ends of a process that can come in a signal handler. */
int pmt__tables_free_within(uint64_t timeout_ns);

void pmt__attention_set(uint32_t bits);
void pmt__attention_clear(uint32_t bits);

#endif
