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

PMT_NOINLINE int
pmt__enter_slow_nopy(void)
{
    for (;;) {
        __atomic_exchange_n(&pmt__t.busy, 1,
                            __ATOMIC_SEQ_CST); /* a full fence: `busy` before `attention` */
        uint32_t attention = __atomic_load_n(&pmt__t.attention, __ATOMIC_SEQ_CST);
        if (attention & PMT_ATTENTION_OFF) {
            pmt__leave_nopy();
            return PMT_GATE_CLOSED;
        }
        if (attention & PMT_ATTENTION_HELD) {
            pmt__leave_nopy();
            pmt__wait_word(&pmt__t.attention, attention, 1000000000u);
            continue;
        }
        if (attention & PMT_ATTENTION_WRITER) {
            pmt__writer_restart_nopy();
        }
        return attention & PMT_ATTENTION_CHECK ? PMT_GATE_CHECK : PMT_GATE_OPEN;
    }
}

void
pmt__tables_acquire(void)
{
    uint32_t expected = 0;
    if (!__atomic_compare_exchange_n(&holder, &expected, 1, 0, __ATOMIC_ACQUIRE,
                                     __ATOMIC_RELAXED)) {
        while (__atomic_exchange_n(&holder, 2, __ATOMIC_ACQUIRE) != 0) {
            pmt__wait_word(&holder, 2, 0);
        }
    }
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
