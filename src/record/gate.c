#include "record/gate.h"

#include "platform/platform.h"
#include "record/lane.h"
#include "record/writer.h"

static uint32_t
    holder; /* atomic: 0 free, 1 held, 2 held and somebody waits. Lock order: holder, then busy */

void
pmt__attention_set(uint32_t bits)
{
    __atomic_fetch_or(&pmt__t.attention, bits, __ATOMIC_SEQ_CST);
}

void
pmt__attention_clear(uint32_t bits)
{
    __atomic_fetch_and(&pmt__t.attention, ~bits, __ATOMIC_SEQ_CST);
}

/* Starting a thread takes locks of the C library, which somebody can hold who waits for the tables: a thread that joins another one
   frees the other's memory with the lock held that a new thread's stack needs. So we must not be inside. */
static void
writer_restart(void)
{
    pmt__leave_nopy();
    int closed = pmt__lanes_closed;
    pmt__lanes_closed = 1; /* what starting it allocates is not the program's */
    pmt__writer_restart_nopy();
    pmt__lanes_closed = closed;
}

void
pmt__event_waited(void)
{
    __atomic_fetch_add(&pmt__t.counters[PMT_COUNTER_WAITED], 1, __ATOMIC_RELAXED);
}

PMT_NOINLINE int
pmt__enter_slow_nopy(void)
{
    uint64_t since_ns = 0;
    for (int restarted = 0;;) {
        __atomic_exchange_n(&pmt__t.busy, 1,
                            __ATOMIC_SEQ_CST); /* a full fence: `busy` before `attention` */
        uint32_t attention = __atomic_load_n(&pmt__t.attention, __ATOMIC_SEQ_CST);
        if (attention & PMT_ATTENTION_OFF) {
            pmt__leave_nopy();
            return PMT_GATE_CLOSED;
        }
        if (attention & PMT_ATTENTION_HELD) {
            pmt__leave_nopy();
            if (pmt__event_wait(attention, &since_ns) < 0) {
                return PMT_GATE_CLOSED;
            }
            continue;
        }
        if ((attention & PMT_ATTENTION_WRITER) && !restarted) {
            restarted = 1;
            writer_restart();
            continue;
        }
        return attention & PMT_ATTENTION_CHECK ? PMT_GATE_CHECK : PMT_GATE_OPEN;
    }
}

int
pmt__event_wait(uint32_t attention, uint64_t *since_ns)
{
    uint64_t now_ns = pmt__clock_mono_ns();
    if (*since_ns == 0) {
        *since_ns = now_ns;
    } else if (now_ns - *since_ns > PMT_EVENT_WAIT_NS) {
        pmt__event_waited();
        return -1;
    }
    pmt__wait_word(&pmt__t.attention, attention, PMT_EVENT_WAIT_NS / 10);
    return 0;
}

/* From being the holder to having the tables. */
static void
others_leave(void)
{
    pmt__attention_set(PMT_ATTENTION_HELD);
    if (!(__atomic_load_n(&pmt__t.attention, __ATOMIC_RELAXED) & PMT_ATTENTION_FENCE)) {
        pmt__barrier_all();
    }
    for (unsigned spins = 0; __atomic_load_n(&pmt__t.busy, __ATOMIC_ACQUIRE) != 0; spins++) {
        static const uint32_t never = 0;
        if (spins >= 16) {
            pmt__wait_word(&never, 0, 20000); /* the hook's thread may be waiting for this core */
        }
    }
    pmt__lanes_wait();
}

static int
holder_free(void)
{
    uint32_t expected = 0;
    return __atomic_compare_exchange_n(&holder, &expected, 1, 0, __ATOMIC_ACQUIRE,
                                       __ATOMIC_RELAXED);
}

void
pmt__tables_acquire(void)
{
    if (!holder_free()) {
        while (__atomic_exchange_n(&holder, 2, __ATOMIC_ACQUIRE) != 0) {
            pmt__wait_word(&holder, 2, 0);
        }
    }
    others_leave();
}

int
pmt__tables_acquire_event(void)
{
    if (!holder_free()) {
        const uint64_t until_ns = pmt__clock_mono_ns() + PMT_EVENT_WAIT_NS;
        while (__atomic_exchange_n(&holder, 2, __ATOMIC_ACQUIRE) != 0) {
            if (pmt__clock_mono_ns() > until_ns) {
                pmt__event_waited();
                return -1;
            }
            pmt__wait_word(&holder, 2, PMT_EVENT_WAIT_NS / 10);
        }
    }
    others_leave();
    return 0;
}

/* Without waiting for a hook that never leaves: that of the calling thread, when it was interrupted in it by a signal. */
int
pmt__tables_free_within(uint64_t timeout_ns)
{
    const uint64_t until = pmt__clock_mono_ns() + timeout_ns;
    for (;;) {
        int busy = __atomic_load_n(&holder, __ATOMIC_ACQUIRE) != 0
                   || __atomic_load_n(&pmt__t.busy, __ATOMIC_ACQUIRE) != 0 || pmt__lanes_busy();
        if (!busy || pmt__clock_mono_ns() >= until) {
            return !busy;
        }
        static const uint32_t never = 0;
        pmt__wait_word(&never, 0, 50000);
    }
}

void
pmt__tables_release(void)
{
    pmt__attention_clear(PMT_ATTENTION_HELD);
    pmt__wake_word(&pmt__t.attention);
    if (__atomic_exchange_n(&holder, 0, __ATOMIC_RELEASE) == 2) {
        pmt__wake_word(&holder);
    }
}
