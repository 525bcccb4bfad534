/* Frames and code objects for testing the recording room without an interpreter; include once per test program. */
#ifndef PMT_TEST_MADE_UP_FRAMES_H
#define PMT_TEST_MADE_UP_FRAMES_H

#include <stdint.h>
#include <string.h>

#include "record/tables.h"

typedef struct code {
    char name[24];
    uint8_t bytecode[256];
} code;

typedef struct test_frame {
    struct test_frame *previous;
    uint64_t instr;
    code *running;
    int entry;
    int in_heap;
    int mark;                    /* cleared by every new activation */
    struct test_frame *awaiting; /* so many frames that await it, the outermost first */
    int awaiting_count;
} test_frame;

__attribute__((unused)) static int may_ask = 1;

__attribute__((unused)) static int
frames_that_await(test_frame *frame, test_frame **out, int room)
{
    int count = frame->awaiting_count < room ? frame->awaiting_count : room;
    for (int i = 0; i < count; i++) {
        out[i] = &frame->awaiting[i];
    }
    return count;
}

#define PMT_FRAME test_frame
#define PMT_FRAME_PREVIOUS(f) ((f)->previous)
#define PMT_FRAME_INSTR(f) ((f)->instr)
#define PMT_FRAME_CODE(f) ((const void *)(f)->running)
#define PMT_FRAME_IS_ENTRY(f) ((f)->entry)
#define PMT_FRAME_IN_HEAP(f) ((f)->in_heap)
#define PMT_FRAMES_MARKABLE 2
#define PMT_FRAME_MARKED(f) ((f)->mark)
#define PMT_FRAME_MARK(f) ((f)->mark = 1)
#define PMT_FRAMES_ASK() may_ask
#define PMT_FRAME_AWAITING(state, f, out, room) ((void)(state), frames_that_await(f, out, room))
#include "record/lane_track.h"

static void
describe(const void *object, pmt__code_facts *facts)
{
    const code *c = object;
    memset(facts, 0, sizeof *facts);
    facts->start = (uint64_t)(uintptr_t)c->bytecode;
    facts->size = sizeof c->bytecode;
    facts->traceable = 2;
    facts->first_line = 1;
    facts->file = (pmt__text){"file.py", 7, 1};
    facts->name = (pmt__text){c->name, strlen(c->name), 1};
    facts->line_table = (const uint8_t *)"";
    facts->line_table_size = 0;
}

static const pmt__frame_source source = {describe, NULL};

#endif
