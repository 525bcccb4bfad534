/* Rules on x86-64 Linux: the object that contains the pc, its search table, the description that is found there. */
#include "platform/unwind.h"

#include <stddef.h>
#include <string.h>

#include "platform/cfi.h"
#include "platform/objects.h"

/* Where the kernel puts the interrupted registers: in a ucontext_t, to which sp points when the handler has returned. */
enum {
    SIGNAL_BP = 120,
    SIGNAL_SP = 160,
    SIGNAL_PC = 168
};

/* A return from a signal's handler without a description of its own (musl's, Go's), told by its code. */
static int
is_signal_return(const pmt__object_map *map, uint64_t pc)
{
    static const uint8_t code[] = {0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05}; /* rt_sigreturn() */
    pmt__cfi_range text = pmt__object_readable(map, pc);
    return text.start != NULL && (uintptr_t)text.end - pc >= sizeof code
           && memcmp((const void *)(uintptr_t)pc, code, sizeof code) == 0;
}

int
pmt__unwind_supported(void)
{
    return pmt__objects_supported();
}

void
pmt__unwind_rule_find(uint64_t pc, int is_return, pmt__unwind_rule *out)
{
    *out = (pmt__unwind_rule){.cfa = PMT_UNWIND_NONE};
    uint64_t address = pc - (is_return != 0);
    pmt__object_map map;
    if (pmt__object_map_find(address, &map) < 0) {
        return;
    }
    if (map.eh_frame_hdr != NULL) {
        const uint8_t *header = map.eh_frame_hdr;
        pmt__cfi_range range = pmt__object_readable(&map, (uintptr_t)header);
        uint64_t fde = range.start == NULL ? 0 : pmt__cfi_search(range, header, address);
        if (fde != 0 && (fde < (uintptr_t)range.start || fde >= (uintptr_t)range.end)) {
            range = pmt__object_readable(&map, fde); /* another segment */
        }
        if (fde != 0 && range.start != NULL) {
            pmt__cfi_rule(range, (const uint8_t *)(uintptr_t)fde, pc, is_return, out);
        }
    }
    if (out->cfa == PMT_UNWIND_NONE && is_return && is_signal_return(&map, pc)) {
        *out = (pmt__unwind_rule){
            .cfa_offset = SIGNAL_SP,
            .bp_offset = SIGNAL_BP,
            .ra_offset = SIGNAL_PC,
            .cfa = PMT_UNWIND_SIGNAL,
            .bp = PMT_UNWIND_BP_AT_SP,
            .signal = 1,
        };
    }
}

int
pmt__unwind_plain(const pmt__unwind_regs *from, uint64_t stack_low, uint64_t stack_high,
                  uint64_t *pcs, int room)
{
    pmt__unwind_regs regs = *from;
    int count = 0, is_return = 0;
    while (count < room) {
        pmt__unwind_rule rule;
        pmt__unwind_rule_find(regs.pc, is_return, &rule);
        if (pmt__unwind_step(&rule, &regs, stack_low, stack_high) <= 0) {
            break;
        }
        is_return = !rule.signal;
        pcs[count++] = regs.pc;
    }
    return count;
}
