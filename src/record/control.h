/* Orders from outside: a small file beside the capture, <capture>.control, that only the user of the process or root may have written.
   Looked at by the writer's thread before each cut.

   It has one line, `sample=N` (bytes, PMT_SAMPLE_MEAN_MIN to _MAX), `sample=off` or `sample=on`. Anything else is no order. */
#ifndef PMT_RECORD_CONTROL_H
#define PMT_RECORD_CONTROL_H

#include <stdint.h>

#define PMT_CONTROL_SUFFIX ".control"

typedef enum pmt__order_kind {
    PMT_ORDER_NONE = 0,
    PMT_ORDER_MEAN = 1,
    PMT_ORDER_OFF = 2,
    PMT_ORDER_ON = 3
} pmt__order_kind;

typedef struct pmt__order {
    pmt__order_kind kind;
    uint64_t mean; /* of PMT_ORDER_MEAN */
} pmt__order;

typedef struct pmt__control {
    char seen[64]; /* the last text */
} pmt__control;

/* What the text says. */
pmt__order pmt__order_parse(const char *text);
/* The order in the file beside the capture at this path, if it is another one than at the last look. */
pmt__order pmt__control_look(pmt__control *self, const char *path);

#endif
