/* The stacks of an aggregate as a tree whose nodes hold the values of what is below them. */
#ifndef PMT_ANALYZE_TREE_H
#define PMT_ANALYZE_TREE_H

#include "analyze/aggregate.h"

typedef struct pmt__tree_node {
    uint32_t frame; /* UINT32_MAX: the root */
    uint32_t parent;
    uint32_t first_child; /* children stand together, the heaviest first */
    uint32_t child_count;
    uint64_t bytes;
    uint64_t blocks;
    size_t spread; /* its place among the spreads */
} pmt__tree_node;

typedef struct pmt__tree {
    const pmt_allocator *allocator; /* borrowed */
    PMT__VEC(pmt__tree_node) nodes; /* owned; 0 is the root, parent < child */
    PMT__VEC(pmt_spread) spreads;   /* owned; empty if all is sure */
    bool is_estimate;
} pmt__tree;

typedef struct pmt__tree_limits {
    bool inverted;      /* the innermost frames below the root, callers below callees */
    uint32_t max_depth; /* 0 = none; the root has depth 0 */
    double min_share;   /* of the aggregate's bytes; nodes with less are left out */
} pmt__tree_limits;

/* *out is for the caller to dispose, also after an error. PMT_ERR_LIMIT: more than 2^24 nodes. */
int pmt__tree_init(pmt__tree *out, const pmt_aggregate *aggregate, const pmt__tree_limits *limits,
                   pmt_error *err);
void pmt__tree_dispose(pmt__tree *self);

#endif
