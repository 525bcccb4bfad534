/* Both trees grow from the root, level by level, so that a branch which is cut off costs nothing: the
   callers tree of a program that recurses 10,000 deep could have 10^8 nodes.

   Callees below callers is the tree of stacks itself: values are summed up towards the root in one
   pass, and a node's children are those of its stack.

   Callers below callees: a node stands for a run of *items*, (a row of the aggregate, a place in its
   stack). To expand it, each item goes one step out; items at the end of their stack fall out of the
   run, and the rest, sorted by the frame that they came to, falls into runs: the children. A child's
   run lies within its parent's, so one array of items serves the whole tree. */
#include "analyze/tree.h"

#include <stdlib.h>

#include "analyze/spread.h"
#include "base/error.h"

#define NODE_LIMIT ((size_t)1 << 24)

typedef struct item {
    uint32_t frame;     /* the key to sort by */
    uint32_t stack;     /* where it is */
    const pmt_row *row; /* borrowed from the aggregate */
} item;

/* The run of items of a node, while the node waits to be expanded. */
typedef struct run {
    size_t start;
    size_t end;
} run;

static int
no_memory(pmt_error *err)
{
    return pmt__error_set(err, PMT_ERR_NOMEM, "out of memory");
}

static int
compare_items(const void *left, const void *right)
{
    const item *a = left;
    const item *b = right;
    if (a->frame != b->frame) {
        return a->frame < b->frame ? -1 : 1;
    }
    return a->stack < b->stack ? -1 : a->stack > b->stack;
}

static int
compare_nodes(const void *left, const void *right)
{
    const pmt__tree_node *a = left;
    const pmt__tree_node *b = right;
    if (a->bytes != b->bytes) {
        return a->bytes > b->bytes ? -1 : 1;
    }
    if (a->blocks != b->blocks) {
        return a->blocks > b->blocks ? -1 : 1;
    }
    return a->frame < b->frame ? -1 : a->frame > b->frame;
}

static bool
is_heavy(const pmt__tree_node *node, double min_bytes)
{
    return (node->bytes | node->blocks) != 0 && (double)node->bytes >= min_bytes;
}

/* spread: NULL if it is no estimate. */
static int
push_node(pmt__tree *self, pmt__tree_node *node, const pmt_spread *spread, pmt_error *err)
{
    if (self->nodes.len >= NODE_LIMIT) {
        return pmt__error_set(err, PMT_ERR_LIMIT,
                              "the tree has over %zu nodes: limit its depth or the least share",
                              NODE_LIMIT);
    }
    node->spread = self->spreads.len;
    if (self->is_estimate && !PMT__VEC_PUSH(self->allocator, &self->spreads, *spread)) {
        return no_memory(err);
    }
    return PMT__VEC_PUSH(self->allocator, &self->nodes, *node) ? PMT_OK : no_memory(err);
}

/* --- callers below callees --------------------------------------------------------------------- */

typedef struct inverter {
    pmt__tree *tree;
    const pmt_reader *reader;
    item *items;
    PMT__VEC(run) runs; /* by node */
    double min_bytes;
    pmt_error *err;
} inverter;

/* Gives the node its children from its run, whose items have `frame` set. While the children are
   sorted, their first_child and child_count hold the start and the end of their runs. */
static int
split(inverter *self, uint32_t at, run items)
{
    pmt__tree *tree = self->tree;
    size_t first = tree->nodes.len;
    qsort(self->items + items.start, items.end - items.start, sizeof *self->items, compare_items);
    for (size_t i = items.start; i < items.end;) {
        pmt__tree_node node = {.frame = self->items[i].frame, .parent = at};
        node.first_child = (uint32_t)i;
        pmt_spread spread = {0};
        for (; i < items.end && self->items[i].frame == node.frame; i++) {
            const pmt_row *row = self->items[i].row;
            node.bytes += row->value.bytes;
            node.blocks += row->value.blocks;
            if (row->spreads != NULL) {
                pmt__spread_add(&spread, &row->spreads->view, 1);
            }
        }
        node.child_count = (uint32_t)i;
        if (is_heavy(&node, self->min_bytes)) {
            int result = push_node(tree, &node, &spread, self->err);
            if (result < 0) {
                return result;
            }
        }
    }
    size_t count = tree->nodes.len - first;
    if (count > 1) {
        qsort(tree->nodes.data + first, count, sizeof *tree->nodes.data, compare_nodes);
    }
    if (!PMT__VEC_RESERVE(tree->allocator, &self->runs, count)) {
        return no_memory(self->err);
    }
    for (size_t i = first; i < tree->nodes.len; i++) {
        pmt__tree_node *node = &tree->nodes.data[i];
        self->runs.data[self->runs.len++] = (run){node->first_child, node->child_count};
        node->first_child = node->child_count = 0;
    }
    tree->nodes.data[at].first_child = (uint32_t)first;
    tree->nodes.data[at].child_count = (uint32_t)count;
    return PMT_OK;
}

/* Moves the items of a run to their callers, and those that have none out of the run. */
static run
step_out(inverter *self, run items)
{
    for (size_t i = items.start; i < items.end;) {
        item *it = &self->items[i];
        it->stack = self->reader->stacks.data[it->stack].parent;
        if (it->stack == 0) {
            *it = self->items[--items.end];
            continue;
        }
        it->frame = self->reader->stacks.data[it->stack].frame;
        i++;
    }
    return items;
}

static int
build_inverted(pmt__tree *self, const pmt_aggregate *aggregate, const pmt__tree_limits *limits,
               double min_bytes, pmt_error *err)
{
    const pmt_row *rows;
    size_t count = pmt_aggregate_stacks(aggregate, &rows);
    inverter it = {.tree = self, .reader = aggregate->reader, .min_bytes = min_bytes, .err = err};
    it.items = pmt__alloc_zeroed(self->allocator, count, sizeof *it.items);
    if (it.items == NULL || !PMT__VEC_PUSH(self->allocator, &it.runs, (run){0, 0})) {
        pmt__release(self->allocator, it.items);
        return no_memory(err);
    }
    run all = {0, 0};
    for (size_t i = 0; i < count; i++) {
        if (rows[i].stack != 0) {
            it.items[all.end++] = (item){rows[i].frame, rows[i].stack, &rows[i]};
        }
    }
    int result = split(&it, 0, all);
    size_t level_end = self->nodes.len;
    uint32_t depth = 1;
    for (size_t at = 1; at < self->nodes.len && result == PMT_OK; at++) {
        if (at == level_end) {
            level_end = self->nodes.len;
            depth++;
        }
        if (limits->max_depth != 0 && depth >= limits->max_depth) {
            break;
        }
        result = split(&it, (uint32_t)at, step_out(&it, it.runs.data[at]));
    }
    PMT__VEC_DISPOSE(self->allocator, &it.runs);
    pmt__release(self->allocator, it.items);
    return result;
}

/* --- callees below callers --------------------------------------------------------------------- */

typedef struct weight {
    uint64_t bytes;
    uint64_t blocks;
} weight;

/* children[starts[s] .. starts[s + 1]) become the stacks whose parent is s. */
static void
list_children(const pmt_reader *reader, uint32_t *starts, uint32_t *children)
{
    size_t count = reader->stacks.len;
    for (size_t i = 1; i < count; i++) {
        starts[reader->stacks.data[i].parent + 1]++;
    }
    for (size_t i = 1; i <= count; i++) {
        starts[i] += starts[i - 1];
    }
    /* Fills from the back of each range, which turns ends into starts. */
    for (size_t i = count; i-- > 1;) {
        uint32_t parent = reader->stacks.data[i].parent;
        children[--starts[parent + 1]] = (uint32_t)i;
    }
    for (size_t i = 0; i < count; i++) {
        starts[i] = starts[i + 1];
    }
    starts[count] = (uint32_t)count - 1;
}

/* While the tree grows, child_count of a node holds its stack until the node is expanded. */
static int
expand(pmt__tree *self, size_t at, const pmt_reader *reader, const weight *weights,
       const pmt_spread *spreads, const uint32_t *starts, const uint32_t *children,
       double min_bytes, pmt_error *err)
{
    uint32_t stack = self->nodes.data[at].child_count;
    size_t first = self->nodes.len;
    for (uint32_t i = starts[stack]; i < starts[stack + 1]; i++) {
        uint32_t child = children[i];
        pmt__tree_node node = {.frame = reader->stacks.data[child].frame,
                               .parent = (uint32_t)at,
                               .child_count = child,
                               .bytes = weights[child].bytes,
                               .blocks = weights[child].blocks};
        if (is_heavy(&node, min_bytes)) {
            int result = push_node(self, &node, spreads == NULL ? NULL : &spreads[child], err);
            if (result < 0) {
                return result;
            }
        }
    }
    size_t count = self->nodes.len - first;
    if (count > 1) {
        qsort(self->nodes.data + first, count, sizeof *self->nodes.data, compare_nodes);
    }
    self->nodes.data[at].first_child = (uint32_t)first;
    self->nodes.data[at].child_count = (uint32_t)count;
    return PMT_OK;
}

static int
build_forward(pmt__tree *self, const pmt_aggregate *aggregate, const pmt__tree_limits *limits,
              double min_bytes, pmt_error *err)
{
    const pmt_reader *reader = aggregate->reader;
    size_t count = reader->stacks.len;
    weight *weights = pmt__alloc_zeroed(self->allocator, count, sizeof *weights);
    pmt_spread *spreads =
        self->is_estimate ? pmt__alloc_zeroed(self->allocator, count, sizeof *spreads) : NULL;
    uint32_t *starts = pmt__alloc_zeroed(self->allocator, count + 1, sizeof *starts);
    uint32_t *children = pmt__alloc_zeroed(self->allocator, count, sizeof *children);
    int result = PMT_OK;
    if (weights == NULL || starts == NULL || children == NULL
        || (self->is_estimate && spreads == NULL)) {
        result = no_memory(err);
        goto done;
    }
    const pmt_row *rows;
    size_t row_count = pmt_aggregate_stacks(aggregate, &rows);
    for (size_t i = 0; i < row_count; i++) {
        weights[rows[i].stack].bytes += rows[i].value.bytes;
        weights[rows[i].stack].blocks += rows[i].value.blocks;
        if (spreads != NULL) {
            pmt__spread_add(&spreads[rows[i].stack], &rows[i].spreads->view, 1);
        }
    }
    for (size_t i = count; i-- > 1;) {
        uint32_t parent = reader->stacks.data[i].parent;
        weights[parent].bytes += weights[i].bytes;
        weights[parent].blocks += weights[i].blocks;
        if (spreads != NULL) {
            pmt__spread_add(&spreads[parent], &spreads[i], 1);
        }
    }
    list_children(reader, starts, children);
    size_t level_end = 1;
    uint32_t depth = 0;
    for (size_t at = 0; at < self->nodes.len && result == PMT_OK; at++) {
        if (at == level_end) {
            level_end = self->nodes.len;
            depth++;
        }
        if (limits->max_depth != 0 && depth >= limits->max_depth) {
            self->nodes.data[at].child_count = 0;
            continue;
        }
        result = expand(self, at, reader, weights, spreads, starts, children, min_bytes, err);
    }
done:
    pmt__release(self->allocator, weights);
    pmt__release(self->allocator, spreads);
    pmt__release(self->allocator, starts);
    pmt__release(self->allocator, children);
    return result;
}

int
pmt__tree_init(pmt__tree *out, const pmt_aggregate *aggregate, const pmt__tree_limits *limits,
               pmt_error *err)
{
    *out = (pmt__tree){.allocator = aggregate->reader->allocator,
                       .is_estimate = aggregate->is_estimate};
    pmt__tree_node root = {
        .frame = UINT32_MAX, .bytes = aggregate->total.bytes, .blocks = aggregate->total.blocks};
    int result = push_node(out, &root, &aggregate->total_spreads.view, err);
    if (result < 0) {
        return result;
    }
    double min_bytes = limits->min_share * (double)aggregate->total.bytes;
    if (limits->inverted) {
        return build_inverted(out, aggregate, limits, min_bytes, err);
    }
    return build_forward(out, aggregate, limits, min_bytes, err);
}

void
pmt__tree_dispose(pmt__tree *self)
{
    if (self->allocator != NULL) {
        PMT__VEC_DISPOSE(self->allocator, &self->nodes);
        PMT__VEC_DISPOSE(self->allocator, &self->spreads);
    }
}
