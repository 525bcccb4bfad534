/* Where there are no rules: another processor or another system. */
#include "platform/unwind.h"

int
pmt__unwind_supported(void)
{
    return 0;
}

void
pmt__unwind_rule_find(uint64_t pc, int is_return, pmt__unwind_rule *out)
{
    (void)pc;
    (void)is_return;
    *out = (pmt__unwind_rule){.cfa = PMT_UNWIND_NONE};
}

int
pmt__object_find(uint64_t pc, pmt__object *out)
{
    (void)pc;
    *out = (pmt__object){.path = ""};
    return -1;
}

int
pmt__unwind_plain(const pmt__unwind_regs *from, uint64_t stack_low, uint64_t stack_high,
                  uint64_t *pcs, int room)
{
    (void)from;
    (void)stack_low;
    (void)stack_high;
    (void)pcs;
    (void)room;
    return 0;
}
