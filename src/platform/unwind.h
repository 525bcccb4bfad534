/* Native stacks: which functions called this one.

   A frame is left by a few additions and loads that depend on nothing but its pc: where the caller's stack pointer is, from there
   its return address and its frame pointer. Finding them out takes a search in tables of the object and an interpreter for what
   they say (cfi.h), so that is done once per pc: the answer is a rule of 20 bytes, which the caller keeps in a table of its own.
   Walking a stack is then a look-up and two loads per frame. Only rsp, rbp and rip are followed: what a function computes its frame
   from but these is not to be had, and has no rule.

   For hooks of an allocator: nothing here allocates, takes a lock, makes a system call (but for one, see pmt__object_find) or
   touches errno. Nothing outside of what the loader mapped and of the stack's given bounds is read, whatever the tables say.

   x86-64 Linux with glibc 2.35 or later, which finds objects without a lock; elsewhere there are no rules. */
#ifndef PMT_PLATFORM_UNWIND_H
#define PMT_PLATFORM_UNWIND_H

#include <stdint.h>

/* How the cfa is found: the stack pointer that the caller has after the return. */
enum {
    PMT_UNWIND_NONE = 0, /* no information: the walk ends here, cut short */
    PMT_UNWIND_END,      /* the outermost frame: it has no return address (_start, clone) */
    PMT_UNWIND_SP,       /* cfa = sp + cfa_offset */
    PMT_UNWIND_BP,       /* cfa = bp + cfa_offset */
    PMT_UNWIND_DEREF_SP, /* cfa = *(sp + cfa_offset) + cfa_add */
    PMT_UNWIND_DEREF_BP, /* cfa = *(bp + cfa_offset) + cfa_add: gcc's realigned stacks */
    PMT_UNWIND_SIGNAL /* cfa = *(sp + cfa_offset) + cfa_add, and the return address is at sp + ra_offset */
};

/* Where the caller's rbp is. */
enum {
    PMT_UNWIND_BP_SAME = 0,
    PMT_UNWIND_BP_AT_CFA, /* saved at cfa + bp_offset */
    PMT_UNWIND_BP_AT_BP,  /* saved at bp + bp_offset */
    PMT_UNWIND_BP_AT_SP   /* saved at sp + bp_offset */
};

typedef struct pmt__unwind_rule {
    int32_t cfa_offset;
    int32_t cfa_add;
    int32_t bp_offset;
    int32_t ra_offset; /* of the return address, from the cfa; in PMT_UNWIND_SIGNAL from sp */
    uint8_t cfa;       /* PMT_UNWIND_* */
    uint8_t bp;        /* PMT_UNWIND_BP_* */
    uint8_t signal;    /* the caller was interrupted here: its pc is no return address */
    uint8_t unused;    /* 0 */
} pmt__unwind_rule;

/* The rule at `pc`. is_return: pc is a return address, so what counts is the instruction before it (the call may be the function's
   last one). It is 0 for the first pc of a walk and for the one behind a rule with `signal`. Any thread, any time.
   The rule holds as long as the object is loaded: a cache of rules has to forget those of one that is not any more. */
void pmt__unwind_rule_find(uint64_t pc, int is_return, pmt__unwind_rule *out);

/* 1 if there are rules at all on this machine and with this C library. */
int pmt__unwind_supported(void);

/* The object (executable or library) that contains an address. */
typedef struct pmt__object {
    uint64_t start, end; /* the range of its mappings */
    uint64_t bias;       /* address - bias = virtual address in the ELF file */
    /* Borrowed from the loader, valid as long as the object is loaded. Of the executable: where /proc/self/exe led to, for ever; of
       the kernel's: "[vdso]". */
    const char *path;
    const uint8_t *build_id; /* borrowed from the mapped note */
    uint32_t build_id_size;  /* 0: it has none */
} pmt__object;

/* 0, or -1 if there is none. The first call for the executable makes a system call. Any thread, any time. */
int pmt__object_find(uint64_t pc, pmt__object *out);

/* --- walking ----------------------------------------------------------------------------------------------------------- */

typedef struct pmt__unwind_regs {
    uint64_t pc, sp, bp;
} pmt__unwind_regs;

/* The registers of the function that this is inlined into, for a walk whose first pc is no return address. */
static inline __attribute__((always_inline)) void
pmt__unwind_regs_here(pmt__unwind_regs *out)
{
#if defined(__x86_64__)
    /* bp first: without a frame pointer one of the results may be put into rbp */
    uint64_t pc, sp, bp;
    __asm__ volatile("movq %%rbp, %0\n\tmovq %%rsp, %1\n\tleaq 0(%%rip), %2"
                     : "=&r"(bp), "=&r"(sp), "=&r"(pc));
    *out = (pmt__unwind_regs){pc, sp, bp};
#else
    *out = (pmt__unwind_regs){0, 0, 0};
#endif
}

/* A word of a stack, if all of it lies in [low, high). Not a word that the compiler knows of, so AddressSanitizer would
   complain about it. */
__attribute__((no_sanitize_address)) static inline int
pmt__unwind_load(uint64_t address, uint64_t low, uint64_t high, uint64_t *out)
{
    typedef uint64_t __attribute__((may_alias, aligned(1))) word;
    if (address < low || address >= high || high - address < sizeof(word)) {
        return 0;
    }
    *out = *(const volatile word *)(uintptr_t)address;
    return 1;
}

/* One step towards the outermost frame. Reads the stack within [low, high) only, and demands that the stack pointer grows, so a
   walk ends whatever is on the stack.
   1: *regs is the caller's. 0: this was the outermost frame. -1: cut short, no rule or a stack that does not fit. */
static inline int
pmt__unwind_step(const pmt__unwind_rule *rule, pmt__unwind_regs *regs, uint64_t low, uint64_t high)
{
    uint64_t cfa;
    switch (rule->cfa) {
    case PMT_UNWIND_END:
        return 0;
    case PMT_UNWIND_SP:
        cfa = regs->sp + (uint64_t)(int64_t)rule->cfa_offset;
        break;
    case PMT_UNWIND_BP:
        cfa = regs->bp + (uint64_t)(int64_t)rule->cfa_offset;
        break;
    case PMT_UNWIND_DEREF_SP:
    case PMT_UNWIND_DEREF_BP:
    case PMT_UNWIND_SIGNAL: {
        uint64_t base = rule->cfa == PMT_UNWIND_DEREF_BP ? regs->bp : regs->sp;
        if (!pmt__unwind_load(base + (uint64_t)(int64_t)rule->cfa_offset, low, high, &cfa)) {
            return -1;
        }
        cfa += (uint64_t)(int64_t)rule->cfa_add;
        break;
    }
    default:
        return -1;
    }
    if (cfa <= regs->sp || cfa > high) {
        return -1;
    }
    uint64_t pc, bp = regs->bp;
    uint64_t pc_base = rule->cfa == PMT_UNWIND_SIGNAL ? regs->sp : cfa;
    if (!pmt__unwind_load(pc_base + (uint64_t)(int64_t)rule->ra_offset, low, high, &pc)) {
        return -1;
    }
    if (rule->bp != PMT_UNWIND_BP_SAME) {
        uint64_t bp_base = rule->bp == PMT_UNWIND_BP_AT_CFA  ? cfa
                           : rule->bp == PMT_UNWIND_BP_AT_BP ? regs->bp
                                                             : regs->sp;
        if (!pmt__unwind_load(bp_base + (uint64_t)(int64_t)rule->bp_offset, low, high, &bp)) {
            return -1;
        }
    }
    if (pc == 0) { /* so ends what was started by hand, a coroutine for one */
        return 0;
    }
    *regs = (pmt__unwind_regs){pc, cfa, bp};
    return 1;
}

/* A whole walk, every rule looked up anew: for tests and for checking a walk that is faster. Returns how many return addresses
   were put into `pcs`, from->pc not among them. */
int pmt__unwind_plain(const pmt__unwind_regs *from, uint64_t stack_low, uint64_t stack_high,
                      uint64_t *pcs, int room);

#endif
