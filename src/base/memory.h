/* Memory through a pmt_allocator: plain blocks, growing vectors, text that is put together. */
#ifndef PMT_BASE_MEMORY_H
#define PMT_BASE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pymemtrace/allocator.h"

/* NULL if count * size overflows or memory runs out. The block is zeroed. Never NULL for count 0. */
void *pmt__alloc_zeroed(const pmt_allocator *allocator, size_t count, size_t size);
void pmt__release(const pmt_allocator *allocator, const void *block);

/* A vector is a struct with `data`, `len` and `cap`; elements are plain data. */
#define PMT__VEC(type) \
    struct {           \
        type *data;    \
        size_t len;    \
        size_t cap;    \
    }

/* Makes room for `more` further elements; data_field is the address of the vector's data pointer, of
   whatever pointer type. Returns false and changes nothing if memory runs out. */
bool pmt__vec_reserve_(const pmt_allocator *allocator, void *data_field, size_t *cap, size_t len,
                       size_t more, size_t element_size);

/* Both return whether it worked. */
#define PMT__VEC_RESERVE(allocator, vec, more)                                        \
    ((vec)->cap - (vec)->len >= (size_t)(more)                                        \
     || pmt__vec_reserve_((allocator), &(vec)->data, &(vec)->cap, (vec)->len, (more), \
                          sizeof *(vec)->data))
#define PMT__VEC_PUSH(allocator, vec, ...)                                                   \
    (PMT__VEC_RESERVE(allocator, vec, 1) ? ((vec)->data[(vec)->len++] = (__VA_ARGS__), true) \
                                         : false)
#define PMT__VEC_DISPOSE(allocator, vec) \
    (pmt__release((allocator), (vec)->data), (vec)->data = NULL, (vec)->len = (vec)->cap = 0)

/* Bytes that are put together piece by piece. A failure sticks: check `failed` once at the end. */
typedef struct pmt__text_buffer {
    const pmt_allocator *allocator; /* borrowed */
    char *data;                     /* owned */
    size_t len;
    size_t cap;
    bool failed;
} pmt__text_buffer;

void pmt__text_init(pmt__text_buffer *self, const pmt_allocator *allocator);
void pmt__text_dispose(pmt__text_buffer *self);
void pmt__text_put(pmt__text_buffer *self, const void *bytes, size_t n);
void pmt__text_put_c(pmt__text_buffer *self, const char *text);
void pmt__text_put_char(pmt__text_buffer *self, char c);
void pmt__text_put_u64(pmt__text_buffer *self, uint64_t value); /* decimal */

#endif
