/* The reader of call frame information for x86-64.

   Of the table that the information describes, one row per range of instructions and one column per register, a row of four
   columns is kept: the cfa, rbp, rsp and the return address. What happens to the other registers is passed over.

   Expressions are run on values of which the registers are unknown: "rsp + 8" or "what is at rbp - 16, plus 8" are values here.
   Whatever comes out as one of those that a rule can say is good, however it was written. The pc is known, so the conditional
   expression of a PLT (how much of its code has pushed already) comes out as a number. */
#include "platform/cfi.h"

#include <stddef.h>
#include <string.h>

enum {
    REG_RBP = 6,
    REG_RSP = 7,
    REG_RA = 16, /* the column of the return address */
    DEPTH = 8,   /* of remembered rows; compilers need 1 */
    VALUES = 8   /* on the stack of an expression */
};

/* --- bytes ------------------------------------------------------------------------------------------------------------- */

/* Reading past the end gives zeros and is remembered, so that it is enough to look at `bad` now and then. */
typedef struct cursor {
    const uint8_t *at, *end;
    int bad;
} cursor;

static inline uint64_t
fixed_get(cursor *c, size_t size)
{
    uint64_t value = 0;
    if ((size_t)(c->end - c->at) < size) {
        c->at = c->end;
        c->bad = 1;
        return 0;
    }
    for (size_t i = 0; i < size; i++) { /* a load, as size is a constant */
        value |= (uint64_t)c->at[i] << (8 * i);
    }
    c->at += size;
    return value;
}

static inline uint8_t
byte_get(cursor *c)
{
    return (uint8_t)fixed_get(c, 1);
}

static uint64_t
uleb_get(cursor *c)
{
    uint64_t value = 0;
    for (unsigned shift = 0;; shift += 7) {
        uint8_t byte = byte_get(c);
        uint64_t bits = byte & 0x7f;
        if (shift > 63 || bits << shift >> shift != bits) {
            c->bad = 1; /* more than 64 bits */
            return 0;
        }
        value |= bits << shift;
        if (!(byte & 0x80)) {
            return value;
        }
    }
}

static int64_t
sleb_get(cursor *c)
{
    uint64_t value = 0;
    for (unsigned shift = 0;; shift += 7) {
        uint8_t byte = byte_get(c);
        if (shift > 63) {
            c->bad = 1;
            return 0;
        }
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            if (byte & 0x40 && shift + 7 < 64) {
                value |= ~(uint64_t)0 << (shift + 7);
            }
            return (int64_t)value;
        }
    }
}

/* The next `size` bytes by themselves. */
static cursor
part_get(cursor *c, uint64_t size)
{
    cursor part = {c->at, c->at, 0};
    if ((uint64_t)(c->end - c->at) < size) {
        c->at = c->end;
        c->bad = part.bad = 1;
        return part;
    }
    part.end = c->at += size;
    return part;
}

/* --- encoded pointers -------------------------------------------------------------------------------------------------- */

enum { /* the format, what it is relative to, and that it is the address of the pointer */
    PE_FORMAT = 0x0f,
    PE_ABSPTR = 0x00,
    PE_ULEB128 = 0x01,
    PE_UDATA2 = 0x02,
    PE_UDATA4 = 0x03,
    PE_UDATA8 = 0x04,
    PE_SIGNED = 0x08,
    PE_SLEB128 = 0x09,
    PE_SDATA2 = 0x0a,
    PE_SDATA4 = 0x0b,
    PE_SDATA8 = 0x0c,
    PE_RELATIVE = 0x70,
    PE_PCREL = 0x10,
    PE_DATAREL = 0x30,
    PE_ALIGNED = 0x50,
    PE_INDIRECT = 0x80,
    PE_OMIT = 0xff
};

static uint64_t
format_get(cursor *c, uint8_t encoding)
{
    switch (encoding & PE_FORMAT) {
    case PE_ABSPTR:
    case PE_SIGNED:
    case PE_UDATA8:
    case PE_SDATA8:
        return fixed_get(c, 8);
    case PE_ULEB128:
        return uleb_get(c);
    case PE_SLEB128:
        return (uint64_t)sleb_get(c);
    case PE_UDATA2:
        return fixed_get(c, 2);
    case PE_SDATA2:
        return (uint64_t)(int64_t)(int16_t)fixed_get(c, 2);
    case PE_UDATA4:
        return fixed_get(c, 4);
    case PE_SDATA4:
        return (uint64_t)(int64_t)(int32_t)fixed_get(c, 4);
    default:
        c->bad = 1;
        return 0;
    }
}

/* data: what PE_DATAREL is relative to, 0 if there is no such thing. A pointer in a place that does not matter may be indirect, its
   value is of no use then. */
static uint64_t
pointer_get(cursor *c, uint8_t encoding, uint64_t data)
{
    if (encoding == PE_ALIGNED) {
        part_get(c, -(uintptr_t)c->at & 7);
        return fixed_get(c, 8);
    }
    uint64_t here = (uintptr_t)c->at;
    uint64_t value = format_get(c, encoding);
    switch (encoding & PE_RELATIVE) {
    case 0:
        return value;
    case PE_PCREL:
        return value + here;
    case PE_DATAREL:
        if (data != 0) {
            return value + data;
        }
        break;
    }
    c->bad = 1;
    return 0;
}

/* --- expressions ------------------------------------------------------------------------------------------------------- */

typedef struct value {
    enum {
        VALUE_NUMBER, /* n */
        VALUE_CFA,    /* cfa + n */
        VALUE_SP,     /* sp + n */
        VALUE_BP,     /* bp + n */
        VALUE_AT_SP,  /* *(sp + inner) + n */
        VALUE_AT_BP   /* *(bp + inner) + n */
    } kind;
    uint64_t n, inner; /* modulo 2^64 */
} value;

enum {
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

/* register + offset. -1: not one of ours. */
static int
register_value(uint64_t number, int64_t offset, uint64_t pc, value *out)
{
    uint64_t n = (uint64_t)offset;
    switch (number) {
    case REG_RSP:
        *out = (value){VALUE_SP, n, 0};
        return 0;
    case REG_RBP:
        *out = (value){VALUE_BP, n, 0};
        return 0;
    case REG_RA:
        *out = (value){VALUE_NUMBER, pc + n, 0};
        return 0;
    default:
        return -1;
    }
}

/* a OP b into *a. -1: not to be said of values like these. */
static int
binary(uint8_t op, value *a, const value *b)
{
    if (b->kind != VALUE_NUMBER) {
        if (op != OP_PLUS || a->kind != VALUE_NUMBER) {
            return -1;
        }
        value sum = *b;
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
    if (a->kind != VALUE_NUMBER) {
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
deref(value *v)
{
    if (v->kind != VALUE_SP && v->kind != VALUE_BP) {
        return -1;
    }
    *v = (value){v->kind == VALUE_SP ? VALUE_AT_SP : VALUE_AT_BP, 0, v->n};
    return 0;
}

/* What the operation pushes. -1: it pushes nothing, or nothing that we can say. */
static int
pushed(uint8_t op, cursor *c, uint64_t pc, value *out)
{
    *out = (value){VALUE_NUMBER, 0, 0};
    if (op >= OP_LIT0 && op <= OP_LIT31) {
        out->n = op - OP_LIT0;
        return 0;
    }
    if (op >= OP_BREG0 && op <= OP_BREG31) {
        return register_value(op - OP_BREG0, sleb_get(c), pc, out);
    }
    switch (op) {
    case OP_BREGX: {
        uint64_t number = uleb_get(c);
        return register_value(number, sleb_get(c), pc, out);
    }
    case OP_CONST1U:
        out->n = byte_get(c);
        return 0;
    case OP_CONST1S:
        out->n = (uint64_t)(int64_t)(int8_t)byte_get(c);
        return 0;
    case OP_CONST2U:
        out->n = format_get(c, PE_UDATA2);
        return 0;
    case OP_CONST2S:
        out->n = format_get(c, PE_SDATA2);
        return 0;
    case OP_CONST4U:
        out->n = format_get(c, PE_UDATA4);
        return 0;
    case OP_CONST4S:
        out->n = format_get(c, PE_SDATA4);
        return 0;
    case OP_CONST8U:
    case OP_CONST8S:
        out->n = format_get(c, PE_UDATA8);
        return 0;
    case OP_CONSTU:
        out->n = uleb_get(c);
        return 0;
    case OP_CONSTS:
        out->n = (uint64_t)sleb_get(c);
        return 0;
    default:
        return -1;
    }
}

/* with_cfa: the cfa is on the stack at the beginning. 0, or -1: it does not come out as a value of ours. */
static int
expression_run(cursor c, int with_cfa, uint64_t pc, value *out)
{
    value stack[VALUES];
    size_t count = 0;
    if (with_cfa) {
        stack[count++] = (value){VALUE_CFA, 0, 0};
    }
    while (c.at < c.end) {
        uint8_t op = byte_get(&c);
        int result;
        switch (op) {
        case OP_NOP:
            result = 0;
            break;
        case OP_DEREF:
            result = count >= 1 ? deref(&stack[count - 1]) : -1;
            break;
        case OP_PLUS_UCONST: {
            uint64_t n = uleb_get(&c);
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

/* --- rows -------------------------------------------------------------------------------------------------------------- */

/* A column of the table. */
typedef struct place {
    enum {
        PLACE_NOT_SAID = 0,
        PLACE_SAME,
        PLACE_UNDEFINED,
        PLACE_AT,            /* saved at cfa + offset; the cfa itself: register + offset */
        PLACE_AT_EXPRESSION, /* saved at what `bytes` give; the cfa itself: what they give */
        PLACE_ELSEWHERE      /* where a rule cannot say */
    } how;
    uint32_t reg; /* of the cfa */
    int64_t offset;
    const uint8_t *bytes, *bytes_end;
} place;

typedef struct row {
    place cfa, bp, sp, ra;
} row;

typedef struct table {
    row now, initial; /* as the CIE leaves it */
    row remembered[DEPTH];
    unsigned depth;
    uint64_t location; /* where `now` begins to hold */
    uint64_t address;  /* the row for this one is looked for */
    uint64_t code_align;
    int64_t data_align;
    uint8_t encoding; /* of pointers */
} table;

static place *
column(row *r, uint64_t reg)
{
    return reg == REG_RBP ? &r->bp : reg == REG_RSP ? &r->sp : reg == REG_RA ? &r->ra : NULL;
}

static void
column_set(table *t, uint64_t reg, place new_place)
{
    place *p = column(&t->now, reg);
    if (p != NULL) {
        *p = new_place;
    }
}

static place
place_at(int64_t offset)
{
    return (place){.how = PLACE_AT, .offset = offset};
}

/* An offset in units of the CIE. */
static place
place_at_factored(const table *t, cursor *c, int64_t offset)
{
    c->bad |= __builtin_mul_overflow(offset, t->data_align, &offset);
    return place_at(offset);
}

static int64_t
unsigned_offset_get(cursor *c)
{
    uint64_t offset = uleb_get(c);
    c->bad |= offset > INT64_MAX;
    return (int64_t)offset;
}

static place
place_expression_get(cursor *c)
{
    uint64_t size = uleb_get(c);
    cursor part = part_get(c, size);
    return (place){.how = PLACE_AT_EXPRESSION, .bytes = part.at, .bytes_end = part.end};
}

static void
cfa_set_register(table *t, cursor *c, uint64_t reg)
{
    place *cfa = &t->now.cfa;
    if (cfa->how != PLACE_AT) { /* then the offset is undefined */
        c->bad = 1;
    }
    cfa->reg = reg <= UINT32_MAX ? (uint32_t)reg : UINT32_MAX;
}

static void
cfa_set_offset(table *t, cursor *c, int64_t offset)
{
    if (t->now.cfa.how != PLACE_AT) {
        c->bad = 1;
    }
    t->now.cfa.offset = offset;
}

/* Whether the next row begins behind the address; else it has begun. */
static int
advance(table *t, cursor *c, uint64_t delta)
{
    uint64_t to;
    if (__builtin_mul_overflow(delta, t->code_align, &delta)
        || __builtin_add_overflow(t->location, delta, &to)) {
        c->bad = 1;
        return 1;
    }
    if (to > t->address) {
        return 1;
    }
    t->location = to;
    return 0;
}

enum {
    CFA_ADVANCE_LOC = 0x40, /* with an operand in the lower 6 bits */
    CFA_OFFSET = 0x80,
    CFA_RESTORE = 0xc0,
    CFA_NOP = 0x00,
    CFA_SET_LOC = 0x01,
    CFA_ADVANCE_LOC1 = 0x02,
    CFA_ADVANCE_LOC2 = 0x03,
    CFA_ADVANCE_LOC4 = 0x04,
    CFA_OFFSET_EXTENDED = 0x05,
    CFA_RESTORE_EXTENDED = 0x06,
    CFA_UNDEFINED = 0x07,
    CFA_SAME_VALUE = 0x08,
    CFA_REGISTER = 0x09,
    CFA_REMEMBER_STATE = 0x0a,
    CFA_RESTORE_STATE = 0x0b,
    CFA_DEF_CFA = 0x0c,
    CFA_DEF_CFA_REGISTER = 0x0d,
    CFA_DEF_CFA_OFFSET = 0x0e,
    CFA_DEF_CFA_EXPRESSION = 0x0f,
    CFA_EXPRESSION = 0x10,
    CFA_OFFSET_EXTENDED_SF = 0x11,
    CFA_DEF_CFA_SF = 0x12,
    CFA_DEF_CFA_OFFSET_SF = 0x13,
    CFA_VAL_OFFSET = 0x14,
    CFA_VAL_OFFSET_SF = 0x15,
    CFA_VAL_EXPRESSION = 0x16,
    CFA_ADVANCE_LOC8 = 0x1d, /* of MIPS, which GNU as knows everywhere */
    CFA_GNU_ARGS_SIZE = 0x2e,
    CFA_GNU_NEGATIVE_OFFSET_EXTENDED = 0x2f
};

static void
restore(table *t, uint64_t reg)
{
    place *p = column(&t->now, reg);
    if (p != NULL) {
        *p = *column(&t->initial, reg);
    }
}

/* Instructions about the cfa. Whether it was one. */
static int
cfa_instruction(table *t, cursor *c, uint8_t op)
{
    switch (op) {
    case CFA_DEF_CFA:
    case CFA_DEF_CFA_SF: {
        t->now.cfa = place_at(0);
        cfa_set_register(t, c, uleb_get(c));
        t->now.cfa.offset = op == CFA_DEF_CFA ? unsigned_offset_get(c)
                                              : place_at_factored(t, c, sleb_get(c)).offset;
        return 1;
    }
    case CFA_DEF_CFA_REGISTER:
        cfa_set_register(t, c, uleb_get(c));
        return 1;
    case CFA_DEF_CFA_OFFSET:
        cfa_set_offset(t, c, unsigned_offset_get(c));
        return 1;
    case CFA_DEF_CFA_OFFSET_SF:
        cfa_set_offset(t, c, place_at_factored(t, c, sleb_get(c)).offset);
        return 1;
    case CFA_DEF_CFA_EXPRESSION:
        t->now.cfa = place_expression_get(c);
        return 1;
    default:
        return 0;
    }
}

/* Instructions about the other columns. Whether it was one. */
static int
column_instruction(table *t, cursor *c, uint8_t op)
{
    static const place undefined = {.how = PLACE_UNDEFINED};
    static const place same = {.how = PLACE_SAME};
    static const place elsewhere = {.how = PLACE_ELSEWHERE};
    if ((op & 0xc0) == CFA_OFFSET) {
        column_set(t, op & 0x3f, place_at_factored(t, c, unsigned_offset_get(c)));
        return 1;
    }
    if ((op & 0xc0) == CFA_RESTORE) {
        restore(t, op & 0x3f);
        return 1;
    }
    if (op < CFA_OFFSET_EXTENDED || (op > CFA_VAL_EXPRESSION && op < CFA_GNU_ARGS_SIZE)) {
        return 0;
    }
    if (op == CFA_GNU_ARGS_SIZE) { /* for who jumps into a handler */
        uleb_get(c);
        return 1;
    }
    uint64_t reg = uleb_get(c);
    switch (op) {
    case CFA_OFFSET_EXTENDED:
        column_set(t, reg, place_at_factored(t, c, unsigned_offset_get(c)));
        return 1;
    case CFA_OFFSET_EXTENDED_SF:
        column_set(t, reg, place_at_factored(t, c, sleb_get(c)));
        return 1;
    case CFA_GNU_NEGATIVE_OFFSET_EXTENDED: /* not below -INT64_MAX */
        column_set(t, reg, place_at_factored(t, c, -unsigned_offset_get(c)));
        return 1;
    case CFA_RESTORE_EXTENDED:
        restore(t, reg);
        return 1;
    case CFA_UNDEFINED:
        column_set(t, reg, undefined);
        return 1;
    case CFA_SAME_VALUE:
        column_set(t, reg, same);
        return 1;
    case CFA_REGISTER:
        uleb_get(c);
        column_set(t, reg, elsewhere);
        return 1;
    case CFA_EXPRESSION:
        column_set(t, reg, place_expression_get(c));
        return 1;
    case CFA_VAL_OFFSET:
    case CFA_VAL_OFFSET_SF: /* as long as the other's, and no more is asked */
        uleb_get(c);
        column_set(t, reg, elsewhere);
        return 1;
    case CFA_VAL_EXPRESSION:
        place_expression_get(c);
        column_set(t, reg, elsewhere);
        return 1;
    default:
        c->bad = 1;
        return 1;
    }
}

/* Instructions about rows. -1: it is none of them; 1: the row for the address is complete. */
static int
row_instruction(table *t, cursor *c, uint8_t op)
{
    if ((op & 0xc0) == CFA_ADVANCE_LOC) {
        return advance(t, c, op & 0x3f);
    }
    switch (op) {
    case CFA_NOP:
        return 0;
    case CFA_SET_LOC: {
        uint64_t to = pointer_get(c, t->encoding, 0);
        c->bad |= to < t->location;
        return advance(t, c, (to - t->location) / t->code_align);
    }
    case CFA_ADVANCE_LOC1:
        return advance(t, c, byte_get(c));
    case CFA_ADVANCE_LOC2:
        return advance(t, c, fixed_get(c, 2));
    case CFA_ADVANCE_LOC4:
        return advance(t, c, fixed_get(c, 4));
    case CFA_ADVANCE_LOC8:
        return advance(t, c, fixed_get(c, 8));
    case CFA_REMEMBER_STATE:
        if (t->depth == DEPTH) {
            c->bad = 1;
        } else {
            t->remembered[t->depth++] = t->now;
        }
        return 0;
    case CFA_RESTORE_STATE:
        if (t->depth == 0) {
            c->bad = 1;
        } else {
            t->now = t->remembered[--t->depth];
        }
        return 0;
    default:
        return -1;
    }
}

/* Runs instructions up to the row for the address. 0, or -1: they are not as they should be. */
static int
instructions_run(table *t, cursor c)
{
    while (c.at < c.end && !c.bad) {
        uint8_t op = byte_get(&c);
        int done = row_instruction(t, &c, op);
        if (done == 1) {
            break;
        }
        if (done < 0 && !cfa_instruction(t, &c, op) && !column_instruction(t, &c, op)) {
            return -1;
        }
    }
    return c.bad ? -1 : 0;
}

/* --- from a row to a rule ---------------------------------------------------------------------------------------------- */

/* Whether the offset fits into a rule. */
static int
offset_put(uint64_t n, int32_t *out)
{
    *out = (int32_t)(int64_t)n;
    return (uint64_t)(int64_t)*out == n;
}

/* Where a register was saved, or what the cfa is. 0, or -1: not known. */
static int
place_value(const place *p, int is_cfa, uint64_t pc, value *out)
{
    if (p->how == PLACE_AT) {
        if (is_cfa) {
            return register_value(p->reg, p->offset, pc, out);
        }
        *out = (value){VALUE_CFA, (uint64_t)p->offset, 0};
        return 0;
    }
    if (p->how != PLACE_AT_EXPRESSION) {
        return -1;
    }
    return expression_run((cursor){p->bytes, p->bytes_end, 0}, !is_cfa, pc, out);
}

static int
rule_set_cfa(pmt__unwind_rule *rule, const value *cfa)
{
    switch (cfa->kind) {
    case VALUE_SP:
    case VALUE_BP:
        rule->cfa = cfa->kind == VALUE_SP ? PMT_UNWIND_SP : PMT_UNWIND_BP;
        return offset_put(cfa->n, &rule->cfa_offset);
    case VALUE_AT_SP:
    case VALUE_AT_BP:
        rule->cfa = cfa->kind == VALUE_AT_SP ? PMT_UNWIND_DEREF_SP : PMT_UNWIND_DEREF_BP;
        return offset_put(cfa->inner, &rule->cfa_offset) && offset_put(cfa->n, &rule->cfa_add);
    default:
        return 0;
    }
}

/* After the cfa: a signal's frame has all registers, the cfa among them, at known distances from sp. */
static int
rule_set_return_address(pmt__unwind_rule *rule, const value *cfa, const value *at)
{
    if (at->kind == VALUE_CFA) {
        return offset_put(at->n, &rule->ra_offset);
    }
    if (at->kind == cfa->kind && (cfa->kind == VALUE_SP || cfa->kind == VALUE_BP)) {
        return offset_put(at->n - cfa->n, &rule->ra_offset);
    }
    if (at->kind == VALUE_SP && rule->cfa == PMT_UNWIND_DEREF_SP) {
        rule->cfa = PMT_UNWIND_SIGNAL;
        return offset_put(at->n, &rule->ra_offset);
    }
    return 0;
}

static int
rule_set_bp(pmt__unwind_rule *rule, const place *bp, uint64_t pc)
{
    value at;
    if (bp->how <= PLACE_UNDEFINED) { /* undefined: nobody will ask for it */
        rule->bp = PMT_UNWIND_BP_SAME;
        return 1;
    }
    if (place_value(bp, 0, pc, &at) < 0) {
        return 0;
    }
    switch (at.kind) {
    case VALUE_CFA:
        rule->bp = PMT_UNWIND_BP_AT_CFA;
        break;
    case VALUE_BP:
        rule->bp = PMT_UNWIND_BP_AT_BP;
        break;
    case VALUE_SP:
        rule->bp = PMT_UNWIND_BP_AT_SP;
        break;
    default:
        return 0;
    }
    return offset_put(at.n, &rule->bp_offset);
}

/* The caller's rsp is the cfa unless it is said to be another; a signal's frame says that it is where the cfa is read from. */
static int
stack_pointer_is_cfa(const row *r, const value *cfa, uint64_t pc)
{
    value at;
    return r->sp.how <= PLACE_UNDEFINED
           || (place_value(&r->sp, 0, pc, &at) == 0 && at.kind == VALUE_SP
               && cfa->kind == VALUE_AT_SP && cfa->inner == at.n && cfa->n == 0);
}

/* Whether the rule could be made. */
static int
rule_set(pmt__unwind_rule *rule, const row *r, uint64_t pc)
{
    value cfa, ra_at;
    if (r->ra.how == PLACE_UNDEFINED) {
        rule->cfa = PMT_UNWIND_END;
        return 1;
    }
    return place_value(&r->cfa, 1, pc, &cfa) == 0 && place_value(&r->ra, 0, pc, &ra_at) == 0
           && rule_set_cfa(rule, &cfa) && rule_set_return_address(rule, &cfa, &ra_at)
           && stack_pointer_is_cfa(r, &cfa, pc) && rule_set_bp(rule, &r->bp, pc);
}

/* --- entries ----------------------------------------------------------------------------------------------------------- */

/* The contents of the entry at `at`, beginning with its id. */
static cursor
entry_open(pmt__cfi_range range, const uint8_t *at)
{
    cursor c = {at, range.end, at < range.start || at > range.end};
    if (c.bad) {
        c.at = c.end;
    }
    uint64_t size = fixed_get(&c, 4);
    if (size == 0xffffffff) {
        size = fixed_get(&c, 8);
    }
    if (size == 0) { /* the end of the section */
        c.bad = 1;
    }
    int bad = c.bad;
    cursor entry = part_get(&c, size);
    entry.bad |= bad;
    return entry;
}

/* Of a CIE what its FDEs need. */
typedef struct cie {
    cursor instructions;
    uint64_t code_align;
    int64_t data_align;
    uint8_t encoding;      /* of its FDEs' pointers */
    uint8_t signal;        /* it is for signals' frames */
    uint8_t has_data_size; /* its FDEs have data of their own, with their size before */
} cie;

/* The letters of the augmentation after 'z', with their data. */
static void
augmentation_read(cie *self, cursor *c, const uint8_t *letters, cursor data)
{
    for (; *letters != 0 && !c->bad; letters++) {
        switch (*letters) {
        case 'R':
            self->encoding = byte_get(&data);
            break;
        case 'P': {
            uint8_t encoding = byte_get(&data);
            if (encoding != PE_OMIT) {
                pointer_get(&data, encoding & (PE_FORMAT | PE_ALIGNED), 1);
            }
            break;
        }
        case 'L':
            byte_get(&data);
            break;
        case 'S':
            self->signal = 1;
            break;
        case 'B': /* of AArch64 */
            break;
        default: /* what follows is not to be found */
            c->bad = 1;
        }
        c->bad |= data.bad;
    }
}

/* 0, or -1: it is none that we understand. */
static int
cie_read(cie *self, pmt__cfi_range range, const uint8_t *at)
{
    *self = (cie){.encoding = PE_ABSPTR};
    cursor c = entry_open(range, at);
    if (fixed_get(&c, 4) != 0) { /* an FDE */
        return -1;
    }
    uint8_t version = byte_get(&c);
    const uint8_t *letters = c.at;
    while (byte_get(&c) != 0) {
    }
    if (c.bad || (version != 1 && version != 3 && version != 4)) {
        return -1;
    }
    if (version == 4
        && (byte_get(&c) != 8 || byte_get(&c) != 0)) { /* sizes of addresses, segments */
        return -1;
    }
    self->code_align = uleb_get(&c);
    self->data_align = sleb_get(&c);
    uint64_t return_column = version == 1 ? byte_get(&c) : uleb_get(&c);
    if (c.bad || self->code_align == 0 || return_column != REG_RA) {
        return -1;
    }
    if (*letters == 'z') {
        uint64_t size = uleb_get(&c);
        self->has_data_size = 1;
        cursor data = part_get(&c, size);
        augmentation_read(self, &c, letters + 1, data);
    } else if (*letters != 0) {
        return -1;
    }
    self->instructions = c;
    return c.bad ? -1 : 0;
}

void
pmt__cfi_rule(pmt__cfi_range range, const uint8_t *fde, uint64_t pc, int is_return,
              pmt__unwind_rule *out)
{
    *out = (pmt__unwind_rule){.cfa = PMT_UNWIND_NONE};
    cie from;
    cursor c = entry_open(range, fde);
    const uint8_t *id_at = c.at;
    uint64_t id = fixed_get(&c, 4); /* how far before itself the CIE is */
    if (c.bad || id == 0 || id > (uint64_t)(id_at - range.start)
        || cie_read(&from, range, id_at - id) < 0 || (from.encoding & PE_INDIRECT)) {
        return;
    }
    table t; /* not an initializer: what is remembered need not be cleared */
    t.now = (row){.cfa = {.how = PLACE_NOT_SAID}};
    t.depth = 0;
    t.address = pc - (is_return != 0);
    t.code_align = from.code_align;
    t.data_align = from.data_align;
    t.encoding = from.encoding;
    uint64_t start = pointer_get(&c, from.encoding, 0);
    uint64_t size = format_get(&c, from.encoding & PE_FORMAT);
    if (from.has_data_size) {
        part_get(&c, uleb_get(&c));
    }
    if (c.bad || t.address < start || t.address - start >= size) {
        return;
    }
    t.location = t.address; /* all that the CIE says holds, and it advances nowhere */
    if (instructions_run(&t, from.instructions) < 0) {
        return;
    }
    t.initial = t.now;
    t.location = start;
    pmt__unwind_rule rule = {.signal = from.signal};
    if (instructions_run(&t, c) == 0 && rule_set(&rule, &t.now, pc)) {
        *out = rule;
    }
}

/* --- the search table -------------------------------------------------------------------------------------------------- */

/* The size of a pointer in the table, 0: not one that can be searched. */
static size_t
fixed_size(uint8_t encoding)
{
    uint8_t relative = encoding & (PE_RELATIVE | PE_INDIRECT);
    if (relative != 0 && relative != PE_PCREL && relative != PE_DATAREL) {
        return 0;
    }
    switch (encoding & PE_FORMAT) {
    case PE_UDATA2:
    case PE_SDATA2:
        return 2;
    case PE_UDATA4:
    case PE_SDATA4:
        return 4;
    case PE_ABSPTR:
    case PE_SIGNED:
    case PE_UDATA8:
    case PE_SDATA8:
        return 8;
    default:
        return 0;
    }
}

uint64_t
pmt__cfi_search(pmt__cfi_range range, const uint8_t *header, uint64_t address)
{
    cursor c = {header, range.end, 0};
    if (header < range.start || header > range.end || byte_get(&c) != 1) {
        return 0;
    }
    uint8_t frames_encoding = byte_get(&c), count_encoding = byte_get(&c), encoding = byte_get(&c);
    if (count_encoding == PE_OMIT || encoding == PE_OMIT) {
        return 0;
    }
    uint64_t data = (uintptr_t)header;
    if (frames_encoding != PE_OMIT) {
        pointer_get(&c, frames_encoding & (uint8_t)~PE_INDIRECT, data);
    }
    uint64_t count = count_encoding & PE_INDIRECT ? 0 : pointer_get(&c, count_encoding, data);
    size_t size = fixed_size(encoding);
    if (c.bad || size == 0 || count > (uint64_t)(c.end - c.at) / (2 * size)) {
        return 0;
    }
    uint64_t low = 0, high = count; /* those before `low` begin at or before the address */
    const uint8_t *entries = c.at;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        c.at = entries + middle * 2 * size;
        if (pointer_get(&c, encoding, data) <= address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == 0) {
        return 0;
    }
    c.at = entries + (low - 1) * 2 * size + size;
    uint64_t fde = pointer_get(&c, encoding, data);
    return c.bad ? 0 : fde;
}
