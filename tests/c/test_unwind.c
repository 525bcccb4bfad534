/* Native stacks: rules from hand-made bytes, broken ones among them; walks against glibc's backtrace(), which reads the same tables
   with another reader; every instruction of whole libraries. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <alloca.h>
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "platform/cfi.h"
#include "platform/objects.h"
#include "platform/unwind.h"
#include "sanitized.h"

static uint64_t random_state = 0x9e3779b97f4a7c15u;

static unsigned
random_below(unsigned bound)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (unsigned)((random_state >> 32) % bound);
}

/* --- hand-made bytes --------------------------------------------------------------------------------------------------------- */

#define PAGE 4096
#define START 0x401000u /* of the function that they describe */
#define SIZE 0x1000u

/* A page between two that cannot be read. */
static uint8_t *page;

static void
page_make(void)
{
    uint8_t *pages =
        mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(pages, MAP_FAILED);
    assert_int_equal(mprotect(pages, PAGE, PROT_NONE), 0);
    assert_int_equal(mprotect(pages + 2 * PAGE, PAGE, PROT_NONE), 0);
    page = pages + PAGE;
}

typedef struct {
    const char *bytes;
    size_t size;
} text;
#define TEXT(literal) {literal, sizeof literal - 1}

static size_t
put(uint8_t *out, size_t at, const void *bytes, size_t size)
{
    memcpy(out + at, bytes, size);
    return at + size;
}

/* CIE and FDE one behind the other. Returns their size; *fde is where the second begins. */
static size_t
entries_build(uint8_t *out, text cie, text fde_head, text instructions, size_t *fde)
{
    uint32_t word = (uint32_t)(4 + cie.size);
    size_t at = put(out, 0, &word, 4);
    word = 0;
    at = put(out, at, &word, 4);
    at = put(out, at, cie.bytes, cie.size);
    *fde = at;
    word = (uint32_t)(4 + fde_head.size + instructions.size);
    at = put(out, at, &word, 4);
    word = (uint32_t)at;
    at = put(out, at, &word, 4);
    at = put(out, at, fde_head.bytes, fde_head.size);
    return put(out, at, instructions.bytes, instructions.size);
}

/* cfa = rsp + 8, the return address at cfa - 8: as at the entry of a function. */
#define ENTRY "\x0c\x07\x08\x90\x01"
#define ALIGNS "\x01\x78\x10" /* 1, -8, column 16 */
#define CIE_PLAIN "\x01zR\0" ALIGNS "\x01\x00" ENTRY
#define CIE_SIGNAL "\x01zRS\0" ALIGNS "\x01\x00" ENTRY
#define FDE_PLACE "\x00\x10\x40\0\0\0\0\0\x00\x10\0\0\0\0\0\0"
#define FDE_PLAIN FDE_PLACE "\x00"

#define NONE {.cfa = PMT_UNWIND_NONE}
#define END {.cfa = PMT_UNWIND_END}
#define RULE(cfa_, offset_, ...) \
    {.cfa = PMT_UNWIND_##cfa_, .cfa_offset = offset_, .ra_offset = -8, __VA_ARGS__}
#define BP(where_, offset_) .bp = PMT_UNWIND_BP_AT_##where_, .bp_offset = offset_

typedef struct {
    const char *name;
    text instructions;
    uint32_t pc; /* from START */
    int is_return;
    pmt__unwind_rule rule;
    text cie, fde_head;
} made;
#define MADE_BY(cie_, fde_head_, name_, instructions_, pc_, is_return_, ...) \
    {.name = name_,                                                          \
     .instructions = TEXT(instructions_),                                    \
     .pc = pc_,                                                              \
     .is_return = is_return_,                                                \
     .rule = __VA_ARGS__,                                                    \
     .cie = TEXT(cie_),                                                      \
     .fde_head = TEXT(fde_head_)}
#define MADE(...) MADE_BY(CIE_PLAIN, FDE_PLAIN, __VA_ARGS__)

/* What is pushed by `push rbp; mov rbp, rsp` and undone in the end. */
#define USUAL "\x41\x0e\x10\x86\x02\x43\x0d\x06\x60\x0a\x0c\x07\x08\xc6\x41\x0b"
#define LONG "\xff\xff\xff\xff\xff\xff\xff\xff"
#define PLT "\x0f\x0b\x77\x08\x80\x00\x3f\x1a\x3b\x2a\x33\x24\x22"

static const made made_up[] = {
    MADE("nothing said", "", 0, 0, RULE(SP, 8)),
    MADE("at the end", "", SIZE - 1, 0, RULE(SP, 8)),
    MADE("behind it", "", SIZE, 0, NONE),
    MADE("a call that is the last instruction", "", SIZE, 1, RULE(SP, 8)),
    MADE("before it", "", 0, 1, NONE),
    MADE("usual 0", USUAL, 0, 0, RULE(SP, 8)),
    MADE("usual 1", USUAL, 1, 0, RULE(SP, 16, BP(CFA, -16))),
    MADE("usual 1, return", USUAL, 1, 1, RULE(SP, 8)),
    MADE("usual 4", USUAL, 4, 0, RULE(BP, 16, BP(CFA, -16))),
    MADE("usual 35", USUAL, 35, 0, RULE(BP, 16, BP(CFA, -16))),
    MADE("usual 36", USUAL, 36, 0, RULE(SP, 8)),
    MADE("usual 37", USUAL, 37, 0, RULE(BP, 16, BP(CFA, -16))),

    MADE("advance_loc1 before", "\x02\xc8\x0e\x20", 199, 0, RULE(SP, 8)),
    MADE("advance_loc1", "\x02\xc8\x0e\x20", 200, 0, RULE(SP, 32)),
    MADE("advance_loc2 before", "\x03\x2c\x01\x0e\x20", 299, 0, RULE(SP, 8)),
    MADE("advance_loc2", "\x03\x2c\x01\x0e\x20", 300, 0, RULE(SP, 32)),
    MADE("advance_loc4", "\x04\x2c\x01\0\0\x0e\x20", 300, 0, RULE(SP, 32)),
    MADE("advance_loc4 far", "\x04\x2c\x01\0\xff\x0e\x20", 300, 0, RULE(SP, 8)),
    MADE("advance_loc8", "\x1d\x2c\x01\0\0\0\0\0\0\x0e\x20", 300, 0, RULE(SP, 32)),
    MADE("advance_loc8 round the end", "\x41\x1d" LONG "\x0e\x20", 300, 0, NONE),
    MADE("set_loc before", "\x01\x10\x10\x40\0\0\0\0\0\x0e\x20", 15, 0, RULE(SP, 8)),
    MADE("set_loc", "\x01\x10\x10\x40\0\0\0\0\0\x0e\x20", 16, 0, RULE(SP, 32)),
    MADE("set_loc backwards", "\x01\x10\x00\x40\0\0\0\0\0\x0e\x20", 16, 0, NONE),

    MADE("def_cfa", "\x0c\x06\x10", 0, 0, RULE(BP, 16)),
    MADE("def_cfa_sf", "\x12\x07\x7e", 0, 0, RULE(SP, 16)),
    MADE("def_cfa_offset_sf", "\x13\x7d", 0, 0, RULE(SP, 24)),
    MADE("def_cfa_register", "\x0d\x06", 0, 0, RULE(BP, 8)),
    MADE("def_cfa r10", "\x0c\x0a\x00", 0, 0, NONE),
    MADE("def_cfa of a register without a name", "\x0c\x87\x80\x80\x80\x10\x00", 0, 0, NONE),
    MADE("def_cfa_offset large", "\x0e\xff\xff\xff\xff\x07", 0, 0, RULE(SP, INT32_MAX)),
    MADE("def_cfa_offset too large", "\x0e\x80\x80\x80\x80\x08", 0, 0, NONE),
    MADE("def_cfa_offset of 64 bits", "\x0e\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 0, 0, NONE),
    MADE("more than 64 bits", "\x0e\x88\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", 0, 0, NONE),
    MADE("more bits than 64", "\x0e\x88\x80\x80\x80\x80\x80\x80\x80\x80\x02", 0, 0, NONE),
    MADE("long for 8", "\x0e\x88\x80\x80\x80\x80\x80\x80\x80\x80\x00", 0, 0, RULE(SP, 8)),
    MADE("offset times -8 overflows", "\x05\x06\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 0, 0, NONE),

    MADE("offset", "\x86\x03", 0, 0, RULE(SP, 8, BP(CFA, -24))),
    MADE("offset of others", "\x83\x03\x8c\x04\xc3", 0, 0, RULE(SP, 8)),
    MADE("offset_extended", "\x05\x06\x03", 0, 0, RULE(SP, 8, BP(CFA, -24))),
    MADE("offset_extended_sf", "\x11\x06\x7d", 0, 0, RULE(SP, 8, BP(CFA, 24))),
    MADE("GNU_negative_offset_extended", "\x2f\x06\x03", 0, 0, RULE(SP, 8, BP(CFA, 24))),
    MADE("restore", "\x86\x03\xc6", 0, 0, RULE(SP, 8)),
    MADE("restore_extended", "\x86\x03\x06\x06", 0, 0, RULE(SP, 8)),
    MADE("restore the return address", "\x90\x03\x06\x10", 0, 0, RULE(SP, 8)),
    MADE("same_value", "\x86\x03\x08\x06", 0, 0, RULE(SP, 8)),
    MADE("undefined rbp", "\x86\x03\x07\x06", 0, 0, RULE(SP, 8)),
    MADE("undefined rip", "\x07\x10", 0, 0, END),
    MADE("undefined rip, unknown cfa", "\x07\x10\x0c\x0a\x00", 0, 0, END),
    MADE("same_value rip", "\x08\x10", 0, 0, NONE),
    MADE("register rbp", "\x09\x06\x03", 0, 0, NONE),
    MADE("register rip", "\x09\x10\x05", 0, 0, NONE),
    MADE("register of another", "\x09\x03\x05", 0, 0, RULE(SP, 8)),
    MADE("rsp saved", "\x87\x02", 0, 0, NONE),
    MADE("val_offset rbp", "\x14\x06\x02", 0, 0, NONE),
    MADE("val_offset_sf of another", "\x15\x03\x02", 0, 0, RULE(SP, 8)),
    MADE("val_expression rbp", "\x16\x06\x02\x76\x00", 0, 0, NONE),
    MADE("val_expression of another", "\x16\x03\x02\x76\x00", 0, 0, RULE(SP, 8)),
    MADE("GNU_args_size, nop", "\x2e\x20\0\0\x0e\x10", 0, 0, RULE(SP, 16)),
    MADE("unknown", "\x17\x00", 0, 0, NONE),
    MADE("unknown, later", "\x41\x17\x00", 0, 0, RULE(SP, 8)),
    MADE("GNU_window_save", "\x2d", 0, 0, NONE),

    MADE("restore_state alone", "\x0b", 0, 0, NONE),
    MADE("8 states", "\n\n\n\n\n\n\n\n\x0e\x10\v\v\v\v\v\v\v\v", 0, 0, RULE(SP, 8)),
    MADE("9 states", "\n\n\n\n\n\n\n\n\n", 0, 0, NONE),

    MADE("realigned", "\x10\x06\x02\x76\x00\x0f\x03\x76\x78\x06", 0, 0,
         RULE(DEREF_BP, -8, BP(BP, 0))),
    MADE("deref sp", "\x0f\x06\x77\xb0\x01\x06\x23\x08", 0, 0, RULE(DEREF_SP, 176, .cfa_add = 8)),
    MADE("deref sp with bregx, const, plus", "\x0f\x07\x92\x07\x10\x06\x08\x08\x22", 0, 0,
         RULE(DEREF_SP, 16, .cfa_add = 8)),
    MADE("sp minus", "\x0f\x05\x77\x20\x09\x08\x1c", 0, 0, RULE(SP, 24)),
    MADE("number plus sp", "\x0f\x04\x38\x77\x08\x22", 0, 0, RULE(SP, 16)),
    MADE("rbp by the cfa", "\x10\x06\x02\x23\x10", 0, 0, RULE(SP, 8, BP(CFA, 16))),
    MADE("rbp by rsp", "\x10\x06\x03\x77\xf8\x00", 0, 0, RULE(SP, 8, BP(SP, 120))),
    MADE("rip by rsp", "\x0e\x18\x10\x10\x02\x77\x08", 0, 0,
         {.cfa = PMT_UNWIND_SP, .cfa_offset = 24, .ra_offset = -16}),
    MADE("rip by rbp", "\x10\x10\x02\x76\x08", 0, 0, NONE),
    MADE("PLT 0", PLT, 0, 0, RULE(SP, 8)),
    MADE("PLT 10", PLT, 26, 0, RULE(SP, 8)),
    MADE("PLT 11", PLT, 27, 0, RULE(SP, 16)),
    MADE("deref deref", "\x0f\x04\x77\x08\x06\x06", 0, 0, NONE),
    MADE("expression of r10", "\x0f\x02\x7a\x00", 0, 0, NONE),
    MADE("expression that is empty", "\x0f\x00", 0, 0, NONE),
    MADE("expression that is a number", "\x0f\x01\x38", 0, 0, NONE),
    MADE("expression without operands", "\x0f\x01\x22", 0, 0, NONE),
    MADE("expression with one operand", "\x0f\x03\x77\x08\x22", 0, 0, NONE),
    MADE("deref of nothing", "\x0f\x01\x06", 0, 0, NONE),
    MADE("expression cut off", "\x0f\x02\x77\x80", 0, 0, NONE),
    MADE("expression with a branch", "\x0f\x05\x77\x08\x2f\xfb\xff", 0, 0, NONE),
    MADE("expression of 8 values", "\x0f\x09\x30\x30\x30\x30\x30\x30\x30\x77\x08", 0, 0,
         RULE(SP, 8)),
    MADE("expression of 9 values", "\x0f\x0a\x30\x30\x30\x30\x30\x30\x30\x30\x77\x08", 0, 0, NONE),
    MADE("expression behind the end", "\x0f\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 0, 0, NONE),
    MADE("cfa changed after an expression", "\x0f\x02\x77\x08\x0e\x10", 0, 0, NONE),
    MADE("register after an expression", "\x0f\x02\x77\x08\x0d\x07", 0, 0, NONE),

    MADE_BY(
        CIE_SIGNAL, FDE_PLAIN, "signal",
        "\x0f\x04\x77\xa0\x01\x06\x10\x06\x03\x77\xf8\x00\x10\x07\x03\x77\xa0\x01\x10\x10\x03\x77"
        "\xa8\x01",
        0, 0,
        {.cfa = PMT_UNWIND_SIGNAL, .cfa_offset = 160, .ra_offset = 168, BP(SP, 120), .signal = 1}),
    MADE("signal, another rsp",
         "\x0f\x04\x77\xa0\x01\x06\x10\x07\x03\x77\xa8\x01\x10\x10\x03\x77\xa8\x01", 0, 0, NONE),
    MADE_BY(CIE_SIGNAL, FDE_PLAIN, "signal, as a usual frame", "", 0, 0, RULE(SP, 8, .signal = 1)),

    MADE_BY("\x01zR\0\x04\x78\x10\x01\x00" ENTRY, FDE_PLAIN, "code_align", "\x42\x0e\x10", 7, 0,
            RULE(SP, 8)),
    MADE_BY("\x01zR\0\x04\x78\x10\x01\x00" ENTRY, FDE_PLAIN, "code_align reached", "\x42\x0e\x10",
            8, 0, RULE(SP, 16)),
    MADE_BY("\x01zR\0\x00\x78\x10\x01\x00" ENTRY, FDE_PLAIN, "code_align 0", "", 0, 0, NONE),
    MADE_BY("\x01zR\0\x01\x78\x11\x01\x00" ENTRY, FDE_PLAIN, "column 17", "", 0, 0, NONE),
    MADE_BY("\x03zR\0\x01\x78\x90\x00\x01\x00" ENTRY, FDE_PLAIN, "version 3", "", 0, 0,
            RULE(SP, 8)),
    MADE_BY("\x04zR\0\x08\x00" ALIGNS "\x01\x00" ENTRY, FDE_PLAIN, "version 4", "", 0, 0,
            RULE(SP, 8)),
    MADE_BY("\x04zR\0\x04\x00" ALIGNS "\x01\x00" ENTRY, FDE_PLAIN, "version 4 of 32 bits", "", 0, 0,
            NONE),
    MADE_BY("\x02zR\0" ALIGNS "\x01\x00" ENTRY, FDE_PLAIN, "version 2", "", 0, 0, NONE),
    MADE_BY("\x01\0" ALIGNS ENTRY, FDE_PLACE, "no augmentation", "", 0, 0, RULE(SP, 8)),
    MADE_BY("\x01"
            "eh\0\0\0\0\0\0\0\0\0" ALIGNS ENTRY,
            FDE_PLACE, "augmentation eh", "", 0, 0, NONE),
    MADE_BY("\x01zQR\0" ALIGNS "\x02\x00\x00" ENTRY, FDE_PLAIN, "augmentation unknown", "", 0, 0,
            NONE),
    MADE_BY("\x01zPLR\0" ALIGNS "\x07\x9b\x01\x02\x03\x04\x1b\x00" ENTRY, FDE_PLACE "\x04\0\0\0\0",
            "augmentation zPLR", "", 0, 0, RULE(SP, 8)),
    MADE_BY("\x01zPLR\0" ALIGNS "\x0b\x00\x01\x02\x03\x04\x05\x06\x07\x08\x00\x00" ENTRY,
            FDE_PLACE "\x08\0\0\0\0\0\0\0\0", "augmentation zPLR, absolute", "", 0, 0, RULE(SP, 8)),
    MADE_BY("\x01zPRB\0" ALIGNS "\x02\xff\x00" ENTRY, FDE_PLAIN, "augmentation zPR, omitted, B", "",
            0, 0, RULE(SP, 8)),
    MADE_BY("\x01zPLR\0" ALIGNS "\x03\x9b\x01\x02" ENTRY, FDE_PLAIN, "augmentation data too short",
            "", 0, 0, NONE),
    MADE_BY(CIE_PLAIN, FDE_PLACE LONG "\x01", "augmentation data of the FDE behind the end", "", 0,
            0, NONE),
    MADE_BY("\x01zR\0" ALIGNS "\x01\x03" ENTRY, "\x00\x10\x40\0\x00\x10\0\0\x00",
            "pointers of 4 bytes", "\x41\x0e\x10", 1, 0, RULE(SP, 16)),
    MADE_BY("\x01zR\0" ALIGNS "\x01\x01" ENTRY, "\x80\xa0\x80\x02\x80\x20\x00", "pointers uleb",
            "\x41\x0e\x10", 1, 0, RULE(SP, 16)),
    MADE_BY("\x01zR\0" ALIGNS "\x01\x09" ENTRY, "\x80\xa0\x80\x02\x80\x20\x00", "pointers sleb", "",
            1, 0, RULE(SP, 8)),
    MADE_BY("\x01zR\0" ALIGNS "\x01\x0a" ENTRY, "\x00\x10\x00\x10\x00",
            "pointers of 2 bytes, elsewhere", "", 1, 0, NONE),
    MADE_BY("\x01zR\0" ALIGNS "\x01\x33" ENTRY, "\x00\x10\x40\0\x00\x10\0\0\x00",
            "pointers relative to what is not known", "", 0, 0, NONE),
    MADE_BY("\x01zR\0" ALIGNS "\x01\x80" ENTRY, FDE_PLAIN, "pointers indirect", "", 0, 0, NONE),
    MADE_BY("\x01zR\0" ALIGNS "\x01\x05" ENTRY, FDE_PLAIN, "pointers of no format", "", 0, 0, NONE),
};

static size_t
made_build(const made *m, uint8_t *out, size_t *fde)
{
    return entries_build(out, m->cie, m->fde_head, m->instructions, fde);
}

/* The bytes end where the page does. */
static pmt__unwind_rule
rule_at_page_end(const uint8_t *bytes, size_t size, size_t fde, uint64_t pc, int is_return)
{
    uint8_t *start = page + PAGE - size;
    pmt__unwind_rule rule;
    memset(&rule, 0xff, sizeof rule);
    memcpy(start, bytes, size);
    pmt__cfi_rule((pmt__cfi_range){start, page + PAGE}, start + fde, pc, is_return, &rule);
    return rule;
}

static void
rules_from_bytes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof made_up / sizeof *made_up; i++) {
        const made *m = &made_up[i];
        uint8_t bytes[512];
        size_t fde, size = made_build(m, bytes, &fde);
        pmt__unwind_rule rule = rule_at_page_end(bytes, size, fde, START + m->pc, m->is_return);
        if (memcmp(&rule, &m->rule, sizeof rule) != 0) {
            fail_msg("%s: cfa %d, offset %d, add %d; bp %d, offset %d; ra %d; signal %d", m->name,
                     rule.cfa, rule.cfa_offset, rule.cfa_add, rule.bp, rule.bp_offset,
                     rule.ra_offset, rule.signal);
        }
    }
}

static void
a_pointer_relative_to_its_place(void **state)
{
    (void)state;
    static const text cie = TEXT("\x01zR\0" ALIGNS "\x01\x1b" ENTRY);
    static const text fde_head = TEXT("\x00\x10\0\0\x00\x10\0\0\x00"),
                      instructions = TEXT("\x41\x0e\x10");
    uint8_t bytes[512];
    size_t fde, size = entries_build(bytes, cie, fde_head, instructions, &fde);
    uint64_t function = (uintptr_t)(page + PAGE - size + fde + 8) + 0x1000;
    assert_int_equal(rule_at_page_end(bytes, size, fde, function - 1, 0).cfa, PMT_UNWIND_NONE);
    assert_int_equal(rule_at_page_end(bytes, size, fde, function, 0).cfa_offset, 8);
    assert_int_equal(rule_at_page_end(bytes, size, fde, function + 1, 0).cfa_offset, 16);
    assert_int_equal(rule_at_page_end(bytes, size, fde, function + SIZE, 0).cfa, PMT_UNWIND_NONE);
}

static void
lengths_of_64_bits(void **state)
{
    (void)state;
    uint8_t bytes[512] = {0xff, 0xff, 0xff, 0xff};
    static const char cie[] = "\x11\0\0\0\0\0\0\0"
                              "\0\0\0\0" CIE_PLAIN;
    static const char fde[] = "\x15\0\0\0\0\0\0\0"
                              "\x21\0\0\0" FDE_PLAIN;
    size_t at = put(bytes, 4, cie, sizeof cie - 1);
    bytes[4] = (uint8_t)(sizeof cie - 1 - 8);
    size_t fde_at = at;
    memset(bytes + at, 0xff, 4);
    at = put(bytes, at + 4, fde, sizeof fde - 1);
    bytes[fde_at + 12] = (uint8_t)(fde_at + 12);
    pmt__unwind_rule rule = rule_at_page_end(bytes, at, fde_at, START, 0);
    assert_int_equal(rule.cfa, PMT_UNWIND_SP);
    memset(bytes + fde_at + 4, 0xff, 8);
    rule = rule_at_page_end(bytes, at, fde_at, START, 0);
    assert_int_equal(rule.cfa, PMT_UNWIND_NONE);
}

/* Each one cut off at each byte: with what stands before telling of more, and not; and not at the page's end but at its beginning. */
static void
truncated_bytes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof made_up / sizeof *made_up; i++) {
        const made *m = &made_up[i];
        uint8_t bytes[512];
        size_t fde, size = made_build(m, bytes, &fde);
        for (size_t cut = 0; cut < size; cut++) {
            uint64_t pc = START + m->pc;
            assert_int_equal(rule_at_page_end(bytes, cut, fde, pc, 0).cfa, PMT_UNWIND_NONE);
            if (cut >= fde + 4) {
                uint8_t copy[512];
                memcpy(copy, bytes, cut);
                copy[fde] = (uint8_t)(cut - fde - 4);
                assert_true(rule_at_page_end(copy, cut, fde, pc, 0).cfa <= PMT_UNWIND_SIGNAL);
            }
            if (cut <= fde) { /* the CIE lies before the range */
                memcpy(page, bytes + cut, size - cut);
                pmt__unwind_rule rule;
                pmt__cfi_rule((pmt__cfi_range){page, page + size - cut}, page + fde - cut, pc, 0,
                              &rule);
                assert_int_equal(rule.cfa, cut == 0 ? rule.cfa : PMT_UNWIND_NONE);
            }
        }
    }
}

static void
absurd_lengths(void **state)
{
    (void)state;
    uint8_t bytes[512];
    size_t fde, size = made_build(&made_up[5], bytes, &fde);
    for (int byte = 0; byte < 256; byte++) {
        for (size_t at = 0; at < size; at++) { /* all lengths are among them */
            uint8_t copy[512];
            memcpy(copy, bytes, size);
            memset(copy + at, byte, size - at < 4 ? size - at : 4);
            assert_true(rule_at_page_end(copy, size, fde, START, 0).cfa <= PMT_UNWIND_SIGNAL);
            assert_true(rule_at_page_end(copy, size, at, START, 0).cfa <= PMT_UNWIND_SIGNAL);
        }
    }
    /* an FDE that is not in the range at all */
    pmt__unwind_rule rule;
    pmt__cfi_range range = {page, page + PAGE};
    pmt__cfi_rule(range, page - 1, START, 0, &rule);
    assert_int_equal(rule.cfa, PMT_UNWIND_NONE);
    pmt__cfi_rule(range, page + PAGE + 1, START, 0, &rule);
    assert_int_equal(rule.cfa, PMT_UNWIND_NONE);
}

static void
random_bytes(void **state)
{
    (void)state;
    enum {
        ROUNDS = 400000
    };
    for (int round = 0; round < ROUNDS; round++) {
        const made *m = &made_up[random_below(sizeof made_up / sizeof *made_up)];
        uint8_t bytes[1024];
        size_t fde, size = made_build(m, bytes, &fde);
        if (random_below(2)) { /* instructions by chance */
            unsigned more = random_below(40);
            for (unsigned i = 0; i < more; i++) {
                bytes[size++] = (uint8_t)random_below(random_below(2) ? 256 : 0x30);
            }
            bytes[fde] = (uint8_t)(size - fde - 4);
        }
        for (unsigned n = random_below(4); n > 0; n--) {
            bytes[random_below((unsigned)size)] = (uint8_t)random_below(256);
        }
        pmt__unwind_rule rule =
            rule_at_page_end(bytes, size, fde, START + random_below(64), (int)random_below(2));
        assert_true(rule.cfa <= PMT_UNWIND_SIGNAL && rule.bp <= PMT_UNWIND_BP_AT_SP);
    }
}

/* --- the search table ---------------------------------------------------------------------------------------------------------- */

/* A header with functions at `start`, + 0x100, + 0x200 …, described at start + 1, + 2 … Returns its size. */
static size_t
header_build(uint8_t *out, uint8_t encoding, uint32_t count, uint64_t start, uint64_t here)
{
    uint8_t head[] = {1, 0x1b, 0x03, encoding, 0, 0, 0, 0};
    size_t at = put(out, 0, head, sizeof head);
    at = put(out, at, &count, 4);
    size_t size = (encoding & 0x0f) == 0x0b || (encoding & 0x0f) == 0x03 ? 4 : 8;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t pair[] = {start + 0x100 * i, start + 1 + i};
        for (size_t k = 0; k < 2; k++) {
            pair[k] -= (encoding & 0x70) == 0x30 ? here : (encoding & 0x70) == 0x10 ? here + at : 0;
            at = put(out, at, &pair[k], size);
        }
    }
    return at;
}

static uint64_t
search(const uint8_t *bytes, size_t size, uint64_t address)
{
    uint8_t *start = page + PAGE - size;
    memcpy(start, bytes, size);
    return pmt__cfi_search((pmt__cfi_range){start, page + PAGE}, start, address);
}

static void
the_search_table(void **state)
{
    (void)state;
    static const uint8_t encodings[] = {0x03, 0x0b, 0x04, 0x0c, 0x00, 0x34,
                                        0x3c, 0x1c, 0x10, 0x3b, 0x1b};
    uint8_t bytes[PAGE];
    for (size_t e = 0; e < sizeof encodings; e++) {
        /* near enough for 4 bytes, some before the header and some behind */
        uint64_t start = (encodings[e] & 0x7f) < 0x10 ? START : (uintptr_t)page + PAGE - 0x400;
        for (uint32_t count = 0; count < 20; count++) {
            size_t size = header_build(bytes, encodings[e], count, start, 0);
            header_build(bytes, encodings[e], count, start, (uintptr_t)(page + PAGE - size));
            assert_int_equal(search(bytes, size, start - 1), 0);
            assert_int_equal(search(bytes, size, 0), 0);
            for (uint32_t i = 0; i < count; i++) {
                assert_int_equal(search(bytes, size, start + 0x100 * i), start + 1 + i);
                assert_int_equal(search(bytes, size, start + 0x100 * i + 0xff), start + 1 + i);
            }
            assert_int_equal(search(bytes, size, UINT64_MAX), count == 0 ? 0 : start + count);
            for (size_t cut = 0; cut < size; cut++) { /* never further than what is there */
                assert_int_equal(search(bytes, cut, start), 0);
            }
        }
    }
    size_t size = header_build(bytes, 0x03, 4, START, 0);
    static const struct {
        size_t at;
        uint8_t byte;
    } broken[] = {{0, 0},    {0, 2},     {2, 0xff}, {3, 0xff}, {3, 0x01},
                  {3, 0x09}, {3, 0x50},  {3, 0x23}, {3, 0x83}, {3, 0x05},
                  {8, 5},    {11, 0xff}, {2, 0x83}, {2, 0x0f}, {1, 0x05}};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        uint8_t copy[PAGE];
        memcpy(copy, bytes, size);
        copy[broken[i].at] = broken[i].byte;
        assert_int_equal(search(copy, size, START), 0);
    }
}

/* --- steps --------------------------------------------------------------------------------------------------------------------- */

static void
steps_stay_within_the_stack(void **state)
{
    (void)state;
    uint64_t *words = (uint64_t *)(void *)page;
    enum {
        COUNT = PAGE / 8
    };
    for (size_t i = 0; i < COUNT; i++) {
        words[i] = (uintptr_t)&words[i] + 16;
    }
    uint64_t low = (uintptr_t)words, high = low + PAGE;
    static const int32_t offsets[] = {INT32_MIN, -PAGE, -16, -8,       -1,   0,        1,
                                      7,         8,     16,  PAGE - 8, PAGE, INT32_MAX};
    uint64_t places[] = {0,        low - 8,  low - 1, low,      low + 8,   high - 16,
                         high - 8, high - 7, high,    high + 8, UINT64_MAX};
    enum {
        OFFSETS = sizeof offsets / sizeof *offsets,
        PLACES = sizeof places / sizeof *places
    };
    int went = 0;
    for (int n = 0; n < (SANITIZED ? 200000 : 2000000); n++) {
        pmt__unwind_rule rule = {
            .cfa_offset = offsets[random_below(OFFSETS)],
            .cfa_add = offsets[random_below(OFFSETS)],
            .bp_offset = offsets[random_below(OFFSETS)],
            .ra_offset = offsets[random_below(OFFSETS)],
            .cfa = (uint8_t)random_below(PMT_UNWIND_SIGNAL + 2),
            .bp = (uint8_t)random_below(5),
        };
        pmt__unwind_regs regs = {1, places[random_below(PLACES)], places[random_below(PLACES)]},
                         before = regs;
        int result = pmt__unwind_step(&rule, &regs, low, high);
        if (result == 1) {
            went++;
            assert_true(regs.sp > before.sp && regs.sp <= high);
        } else {
            assert_int_equal(result, rule.cfa == PMT_UNWIND_END ? 0 : -1);
            assert_memory_equal(&regs, &before, sizeof regs);
        }
    }
    assert_true(went > 1000);

    pmt__unwind_rule rule = {.cfa = PMT_UNWIND_SP, .cfa_offset = 8, .ra_offset = -8};
    pmt__unwind_regs regs = {1, low, 2};
    assert_int_equal(pmt__unwind_step(&rule, &regs, low, high), 1);
    assert_int_equal(regs.pc, low + 16);
    assert_int_equal(regs.sp, low + 8);
    assert_int_equal(regs.bp, 2);
    words[1] = 0; /* a return address that is none */
    assert_int_equal(pmt__unwind_step(&rule, &regs, low, high), 0);
    regs = (pmt__unwind_regs){1, high - 8, 2}; /* the stack's last word */
    assert_int_equal(pmt__unwind_step(&rule, &regs, low, high), 1);
    assert_int_equal(pmt__unwind_step(&rule, &regs, low, high), -1);
    assert_int_equal(pmt__unwind_step(&rule, &regs, 0, 0), -1);
    rule.cfa_offset = 0; /* it would not end */
    regs = (pmt__unwind_regs){1, low + 8, 2};
    assert_int_equal(pmt__unwind_step(&rule, &regs, low, high), -1);
}

/* --- walks against backtrace() -------------------------------------------------------------------------------------------------- */

/* Signals call what the compiler does not see being called. */
#if defined(__clang__)
#define OPAQUE __attribute__((noinline))
#define WITH_FRAME_POINTER OPAQUE
#else
#define OPAQUE __attribute__((noipa))
#define WITH_FRAME_POINTER __attribute__((noipa, optimize("no-omit-frame-pointer")))
#endif

enum {
    FRAMES_MAX = 512
};

static __thread uint64_t stack_low, stack_high;

static void
stack_bounds_find(void)
{
    pthread_attr_t attributes;
    void *low;
    size_t size;
    assert_int_equal(pthread_getattr_np(pthread_self(), &attributes), 0);
    assert_int_equal(pthread_attr_getstack(&attributes, &low, &size), 0);
    pthread_attr_destroy(&attributes);
    stack_low = (uintptr_t)low;
    stack_high = stack_low + size;
}

static __thread volatile int walks_done;
static __thread int deepest;

OPAQUE static void
walks_agree(void)
{
    static __thread void *expected[FRAMES_MAX];
    static __thread uint64_t pcs[FRAMES_MAX];
    errno = 4711;
    pmt__unwind_regs here;
    pmt__unwind_regs_here(&here);
    int count = pmt__unwind_plain(&here, stack_low, stack_high, pcs, FRAMES_MAX);
    assert_int_equal(errno, 4711);
    int all = backtrace(expected, FRAMES_MAX), own = 0;
    assert_true(count > 0 && count < FRAMES_MAX && all < FRAMES_MAX);
    /* its first ones are this function and, under a sanitizer, what stands before backtrace() */
    while (own < all && (uintptr_t)expected[own] != pcs[0]) {
        own++;
    }
    for (int i = 0; i < count || i < all - own; i++) {
        uint64_t want = own + i < all ? (uintptr_t)expected[own + i] : 0;
        if (i >= count || pcs[i] != want) {
            fail_msg("frame %d of %d: %#lx instead of %#lx", i, all - own,
                     (unsigned long)(i < count ? pcs[i] : 0), (unsigned long)want);
        }
    }
    assert_true(own <= 3);
    walks_done++;
    deepest = count > deepest ? count : deepest;
}

#define FRAME OPAQUE static void
#define NOT_LAST __asm__ volatile("" ::: "memory") /* so the call before is no jump */

enum {
    STACK_MIX_MAX = 32,
    KINDS = 10
};
typedef void frame_function(int left);
static __thread uint8_t mix[STACK_MIX_MAX];
static frame_function *const frame_functions[KINDS];

FRAME
next(int left)
{
    if (left == 0) {
        walks_agree();
    } else {
        frame_functions[mix[left - 1]](left - 1);
    }
    NOT_LAST;
}

FRAME
fixed_small(int left)
{
    next(left);
    NOT_LAST;
}

FRAME
fixed_large(int left)
{
    volatile char room[9000];
    room[0] = room[8999] = 1;
    next(left);
    room[1] = 1;
    (void)room[0];
}

FRAME
with_alloca(int left)
{
    volatile char *room = alloca(1 + random_below(3000));
    room[0] = 1;
    next(left);
    room[0] = 2;
}

FRAME
aligned_32(int left)
{
    _Alignas(32) volatile char room[64];
    room[0] = 1;
    next(left);
    room[1] = 1;
    (void)room[0];
}

FRAME
aligned_64_alloca(int left)
{
    _Alignas(64) volatile char room[128];
    volatile char *more = alloca(1 + random_below(500));
    room[0] = more[0] = 1;
    next(left);
    room[1] = more[0];
    (void)room[0];
}

/* More arguments than registers: a realigned frame needs the caller's, by r10. */
OPAQUE static long
aligned_of_many(int left, long b, long c, long d, long e, long f, long g, long h)
{
    _Alignas(64) volatile char room[128];
    volatile char *more = alloca(1 + random_below(500));
    room[0] = more[0] = (char)h;
    next(left);
    return room[0] + more[0] + b + c + d + e + f + g + h;
}

FRAME
aligned_arguments(int left)
{
    volatile long sum = aligned_of_many(left, 1, 2, 3, 4, 5, 6, left);
    (void)sum;
}

WITH_FRAME_POINTER static void
with_frame_pointer(int left)
{
    volatile char room[40];
    room[0] = 1;
    next(left);
    room[1] = 1;
    (void)room[0];
}

/* Takes a frame pointer for something else, then calls. */
void next_without_frame_pointer(int left);
__asm__(".pushsection .text\n"
        "next_without_frame_pointer:\n\t"
        ".cfi_startproc\n\t"
        "pushq %rbp\n\t"
        ".cfi_def_cfa_offset 16\n\t"
        ".cfi_offset %rbp, -16\n\t"
        "movq $0x1234, %rbp\n\t"
        "call next_by_name\n\t"
        "popq %rbp\n\t"
        ".cfi_restore %rbp\n\t"
        ".cfi_def_cfa_offset 8\n\t"
        "ret\n\t"
        ".cfi_endproc\n\t"
        ".popsection");

void next_by_name(int left);
OPAQUE void
next_by_name(int left)
{
    next(left);
    NOT_LAST;
}

FRAME
with_registers(int left)
{
    next_without_frame_pointer(left);
    NOT_LAST;
}

static __thread int left_in_callback;

static int
compare(const void *a, const void *b)
{
    int left = left_in_callback;
    if (left >= 0) {
        left_in_callback = -1;
        next(left);
    }
    return *(const int *)a - *(const int *)b;
}

FRAME
through_qsort(int left)
{
    int numbers[] = {3, 1, 2};
    left_in_callback = left;
    qsort(numbers, 3, sizeof *numbers, compare);
}

static __thread volatile int left_in_handler;

static void
handler(int number)
{
    (void)number;
    int saved = errno;
    next(left_in_handler);
    errno = saved;
}

FRAME
through_signal(int left)
{
    left_in_handler = left;
    raise(SIGUSR1);
}

/* Interrupted in the middle of a function, at no call: its own row counts, and rbp is what it is there. */
void interrupted(void);
__asm__(".pushsection .text\n"
        "interrupted:\n\t"
        ".cfi_startproc\n\t"
        "pushq %rbp\n\t"
        ".cfi_def_cfa_offset 16\n\t"
        ".cfi_offset %rbp, -16\n\t"
        "movq $0x99, %rbp\n\t"
        "ud2\n\t"
        "popq %rbp\n\t"
        ".cfi_restore %rbp\n\t"
        ".cfi_def_cfa_offset 8\n\t"
        "ud2\n\t"
        "ret\n\t"
        ".cfi_endproc\n\t"
        ".popsection");

FRAME
through_fault(int left)
{
    left_in_handler = left;
    interrupted();
    NOT_LAST;
}

static void
fault_handler(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)info;
    int saved = errno;
    next(left_in_handler);
    errno = saved;
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2; /* not before: it is on the stack */
}

static frame_function *const frame_functions[KINDS] = {
    fixed_small,       fixed_large,        with_alloca,    aligned_32,    aligned_64_alloca,
    aligned_arguments, with_frame_pointer, with_registers, through_qsort, through_signal,
};

static void
handlers_set(void)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_NODEFER};
    assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
}

static void
random_mixes(int count)
{
    stack_bounds_find();
    walks_done = deepest = 0;
    for (int n = 0; n < count; n++) {
        int left = (int)random_below(STACK_MIX_MAX);
        for (int i = 0; i < left; i++) {
            mix[i] = (uint8_t)random_below(KINDS);
        }
        next(left);
    }
    assert_int_equal(walks_done, count);
}

static void
walks_of_each_kind(void **state)
{
    (void)state;
    handlers_set();
    stack_bounds_find();
    for (size_t i = 0; i < KINDS; i++) {
        mix[0] = mix[1] = (uint8_t)i;
        next(2);
        next(1);
    }
}

static void
walks_of_random_mixes(void **state)
{
    (void)state;
    handlers_set();
    random_mixes(SANITIZED ? 2000 : 5000);
    print_message("           the deepest stack had %d frames\n", deepest);
}

static void *
thread_body(void *unused)
{
    random_mixes(1000);
    return unused;
}

static void
walks_of_threads(void **state)
{
    (void)state;
    handlers_set();
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, thread_body, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

static void
walks_from_a_fault(void **state)
{
    (void)state;
    struct sigaction action = {.sa_sigaction = fault_handler, .sa_flags = SA_NODEFER | SA_SIGINFO},
                     old;
    assert_int_equal(sigaction(SIGILL, &action, &old), 0);
#if defined( \
    __SANITIZE_THREAD__) /* it delivers what is raised in a handler later, in the midst of something else */
    const size_t kinds = KINDS - 1;
#else
    const size_t kinds = KINDS;
#endif
    stack_bounds_find();
    walks_done = 0;
    for (size_t i = 0; i < kinds; i++) {
        mix[0] = (uint8_t)i;
        through_fault(0);
        through_fault(1);
    }
    sigaction(SIGILL, &old, NULL);
    assert_int_equal(walks_done, 2 * 2 * kinds);
}

/* A return from a handler that nothing describes, as in C libraries other than glibc. */
void bare_return(void);
__asm__(".pushsection .text\n\t.byte 0x90\nbare_return:\n\t"
        ".byte 0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05\n\t.popsection");

static void
a_signal_without_a_description(void **state)
{
    (void)state;
    pmt__unwind_rule rule;
    pmt__unwind_rule_find((uintptr_t)bare_return, 1, &rule);
    assert_int_equal(rule.cfa, PMT_UNWIND_SIGNAL);
    struct {
        void (*handler)(int);
        unsigned long flags;
        void (*restorer)(void);
        unsigned long mask;
    } action = {handler, SA_NODEFER | 0x04000000 /* SA_RESTORER */, bare_return, 0}, old;
    assert_int_equal(syscall(SYS_rt_sigaction, SIGUSR2, &action, &old, 8), 0);
    stack_bounds_find();
    walks_done = 0;
    left_in_handler = 0;
    assert_int_equal(syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR2), 0);
    assert_int_equal(walks_done, 1);
    assert_int_equal(syscall(SYS_rt_sigaction, SIGUSR2, &old, NULL, 8), 0);
}

/* --- the ends of a stack ----------------------------------------------------------------------------------------------------------- */

enum {
    OWN_STACK = 64 * PAGE
};
static uint8_t *own_stack;
static ucontext_t outside, inside;

static void
walk_up_to_each_word(void)
{
    pmt__unwind_regs here;
    static uint64_t all[FRAMES_MAX], pcs[FRAMES_MAX];
    uint64_t own_end = (uintptr_t)__builtin_frame_address(0) + 16; /* of this function's frame */
    uint64_t low = (uintptr_t)own_stack, high = low + OWN_STACK;
    pmt__unwind_regs_here(&here);
    int count = pmt__unwind_plain(&here, low, high, all, FRAMES_MAX);
    assert_true(count > 12 && count < FRAMES_MAX);
    assert_int_equal(pmt__unwind_plain(&here, low, high, pcs, 3), 3);
    int shorter = 0;
    for (uint64_t cut = here.sp; cut <= high; cut += 4) {
        bool protect = cut % PAGE == 0 && cut >= own_end && cut < high;
        if (protect) { /* nothing behind can be read now */
            mprotect((void *)(uintptr_t)cut, high - cut, PROT_NONE);
        }
        int n = pmt__unwind_plain(&here, low, cut, pcs, FRAMES_MAX);
        if (protect) {
            mprotect((void *)(uintptr_t)cut, high - cut, PROT_READ | PROT_WRITE);
        }
        assert_true(n <= count && n >= shorter);
        assert_memory_equal(pcs, all, (size_t)n * sizeof *pcs);
        shorter = n;
    }
    assert_int_equal(shorter, count);
}

OPAQUE static void
deeper(int left)
{
    volatile char *room = alloca(1 + random_below(6000));
    room[0] = 1;
    if (left == 0) {
        walk_up_to_each_word();
    } else {
        deeper(left - 1);
    }
    room[0] = 2;
}

static void
on_own_stack(void)
{
    deeper(12);
}

static void
nothing_behind_the_stack_is_read(void **state)
{
    (void)state;
    own_stack =
        mmap(NULL, OWN_STACK + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(own_stack, MAP_FAILED);
    assert_int_equal(mprotect(own_stack + OWN_STACK, PAGE, PROT_NONE), 0);
    for (int n = 0; n < (SANITIZED ? 2 : 10); n++) {
        assert_int_equal(getcontext(&inside), 0);
        inside.uc_stack.ss_sp = own_stack;
        inside.uc_stack.ss_size = OWN_STACK;
        inside.uc_link = &outside;
        makecontext(&inside, on_own_stack, 0);
        assert_int_equal(swapcontext(&outside, &inside), 0);
    }
    munmap(own_stack, OWN_STACK + PAGE);
}

/* A function of the C library that no sanitizer replaces. */
#define C_LIBRARY "gnu_get_libc_version"

/* --- whole libraries --------------------------------------------------------------------------------------------------------------- */

typedef struct {
    uint64_t functions, rows, kinds[PMT_UNWIND_SIGNAL + 1];
} sweep;

static int32_t
int_at(const uint8_t *at)
{
    int32_t n;
    memcpy(&n, at, sizeof n);
    return n;
}

/* The rule of each instruction (of each byte, even) that the object with this address describes. */
static sweep
swept(const void *address)
{
    sweep result = {0};
    pmt__object_map map;
    assert_int_equal(pmt__object_map_find((uintptr_t)address, &map), 0);
    const uint8_t *header = map.eh_frame_hdr;
    assert_memory_equal(header, "\x01\x1b\x03\x3b", 4); /* as all linkers write it */
    result.functions = (uint32_t)int_at(header + 8);
    for (uint64_t i = 0; i < result.functions; i++) {
        const uint8_t *fde = header + int_at(header + 12 + 8 * i + 4);
        uint64_t start = (uint64_t)((uintptr_t)(fde + 8) + (uint64_t)(int64_t)int_at(fde + 8));
        uint64_t size = (uint32_t)int_at(fde + 12);
        assert_int_equal(start, (uintptr_t)header + (uint64_t)(int64_t)int_at(header + 12 + 8 * i));
        pmt__unwind_rule last = {.unused = 1};
        for (uint64_t at = 0; at < size; at += SANITIZED ? 1 + random_below(15) : 1) {
            pmt__unwind_rule rule;
            pmt__unwind_rule_find(start + at, 0, &rule);
            assert_true(rule.cfa <= PMT_UNWIND_SIGNAL);
            if (memcmp(&rule, &last, sizeof rule) != 0) {
                result.rows++;
                result.kinds[rule.cfa]++;
                last = rule;
            }
        }
    }
    return result;
}

static double
percent_without_rule(const char *name, const sweep *s)
{
    double percent = 100.0 * (double)s->kinds[PMT_UNWIND_NONE] / (double)s->rows;
    print_message("           %s: %lu functions, %lu rows, %.3f %% without a rule\n", name,
                  (unsigned long)s->functions, (unsigned long)s->rows, percent);
    return percent;
}

static void
a_rule_for_each_instruction(void **state)
{
    (void)state;
    sweep s = swept(dlsym(RTLD_DEFAULT, C_LIBRARY));
    /* 0.03 % of Debian 12's: a handful of rows in setcontext, vfork and the like */
    assert_true(percent_without_rule("libc", &s) < 2);
    assert_true(s.kinds[PMT_UNWIND_SIGNAL] >= 1 && s.kinds[PMT_UNWIND_END] >= 1);
    s = swept((const void *)(uintptr_t)walks_agree);
    assert_true(percent_without_rule("this executable", &s) < 2);
#if !defined(__clang__)
    assert_true(s.kinds[PMT_UNWIND_BP] >= 1 && s.kinds[PMT_UNWIND_DEREF_BP] >= 1);
#endif
    void *library = dlopen("libstdc++.so.6", RTLD_LAZY);
    if (library != NULL) {
        s = swept(dlsym(library, "__cxa_throw"));
        assert_true(percent_without_rule("libstdc++", &s) < 2);
        dlclose(library);
    }
}

/* --- objects ----------------------------------------------------------------------------------------------------------------------- */

/* By the loader's own list. */
static int
same_object(struct dl_phdr_info *info, size_t size, void *context)
{
    (void)size;
    const pmt__object *object = context;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        uint64_t start = info->dlpi_addr + header->p_vaddr;
        if (header->p_type == PT_LOAD && start + header->p_memsz > object->start
            && start < object->end) {
            assert_int_equal(object->bias, info->dlpi_addr);
            assert_true(start + PAGE > object->start && start + header->p_memsz <= object->end);
        }
        if (header->p_type == PT_NOTE && object->bias == info->dlpi_addr
            && object->build_id_size == 20) {
            const uint8_t *notes = (const uint8_t *)(uintptr_t)start;
            static const uint8_t mark[] = {4, 0, 0, 0, 20, 0, 0, 0, 3, 0, 0, 0, 'G', 'N', 'U', 0};
            const uint8_t *found = memmem(notes, header->p_filesz, mark, sizeof mark);
            if (found != NULL) {
                assert_ptr_equal(found + sizeof mark, object->build_id);
                return 1;
            }
        }
    }
    return 0;
}

static void
objects(void **state)
{
    (void)state;
    pmt__object object;
    char path[PAGE] = {0};
    errno = 4711;
    assert_int_equal(pmt__object_find((uintptr_t)walks_agree, &object), 0);
    assert_int_equal(errno, 4711);
    assert_true(readlink("/proc/self/exe", path, sizeof path - 1) > 0);
    assert_string_equal(object.path, path);
    assert_int_equal(dl_iterate_phdr(same_object, &object), object.build_id_size != 0);

    assert_int_equal(pmt__object_find((uintptr_t)dlsym(RTLD_DEFAULT, C_LIBRARY), &object), 0);
    assert_non_null(strstr(object.path, "libc.so"));
    assert_int_equal(dl_iterate_phdr(same_object, &object), object.build_id_size != 0);

    uint64_t vdso = getauxval(AT_SYSINFO_EHDR);
    if (vdso != 0) {
        assert_int_equal(pmt__object_find(vdso, &object), 0);
        assert_string_equal(object.path, "[vdso]");
    }

    static const uint64_t nowhere[] = {0, 1, UINT64_MAX};
    for (size_t i = 0; i < sizeof nowhere / sizeof *nowhere; i++) {
        assert_int_equal(pmt__object_find(nowhere[i], &object), -1);
        pmt__unwind_rule rule;
        pmt__unwind_rule_find(nowhere[i], 0, &rule);
        assert_int_equal(rule.cfa, PMT_UNWIND_NONE);
    }
    assert_int_equal(pmt__object_find((uintptr_t)page, &object), -1);
    assert_int_equal(errno, 4711);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_from_bytes),
        cmocka_unit_test(a_pointer_relative_to_its_place),
        cmocka_unit_test(lengths_of_64_bits),
        cmocka_unit_test(truncated_bytes),
        cmocka_unit_test(absurd_lengths),
        cmocka_unit_test(random_bytes),
        cmocka_unit_test(the_search_table),
        cmocka_unit_test(steps_stay_within_the_stack),
        cmocka_unit_test(walks_of_each_kind),
        cmocka_unit_test(walks_of_random_mixes),
        cmocka_unit_test(walks_of_threads),
        cmocka_unit_test(walks_from_a_fault),
        cmocka_unit_test(a_signal_without_a_description),
        cmocka_unit_test(nothing_behind_the_stack_is_read),
        cmocka_unit_test(a_rule_for_each_instruction),
        cmocka_unit_test(objects),
    };
    if (!pmt__unwind_supported()) {
        return 77; /* Meson's mark of a test that was skipped */
    }
    page_make();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
