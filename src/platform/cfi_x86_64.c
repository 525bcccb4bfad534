/* The reader of function descriptions for x86-64.

   Of the table that a description stands for, one row per range of instructions and one column per register, a row of four columns
   is kept: the cfa, rbp, rsp and the return address. What happens to the other registers is passed over. */
#include "platform/cfi.h"

#include <stddef.h>

#include "platform/cfi_bytes.h"
#include "platform/cfi_expression.h"

enum {
    DEPTH = 8 /* of remembered rows; compilers need 1 */
};

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
    return reg == PMT_CFI_REG_RBP   ? &r->bp
           : reg == PMT_CFI_REG_RSP ? &r->sp
           : reg == PMT_CFI_REG_RA  ? &r->ra
                                    : NULL;
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
place_at_factored(const table *t, pmt__cfi_cursor *c, int64_t offset)
{
    c->bad |= __builtin_mul_overflow(offset, t->data_align, &offset);
    return place_at(offset);
}

static int64_t
unsigned_offset_get(pmt__cfi_cursor *c)
{
    uint64_t offset = pmt__cfi_uleb_get(c);
    c->bad |= offset > INT64_MAX;
    return (int64_t)offset;
}

static place
place_expression_get(pmt__cfi_cursor *c)
{
    uint64_t size = pmt__cfi_uleb_get(c);
    pmt__cfi_cursor part = pmt__cfi_part_get(c, size);
    return (place){.how = PLACE_AT_EXPRESSION, .bytes = part.at, .bytes_end = part.end};
}

static void
cfa_set_register(table *t, pmt__cfi_cursor *c, uint64_t reg)
{
    place *cfa = &t->now.cfa;
    if (cfa->how != PLACE_AT) { /* then the offset is undefined */
        c->bad = 1;
    }
    cfa->reg = reg <= UINT32_MAX ? (uint32_t)reg : UINT32_MAX;
}

static void
cfa_set_offset(table *t, pmt__cfi_cursor *c, int64_t offset)
{
    if (t->now.cfa.how != PLACE_AT) {
        c->bad = 1;
    }
    t->now.cfa.offset = offset;
}

/* Whether the next row begins behind the address; else it has begun. */
static int
advance(table *t, pmt__cfi_cursor *c, uint64_t delta)
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
cfa_instruction(table *t, pmt__cfi_cursor *c, uint8_t op)
{
    switch (op) {
    case CFA_DEF_CFA:
    case CFA_DEF_CFA_SF: {
        t->now.cfa = place_at(0);
        cfa_set_register(t, c, pmt__cfi_uleb_get(c));
        t->now.cfa.offset = op == CFA_DEF_CFA
                                ? unsigned_offset_get(c)
                                : place_at_factored(t, c, pmt__cfi_sleb_get(c)).offset;
        return 1;
    }
    case CFA_DEF_CFA_REGISTER:
        cfa_set_register(t, c, pmt__cfi_uleb_get(c));
        return 1;
    case CFA_DEF_CFA_OFFSET:
        cfa_set_offset(t, c, unsigned_offset_get(c));
        return 1;
    case CFA_DEF_CFA_OFFSET_SF:
        cfa_set_offset(t, c, place_at_factored(t, c, pmt__cfi_sleb_get(c)).offset);
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
column_instruction(table *t, pmt__cfi_cursor *c, uint8_t op)
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
        pmt__cfi_uleb_get(c);
        return 1;
    }
    uint64_t reg = pmt__cfi_uleb_get(c);
    switch (op) {
    case CFA_OFFSET_EXTENDED:
        column_set(t, reg, place_at_factored(t, c, unsigned_offset_get(c)));
        return 1;
    case CFA_OFFSET_EXTENDED_SF:
        column_set(t, reg, place_at_factored(t, c, pmt__cfi_sleb_get(c)));
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
        pmt__cfi_uleb_get(c);
        column_set(t, reg, elsewhere);
        return 1;
    case CFA_EXPRESSION:
        column_set(t, reg, place_expression_get(c));
        return 1;
    case CFA_VAL_OFFSET:
    case CFA_VAL_OFFSET_SF: /* as long as the other's, and no more is asked */
        pmt__cfi_uleb_get(c);
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
row_instruction(table *t, pmt__cfi_cursor *c, uint8_t op)
{
    if ((op & 0xc0) == CFA_ADVANCE_LOC) {
        return advance(t, c, op & 0x3f);
    }
    switch (op) {
    case CFA_NOP:
        return 0;
    case CFA_SET_LOC: {
        uint64_t to = pmt__cfi_pointer_get(c, t->encoding, 0);
        c->bad |= to < t->location;
        return advance(t, c, (to - t->location) / t->code_align);
    }
    case CFA_ADVANCE_LOC1:
        return advance(t, c, pmt__cfi_byte_get(c));
    case CFA_ADVANCE_LOC2:
        return advance(t, c, pmt__cfi_fixed_get(c, 2));
    case CFA_ADVANCE_LOC4:
        return advance(t, c, pmt__cfi_fixed_get(c, 4));
    case CFA_ADVANCE_LOC8:
        return advance(t, c, pmt__cfi_fixed_get(c, 8));
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
instructions_run(table *t, pmt__cfi_cursor c)
{
    while (c.at < c.end && !c.bad) {
        uint8_t op = pmt__cfi_byte_get(&c);
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
place_value(const place *p, int is_cfa, uint64_t pc, pmt__cfi_value *out)
{
    if (p->how == PLACE_AT) {
        if (is_cfa) {
            return pmt__cfi_register_value(p->reg, p->offset, pc, out);
        }
        *out = (pmt__cfi_value){PMT_CFI_VALUE_CFA, (uint64_t)p->offset, 0};
        return 0;
    }
    if (p->how != PLACE_AT_EXPRESSION) {
        return -1;
    }
    return pmt__cfi_expression_run((pmt__cfi_cursor){p->bytes, p->bytes_end, 0}, !is_cfa, pc, out);
}

static int
rule_set_cfa(pmt__unwind_rule *rule, const pmt__cfi_value *cfa)
{
    switch (cfa->kind) {
    case PMT_CFI_VALUE_SP:
    case PMT_CFI_VALUE_BP:
        rule->cfa = cfa->kind == PMT_CFI_VALUE_SP ? PMT_UNWIND_SP : PMT_UNWIND_BP;
        return offset_put(cfa->n, &rule->cfa_offset);
    case PMT_CFI_VALUE_AT_SP:
    case PMT_CFI_VALUE_AT_BP:
        rule->cfa = cfa->kind == PMT_CFI_VALUE_AT_SP ? PMT_UNWIND_DEREF_SP : PMT_UNWIND_DEREF_BP;
        return offset_put(cfa->inner, &rule->cfa_offset) && offset_put(cfa->n, &rule->cfa_add);
    default:
        return 0;
    }
}

/* After the cfa: a signal's frame has all registers, the cfa among them, at known distances from sp. */
static int
rule_set_return_address(pmt__unwind_rule *rule, const pmt__cfi_value *cfa, const pmt__cfi_value *at)
{
    if (at->kind == PMT_CFI_VALUE_CFA) {
        return offset_put(at->n, &rule->ra_offset);
    }
    if (at->kind == cfa->kind && (cfa->kind == PMT_CFI_VALUE_SP || cfa->kind == PMT_CFI_VALUE_BP)) {
        return offset_put(at->n - cfa->n, &rule->ra_offset);
    }
    if (at->kind == PMT_CFI_VALUE_SP && rule->cfa == PMT_UNWIND_DEREF_SP) {
        rule->cfa = PMT_UNWIND_SIGNAL;
        return offset_put(at->n, &rule->ra_offset);
    }
    return 0;
}

static int
rule_set_bp(pmt__unwind_rule *rule, const place *bp, uint64_t pc)
{
    pmt__cfi_value at;
    if (bp->how <= PLACE_UNDEFINED) { /* undefined: nobody will ask for it */
        rule->bp = PMT_UNWIND_BP_SAME;
        return 1;
    }
    if (place_value(bp, 0, pc, &at) < 0) {
        return 0;
    }
    switch (at.kind) {
    case PMT_CFI_VALUE_CFA:
        rule->bp = PMT_UNWIND_BP_AT_CFA;
        break;
    case PMT_CFI_VALUE_BP:
        rule->bp = PMT_UNWIND_BP_AT_BP;
        break;
    case PMT_CFI_VALUE_SP:
        rule->bp = PMT_UNWIND_BP_AT_SP;
        break;
    default:
        return 0;
    }
    return offset_put(at.n, &rule->bp_offset);
}

/* The caller's rsp is the cfa unless it is said to be another; a signal's frame says that it is where the cfa is read from. */
static int
stack_pointer_is_cfa(const row *r, const pmt__cfi_value *cfa, uint64_t pc)
{
    pmt__cfi_value at;
    return r->sp.how <= PLACE_UNDEFINED
           || (place_value(&r->sp, 0, pc, &at) == 0 && at.kind == PMT_CFI_VALUE_SP
               && cfa->kind == PMT_CFI_VALUE_AT_SP && cfa->inner == at.n && cfa->n == 0);
}

/* Whether the rule could be made. */
static int
rule_set(pmt__unwind_rule *rule, const row *r, uint64_t pc)
{
    pmt__cfi_value cfa, ra_at;
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
static pmt__cfi_cursor
entry_open(pmt__cfi_range range, const uint8_t *at)
{
    pmt__cfi_cursor c = {at, range.end, at < range.start || at > range.end};
    if (c.bad) {
        c.at = c.end;
    }
    uint64_t size = pmt__cfi_fixed_get(&c, 4);
    if (size == 0xffffffff) {
        size = pmt__cfi_fixed_get(&c, 8);
    }
    if (size == 0) { /* the end of the section */
        c.bad = 1;
    }
    int bad = c.bad;
    pmt__cfi_cursor entry = pmt__cfi_part_get(&c, size);
    entry.bad |= bad;
    return entry;
}

/* Of a CIE what its FDEs need. */
typedef struct cie {
    pmt__cfi_cursor instructions;
    uint64_t code_align;
    int64_t data_align;
    uint8_t encoding;      /* of its FDEs' pointers */
    uint8_t signal;        /* it is for signals' frames */
    uint8_t has_data_size; /* its FDEs have data of their own, with their size before */
} cie;

/* The letters of the augmentation after 'z', with their data. */
static void
augmentation_read(cie *self, pmt__cfi_cursor *c, const uint8_t *letters, pmt__cfi_cursor data)
{
    for (; *letters != 0 && !c->bad; letters++) {
        switch (*letters) {
        case 'R':
            self->encoding = pmt__cfi_byte_get(&data);
            break;
        case 'P': {
            uint8_t encoding = pmt__cfi_byte_get(&data);
            if (encoding != PMT_CFI_PE_OMIT) {
                pmt__cfi_pointer_get(&data, encoding & (PMT_CFI_PE_FORMAT | PMT_CFI_PE_ALIGNED), 1);
            }
            break;
        }
        case 'L':
            pmt__cfi_byte_get(&data);
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
    *self = (cie){.encoding = PMT_CFI_PE_ABSPTR};
    pmt__cfi_cursor c = entry_open(range, at);
    if (pmt__cfi_fixed_get(&c, 4) != 0) { /* an FDE */
        return -1;
    }
    uint8_t version = pmt__cfi_byte_get(&c);
    const uint8_t *letters = c.at;
    while (pmt__cfi_byte_get(&c) != 0) {
    }
    if (c.bad || (version != 1 && version != 3 && version != 4)) {
        return -1;
    }
    if (version == 4
        && (pmt__cfi_byte_get(&c) != 8
            || pmt__cfi_byte_get(&c) != 0)) { /* sizes of addresses, segments */
        return -1;
    }
    self->code_align = pmt__cfi_uleb_get(&c);
    self->data_align = pmt__cfi_sleb_get(&c);
    uint64_t return_column = version == 1 ? pmt__cfi_byte_get(&c) : pmt__cfi_uleb_get(&c);
    if (c.bad || self->code_align == 0 || return_column != PMT_CFI_REG_RA) {
        return -1;
    }
    if (*letters == 'z') {
        uint64_t size = pmt__cfi_uleb_get(&c);
        self->has_data_size = 1;
        pmt__cfi_cursor data = pmt__cfi_part_get(&c, size);
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
    pmt__cfi_cursor c = entry_open(range, fde);
    const uint8_t *id_at = c.at;
    uint64_t id = pmt__cfi_fixed_get(&c, 4); /* how far before itself the CIE is */
    if (c.bad || id == 0 || id > (uint64_t)(id_at - range.start)
        || cie_read(&from, range, id_at - id) < 0 || (from.encoding & PMT_CFI_PE_INDIRECT)) {
        return;
    }
    table t; /* not an initializer: what is remembered need not be cleared */
    t.now = (row){.cfa = {.how = PLACE_NOT_SAID}};
    t.depth = 0;
    t.address = pc - (is_return != 0);
    t.code_align = from.code_align;
    t.data_align = from.data_align;
    t.encoding = from.encoding;
    uint64_t start = pmt__cfi_pointer_get(&c, from.encoding, 0);
    uint64_t size = pmt__cfi_format_get(&c, from.encoding & PMT_CFI_PE_FORMAT);
    if (from.has_data_size) {
        pmt__cfi_part_get(&c, pmt__cfi_uleb_get(&c));
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
