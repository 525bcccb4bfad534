/* What --include, --exclude and --thread let through. */
#include <string.h>

#include "analyze/aggregate.h"
#include "base/error.h"
#include "base/glob.h"

enum {
    MATCHES_INCLUDE = 1,
    MATCHES_EXCLUDE = 2
};

/* A file matches by its whole path or by what follows any slash in it: reports show short paths. So does the object of a native frame. A module matches by its own name
   or by that of a package it is in: "app" is app.cache too; that of the program is __main__ as well. */
static bool
matches_path(const char *pattern, pmt_string path)
{
    for (size_t i = 0; i == 0 || i < path.len; i++) {
        if ((i == 0 || path.text[i - 1] == '/')
            && pmt__glob_match(pattern, path.text + i, path.len - i)) {
            return true;
        }
    }
    return false;
}

static bool
matches(const char *pattern, const pmt_frame *frame, bool is_main)
{
    if (matches_path(pattern, frame->file)
        || (frame->object.len != 0 && matches_path(pattern, frame->object))) {
        return true;
    }
    if (is_main && pmt__glob_match(pattern, "__main__", 8)) {
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
matches_any(const char *const *patterns, size_t count, const pmt_frame *frame, bool is_main)
{
    for (size_t i = 0; i < count; i++) {
        if (matches(patterns[i], frame, is_main)) {
            return true;
        }
    }
    return false;
}

static bool
is_module_frame(const pmt_reader *reader, const pmt__frame *frame)
{
    pmt_string name = pmt__reader_string(reader, frame->function);
    return name.len == 8 && memcmp(name.text, "<module>", 8) == 0;
}

static bool
is_native(const pmt__frame *frame)
{
    return frame->kind == PMT_FRAME_NATIVE || frame->kind == PMT_FRAME_INLINED;
}

/* Which frames are of the program's main file: one byte per frame. That file is the one whose top level nothing has called but
   the interpreter (runpy under -m, our launcher) and native functions. */
static int
find_main(uint8_t *frames, const pmt_reader *reader)
{
    enum {
        BELOW_NOTHING = 1 /* all frames of the stack are the interpreter's */
    };
    uint8_t *stacks = pmt__alloc_zeroed(reader->allocator, reader->stacks.len, 1);
    uint8_t *files = pmt__alloc_zeroed(reader->allocator, reader->strings.len, 1);
    if (stacks != NULL && files != NULL) {
        stacks[0] = BELOW_NOTHING;
        for (size_t i = 1; i < reader->stacks.len; i++) {
            const pmt__frame *frame = &reader->frames.data[reader->stacks.data[i].frame];
            if (stacks[reader->stacks.data[i].parent] != BELOW_NOTHING) {
                continue;
            }
            if ((frame->flags & PMT_FRAME_IS_INTERPRETER) || is_native(frame)) {
                stacks[i] = BELOW_NOTHING;
            } else if (is_module_frame(reader, frame)) {
                files[frame->file] = 1;
            }
        }
        for (size_t i = 0; i < reader->frames.len; i++) {
            frames[i] = !is_native(&reader->frames.data[i]) && files[reader->frames.data[i].file];
        }
    }
    int result = stacks == NULL || files == NULL ? PMT_ERR_NOMEM : PMT_OK;
    pmt__release(reader->allocator, stacks);
    pmt__release(reader->allocator, files);
    return result;
}

/* Which stacks the patterns let through. */
static int
filter_stacks(uint8_t **out, const pmt_reader *reader, const pmt_query *query, pmt_error *err)
{
    *out = NULL;
    if (query->include_count == 0 && query->exclude_count == 0) {
        return PMT_OK;
    }
    uint8_t *frames = pmt__alloc_zeroed(reader->allocator, reader->frames.len, 1);
    uint8_t *stacks = pmt__alloc_zeroed(reader->allocator, reader->stacks.len, 1);
    if (frames == NULL || stacks == NULL || find_main(frames, reader) < 0) {
        pmt__release(reader->allocator, frames);
        pmt__release(reader->allocator, stacks);
        return pmt__error_set(err, PMT_ERR_NOMEM, "out of memory");
    }
    for (size_t i = 0; i < reader->frames.len; i++) {
        pmt_frame frame = pmt_reader_frame(reader, (uint32_t)i);
        bool is_main = frames[i] != 0;
        bool included = matches_any(query->include, query->include_count, &frame, is_main);
        bool excluded = matches_any(query->exclude, query->exclude_count, &frame, is_main);
        frames[i] = (uint8_t)((included ? MATCHES_INCLUDE : 0) | (excluded ? MATCHES_EXCLUDE : 0));
    }
    for (size_t i = 1; i < reader->stacks.len; i++) {
        pmt__stack stack = reader->stacks.data[i];
        uint8_t above = stacks[stack.parent];
        uint8_t own = frames[stack.frame];
        /* Synthetic frames are passed over; native ones count like the line of Python that called them. */
        const pmt__frame *frame = &reader->frames.data[stack.frame];
        uint8_t excluded = frame->kind == PMT_FRAME_SYNTHETIC ? above
                           : is_native(frame)                 ? own | above
                                                              : own;
        stacks[i] = (uint8_t)(((own | above) & MATCHES_INCLUDE) | (excluded & MATCHES_EXCLUDE));
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
    uint64_t number = pmt__decimal((pmt_string){wanted, len}); /* no thread has the native id 0 */
    return number != 0 && number == thread->native_id;
}

/* Which threads are meant. */
static int
filter_threads(uint8_t **out, const pmt_reader *reader, const char *thread, pmt_error *err)
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

int
pmt__selection_init(pmt__selection *out, const pmt_reader *reader, const pmt_query *query,
                    pmt_error *err)
{
    *out = (pmt__selection){.stacks = NULL};
    int result = pmt__window_choose(&out->window, reader, query, err);
    if (result == PMT_OK) {
        result = filter_stacks(&out->stacks, reader, query, err);
    }
    if (result == PMT_OK) {
        result = filter_threads(&out->threads, reader, query->thread, err);
    }
    return result;
}

void
pmt__selection_dispose(pmt__selection *self, const pmt_allocator *allocator)
{
    pmt__release(allocator, self->stacks);
    pmt__release(allocator, self->threads);
}
