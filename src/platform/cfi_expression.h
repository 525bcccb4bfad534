/* Between the files that read call frame information: its expressions, run on values of which the registers are unknown. "rsp + 8" or
   "what is at rbp - 16, plus 8" are values here, and whatever comes out as one that a rule can say is good, however it was written.
   The pc is known, so the conditional expression of a PLT (how much of its code has pushed already) comes out as a number. */
#ifndef PMT_PLATFORM_CFI_EXPRESSION_H
#define PMT_PLATFORM_CFI_EXPRESSION_H

#include <stdint.h>

#include "platform/cfi_bytes.h"

enum { /* DWARF's numbers */
    PMT_CFI_REG_RBP = 6,
    PMT_CFI_REG_RSP = 7,
    PMT_CFI_REG_RA = 16 /* the return address, and the pc */
};

typedef struct pmt__cfi_value {
    enum {
        PMT_CFI_VALUE_NUMBER, /* n */
        PMT_CFI_VALUE_CFA,    /* cfa + n */
        PMT_CFI_VALUE_SP,     /* sp + n */
        PMT_CFI_VALUE_BP,     /* bp + n */
        PMT_CFI_VALUE_AT_SP,  /* *(sp + inner) + n */
        PMT_CFI_VALUE_AT_BP   /* *(bp + inner) + n */
    } kind;
    uint64_t n, inner; /* modulo 2^64 */
} pmt__cfi_value;

/* register + offset. -1: not one of ours. */
int pmt__cfi_register_value(uint64_t number, int64_t offset, uint64_t pc, pmt__cfi_value *out);

/* with_cfa: the cfa is on the stack at the beginning. 0, or -1: it does not come out as a value of ours. */
int pmt__cfi_expression_run(pmt__cfi_cursor c, int with_cfa, uint64_t pc, pmt__cfi_value *out);

#endif
