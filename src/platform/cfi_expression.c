/* DWARF 5, section 2.5, as far as frames use it. */
#include "platform/cfi_expression.h"

#include <stddef.h>

enum {
    VALUES = 8, /* on the stack */
    OP_DEREF = 0x06,
    OP_CONST1U = 0x08,
    OP_CONST1S = 0x09,
    OP_CONST2U = 0x0a,
    OP_CONST2S = 0x0b,
    OP_CONST4U = 0x0c,
    OP_CONST4S = 0x0d,
    OP_CONST8U = 0x0e,
    OP_CONST8S = 0x0f,
    OP_CONSTU = 0x10,
    OP_CONSTS = 0x11,
    OP_AND = 0x1a,
    OP_MINUS = 0x1c,
    OP_PLUS = 0x22,
    OP_PLUS_UCONST = 0x23,
    OP_SHL = 0x24,
    OP_GE = 0x2a,
    OP_LIT0 = 0x30,
    OP_LIT31 = 0x4f,
    OP_BREG0 = 0x70,
    OP_BREG31 = 0x8f,
    OP_BREGX = 0x92,
    OP_NOP = 0x96
};

int
pmt__cfi_register_value(uint64_t number, int64_t offset, uint64_t pc, pmt__cfi_value *out)
{
    uint64_t n = (uint64_t)offset;
    switch (number) {
    case PMT_CFI_REG_RSP:
        *out = (pmt__cfi_value){PMT_CFI_VALUE_SP, n, 0};
        return 0;
    case PMT_CFI_REG_RBP:
        *out = (pmt__cfi_value){PMT_CFI_VALUE_BP, n, 0};
        return 0;
    case PMT_CFI_REG_RA:
        *out = (pmt__cfi_value){PMT_CFI_VALUE_NUMBER, pc + n, 0};
        return 0;
    default:
        return -1;
    }
}

/* a OP b into *a. -1: not to be said of values like these. */
static int
binary(uint8_t op, pmt__cfi_value *a, const pmt__cfi_value *b)
{
    if (b->kind != PMT_CFI_VALUE_NUMBER) {
        if (op != OP_PLUS || a->kind != PMT_CFI_VALUE_NUMBER) {
            return -1;
        }
        pmt__cfi_value sum = *b;
        sum.n += a->n;
        *a = sum;
        return 0;
    }
    if (op == OP_PLUS) {
        a->n += b->n;
        return 0;
    }
    if (op == OP_MINUS) {
        a->n -= b->n;
        return 0;
    }
    if (a->kind != PMT_CFI_VALUE_NUMBER) {
        return -1;
    }
    if (op == OP_AND) {
        a->n &= b->n;
    } else if (op == OP_GE) {
        a->n = (int64_t)a->n >= (int64_t)b->n;
    } else {
        a->n = b->n < 64 ? a->n << b->n : 0;
    }
    return 0;
}

static int
deref(pmt__cfi_value *v)
{
    if (v->kind != PMT_CFI_VALUE_SP && v->kind != PMT_CFI_VALUE_BP) {
        return -1;
    }
    *v = (pmt__cfi_value){v->kind == PMT_CFI_VALUE_SP ? PMT_CFI_VALUE_AT_SP : PMT_CFI_VALUE_AT_BP,
                          0, v->n};
    return 0;
}

/* What the operation pushes. -1: it pushes nothing, or nothing that we can say. */
static int
pushed(uint8_t op, pmt__cfi_cursor *c, uint64_t pc, pmt__cfi_value *out)
{
    *out = (pmt__cfi_value){PMT_CFI_VALUE_NUMBER, 0, 0};
    if (op >= OP_LIT0 && op <= OP_LIT31) {
        out->n = op - OP_LIT0;
        return 0;
    }
    if (op >= OP_BREG0 && op <= OP_BREG31) {
        return pmt__cfi_register_value(op - OP_BREG0, pmt__cfi_sleb_get(c), pc, out);
    }
    switch (op) {
    case OP_BREGX: {
        uint64_t number = pmt__cfi_uleb_get(c);
        return pmt__cfi_register_value(number, pmt__cfi_sleb_get(c), pc, out);
    }
    case OP_CONST1U:
        out->n = pmt__cfi_byte_get(c);
        return 0;
    case OP_CONST1S:
        out->n = (uint64_t)(int64_t)(int8_t)pmt__cfi_byte_get(c);
        return 0;
    case OP_CONST2U:
        out->n = pmt__cfi_format_get(c, PMT_CFI_PE_UDATA2);
        return 0;
    case OP_CONST2S:
        out->n = pmt__cfi_format_get(c, PMT_CFI_PE_SDATA2);
        return 0;
    case OP_CONST4U:
        out->n = pmt__cfi_format_get(c, PMT_CFI_PE_UDATA4);
        return 0;
    case OP_CONST4S:
        out->n = pmt__cfi_format_get(c, PMT_CFI_PE_SDATA4);
        return 0;
    case OP_CONST8U:
    case OP_CONST8S:
        out->n = pmt__cfi_format_get(c, PMT_CFI_PE_UDATA8);
        return 0;
    case OP_CONSTU:
        out->n = pmt__cfi_uleb_get(c);
        return 0;
    case OP_CONSTS:
        out->n = (uint64_t)pmt__cfi_sleb_get(c);
        return 0;
    default:
        return -1;
    }
}

int
pmt__cfi_expression_run(pmt__cfi_cursor c, int with_cfa, uint64_t pc, pmt__cfi_value *out)
{
    pmt__cfi_value stack[VALUES];
    size_t count = 0;
    if (with_cfa) {
        stack[count++] = (pmt__cfi_value){PMT_CFI_VALUE_CFA, 0, 0};
    }
    while (c.at < c.end) {
        uint8_t op = pmt__cfi_byte_get(&c);
        int result;
        switch (op) {
        case OP_NOP:
            result = 0;
            break;
        case OP_DEREF:
            result = count >= 1 ? deref(&stack[count - 1]) : -1;
            break;
        case OP_PLUS_UCONST: {
            uint64_t n = pmt__cfi_uleb_get(&c);
            result = count >= 1 ? 0 : -1;
            if (count >= 1) {
                stack[count - 1].n += n;
            }
            break;
        }
        case OP_AND:
        case OP_MINUS:
        case OP_PLUS:
        case OP_SHL:
        case OP_GE:
            result = count >= 2 ? binary(op, &stack[count - 2], &stack[count - 1]) : -1;
            count -= count >= 2;
            break;
        default:
            result = count < VALUES ? pushed(op, &c, pc, &stack[count]) : -1;
            count += result == 0;
        }
        if (result < 0 || c.bad) {
            return -1;
        }
    }
    if (count == 0) {
        return -1;
    }
    *out = stack[count - 1];
    return 0;
}
