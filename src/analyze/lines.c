/* What is below a line, in time that follows the number of stacks and not their depth.

   Values are summed up towards the root of the tree of stacks, whose parents come before their children. A line counts a stack
   once, although it is on it more than once where the program recurses: so the tree is walked depth first with a count of how
   often each frame is on the way, and a node adds to its frame only when it is the first. */
#include "analyze/lines.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

typedef struct node {
    pmt_value value; /* with all that is below */
    uint32_t first_child;
    uint32_t next; /* sibling; 0: none */
} node;

typedef struct walk {
    const pmt_reader *reader;
    node *nodes; /* owned; by stack */
    uint32_t
        *on_path; /* owned; by place of a frame: how often it is on the way to where the walk is */
    pmt__line *lines; /* owned; by place of a frame */
} walk;

static bool
is_nothing(const pmt_value *value)
{
    static const pmt_value nothing;
    return memcmp(value, &nothing, sizeof nothing) == 0;
}

static void
sum_up(walk *self, const pmt_aggregate *aggregate)
{
    const pmt_reader *reader = self->reader;
    for (size_t i = 0; i < aggregate->rows.len; i++) {
        const pmt_row *row = &aggregate->rows.data[i];
        pmt__value_add(&self->nodes[row->stack].value, &row->value);
        uint32_t frame = pmt_reader_blamed_frame(reader, row->stack);
        pmt__value_add(&self->lines[pmt__frame_place(reader, frame)].own, &row->value);
    }
    for (uint32_t stack = (uint32_t)reader->stacks.len; stack-- > 1;) {
        node *it = &self->nodes[stack];
        if (!is_nothing(&it->value)) {
            node *parent = &self->nodes[reader->stacks.data[stack].parent];
            pmt__value_add(&parent->value, &it->value);
            it->next = parent->first_child;
            parent->first_child = stack;
        }
    }
}

static void
enter(walk *self, uint32_t stack)
{
    uint32_t frame = self->reader->stacks.data[stack].frame;
    if (self->on_path[frame]++ == 0) {
        pmt__value_add(&self->lines[frame].total, &self->nodes[stack].value);
    }
}

/* The next node that is neither below this one nor on the way to it; 0 if the walk is over. */
static uint32_t
leave(walk *self, uint32_t stack)
{
    while (stack != 0) {
        self->on_path[self->reader->stacks.data[stack].frame]--;
        if (self->nodes[stack].next != 0) {
            return self->nodes[stack].next;
        }
        stack = self->reader->stacks.data[stack].parent;
    }
    return 0;
}

static int
compare_lines(const void *left, const void *right)
{
    const pmt__line *a = left;
    const pmt__line *b = right;
    const uint64_t pairs[][2] = {{a->key, b->key},
                                 {a->own.bytes, b->own.bytes},
                                 {a->total.bytes, b->total.bytes},
                                 {b->frame, a->frame}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        if (pairs[i][0] != pairs[i][1]) {
            return pairs[i][0] > pairs[i][1] ? -1 : 1;
        }
    }
    return 0;
}

static size_t
collect(walk *self, size_t limit, size_t number, bool by_total)
{
    size_t used = 0;
    for (size_t i = 0; i < limit; i++) {
        pmt__line line = self->lines[i];
        line.frame = i == limit - 1 ? UINT32_MAX : (uint32_t)i;
        if (line.frame == UINT32_MAX) {
            line.total = line.own;
        }
        const pmt_value *value = by_total ? &line.total : &line.own;
        memcpy(&line.key, (const char *)value + number, sizeof line.key);
        if ((line.own.bytes | line.own.blocks | line.total.bytes | line.total.blocks | line.key)
            != 0) {
            self->lines[used++] = line;
        }
    }
    if (used > 1) {
        qsort(self->lines, used, sizeof *self->lines, compare_lines);
    }
    return used;
}

int
pmt__lines_make(pmt__line **out, size_t *count, const pmt_aggregate *aggregate, size_t number,
                bool by_total, pmt_error *err)
{
    const pmt_reader *reader = aggregate->reader;
    const pmt_allocator *allocator = reader->allocator;
    size_t limit = reader->frames.len + 1;
    walk it = {.reader = reader};
    it.nodes = pmt__alloc_zeroed(allocator, reader->stacks.len, sizeof *it.nodes);
    it.on_path = pmt__alloc_zeroed(allocator, limit, sizeof *it.on_path);
    it.lines = pmt__alloc_zeroed(allocator, limit, sizeof *it.lines);
    *out = NULL;
    *count = 0;
    int result = PMT_OK;
    if (it.nodes == NULL || it.on_path == NULL || it.lines == NULL) {
        result = pmt__error_set(err, PMT_ERR_NOMEM, "out of memory");
        pmt__release(allocator, it.lines);
    } else {
        sum_up(&it, aggregate);
        for (uint32_t stack = it.nodes[0].first_child; stack != 0;) {
            enter(&it, stack);
            uint32_t child = it.nodes[stack].first_child;
            stack = child != 0 ? child : leave(&it, stack);
        }
        *count = collect(&it, limit, number, by_total);
        *out = it.lines;
    }
    pmt__release(allocator, it.nodes);
    pmt__release(allocator, it.on_path);
    return result;
}
