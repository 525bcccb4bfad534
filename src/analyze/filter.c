/* What --include, --exclude and --thread let through. */
#include <string.h>

#include "analyze/aggregate.h"
#include "base/error.h"
#include "base/glob.h"

enum {
    MATCHES_INCLUDE = 1,
    MATCHES_EXCLUDE = 2
};

/* A module matches by its own name or by that of a package it is in: "app" is app.cache too. */
static bool
matches(const char *pattern, const pmt_frame *frame)
{
    if (pmt__glob_match(pattern, frame->file.text, frame->file.len)) {
        return true;
    }
    for (size_t i = 0; i <= frame->module.len && frame->module.len != 0; i++) {
        if ((i == frame->module.len || frame->module.text[i] == '.')
            && pmt__glob_match(pattern, frame->module.text, i)) {
            return true;
        }
    }
    return false;
}

static bool
matches_any(const char *const *patterns, size_t count, const pmt_frame *frame)
{
    for (size_t i = 0; i < count; i++) {
        if (matches(patterns[i], frame)) {
            return true;
        }
    }
    return false;
}

int
pmt__filter_stacks(uint8_t **out, const pmt_reader *reader, const pmt_query *query, pmt_error *err)
{
    *out = NULL;
    if (query->include_count == 0 && query->exclude_count == 0) {
        return PMT_OK;
    }
    uint8_t *frames = pmt__alloc_zeroed(reader->allocator, reader->frames.len, 1);
    uint8_t *stacks = pmt__alloc_zeroed(reader->allocator, reader->stacks.len, 1);
    if (frames == NULL || stacks == NULL) {
        pmt__release(reader->allocator, frames);
        pmt__release(reader->allocator, stacks);
        return pmt__error_set(err, PMT_ERR_NOMEM, "out of memory");
    }
    for (size_t i = 0; i < reader->frames.len; i++) {
        pmt_frame frame = pmt_reader_frame(reader, (uint32_t)i);
        frames[i] =
            (uint8_t)((matches_any(query->include, query->include_count, &frame) ? MATCHES_INCLUDE
                                                                                 : 0)
                      | (matches_any(query->exclude, query->exclude_count, &frame) ? MATCHES_EXCLUDE
                                                                                   : 0));
    }
    for (size_t i = 1; i < reader->stacks.len; i++) {
        pmt__stack stack = reader->stacks.data[i];
        uint8_t above = stacks[stack.parent];
        uint8_t own = frames[stack.frame];
        bool synthetic = reader->frames.data[stack.frame].kind == PMT_FRAME_SYNTHETIC;
        stacks[i] = (uint8_t)(((own | above) & MATCHES_INCLUDE)
                              | ((synthetic ? above : own) & MATCHES_EXCLUDE));
    }
    for (size_t i = 0; i < reader->stacks.len; i++) {
        bool included = query->include_count == 0 || (stacks[i] & MATCHES_INCLUDE);
        stacks[i] = included && !(stacks[i] & MATCHES_EXCLUDE);
    }
    pmt__release(reader->allocator, frames);
    *out = stacks;
    return PMT_OK;
}

static bool
is_thread(const pmt_reader *reader, size_t at, const char *wanted)
{
    const pmt__stored_thread *thread = &reader->threads.data[at];
    pmt_string name = pmt__reader_string(reader, thread->name);
    size_t len = strlen(wanted);
    if (len != 0 && name.len == len && memcmp(name.text, wanted, len) == 0) {
        return true;
    }
    /* The native id in decimal, without leading zeros; no thread has the id 0. */
    uint64_t number = 0;
    for (size_t i = 0; i < len; i++) {
        if (wanted[i] < '0' || wanted[i] > '9' || number > UINT64_MAX / 10 - 1) {
            return false;
        }
        number = number * 10 + (uint64_t)(wanted[i] - '0');
    }
    return number != 0 && number == thread->native_id;
}

int
pmt__filter_threads(uint8_t **out, const pmt_reader *reader, const char *thread, pmt_error *err)
{
    *out = NULL;
    if (thread == NULL) {
        return PMT_OK;
    }
    uint8_t *marked = pmt__alloc_zeroed(reader->allocator, reader->threads.len, 1);
    if (marked == NULL) {
        return pmt__error_set(err, PMT_ERR_NOMEM, "out of memory");
    }
    bool found = false;
    for (size_t i = 0; i < reader->threads.len; i++) {
        marked[i] = is_thread(reader, i, thread);
        found = found || marked[i];
    }
    if (!found) {
        pmt__release(reader->allocator, marked);
        return pmt__error_set(err, PMT_ERR_ARGUMENT,
                              "no thread of the capture has the name or native id '%.100s'",
                              thread);
    }
    *out = marked;
    return PMT_OK;
}
