#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

static void *
system_resize(void *context, void *block, size_t size)
{
    (void)context;
    return realloc(block, size);
}

static void
system_release(void *context, void *block)
{
    (void)context;
    free(block);
}

const pmt_allocator *
pmt_allocator_default(void)
{
    static const pmt_allocator system = {system_resize, system_release, NULL};
    return &system;
}

void *
pmt__alloc_zeroed(const pmt_allocator *allocator, size_t count, size_t size)
{
    if (size != 0 && count > SIZE_MAX / size) {
        return NULL;
    }
    size_t total = count * size;
    if (total == 0) {
        total = 1;
    }
    void *block = allocator->resize(allocator->context, NULL, total);
    if (block != NULL) {
        memset(block, 0, total);
    }
    return block;
}

void
pmt__release(const pmt_allocator *allocator, const void *block)
{
    if (block != NULL) {
        allocator->release(allocator->context, (void *)(uintptr_t)block);
    }
}

bool
pmt__vec_reserve_(const pmt_allocator *allocator, void *data_field, size_t *cap, size_t len,
                  size_t more, size_t element_size)
{
    size_t limit = SIZE_MAX / 2 / element_size;
    if (more > limit || len > limit - more) {
        return false;
    }
    size_t needed = len + more;
    /* By half, not by doubling: these are the largest blocks of the reader. */
    size_t grown = *cap + *cap / 2 + 16;
    if (grown < needed || grown > limit) {
        grown = needed;
    }
    /* Copied as bytes: the field has another pointer type, and may not be accessed as void *. */
    void *block;
    memcpy(&block, data_field, sizeof block);
    block = allocator->resize(allocator->context, block, grown * element_size);
    if (block == NULL) {
        return false;
    }
    memcpy(data_field, &block, sizeof block);
    *cap = grown;
    return true;
}

void
pmt__text_init(pmt__text_buffer *self, const pmt_allocator *allocator)
{
    memset(self, 0, sizeof *self);
    self->allocator = allocator;
}

void
pmt__text_dispose(pmt__text_buffer *self)
{
    pmt__release(self->allocator, self->data);
    self->data = NULL;
    self->len = self->cap = 0;
}

void
pmt__text_put(pmt__text_buffer *self, const void *bytes, size_t n)
{
    if (self->failed || n == 0) {
        return;
    }
    if (self->cap - self->len < n
        && !pmt__vec_reserve_(self->allocator, &self->data, &self->cap, self->len, n, 1)) {
        self->failed = true;
        return;
    }
    memcpy(self->data + self->len, bytes, n);
    self->len += n;
}

void
pmt__text_put_c(pmt__text_buffer *self, const char *text)
{
    pmt__text_put(self, text, strlen(text));
}

void
pmt__text_put_char(pmt__text_buffer *self, char c)
{
    pmt__text_put(self, &c, 1);
}

void
pmt__text_put_u64(pmt__text_buffer *self, uint64_t value)
{
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    pmt__text_put(self, digits + at, sizeof digits - at);
}
