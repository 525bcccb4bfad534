/* Loading a capture: chunk by chunk, each section straight into the columns of store.h. */
#include "pymemtrace/reader.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "model/location.h"
#include "platform/input.h"
#include "store/intern.h"
#include "store/names.h"
#include "store/resident.h"
#include "store/samples.h"
#include "store/store.h"
#include "store/symbols.h"

#define PROC_LIMIT ((size_t)16 << 20)
#define PROGRESS_STEP ((uint64_t)1 << 20)

/* --- what only the loading needs --------------------------------------------------------------- */

typedef struct code {
    uint32_t file; /* strings */
    uint32_t function;
    uint32_t module;
    uint32_t flags; /* PMT_FRAME_IS_* */
    int64_t first_line;
    size_t table_at; /* location table in loader.tables */
    size_t table_size;
} code;

/* An instruction whose frame is known. */
typedef struct instruction {
    uint32_t code;
    uint32_t frame;
    uint64_t offset;
} instruction;

/* A site whose thread has no record yet. */
typedef struct stray {
    uint32_t site;
    uint32_t thread; /* its id */
} stray;
/* A native place whose frames are known: those of the source code, or one named by the place. */
typedef struct native_place {
    uint32_t object; /* string */
    uint64_t offset;
    size_t frames_at; /* in loader.native_frames, the outermost first */
    size_t frame_count;
} native_place;

typedef struct loader {
    pmt_reader *reader; /* owned by the caller */
    const pmt_allocator *allocator;
    pmt_error *err;
    pmt__interner intern;
    pmt__index instruction_index;
    pmt__index thread_index;
    PMT__VEC(uint32_t) string_ids; /* id in the file -> string */
    PMT__VEC(code) codes;          /* by id, 0 is not used */
    PMT__VEC(uint8_t) tables;
    PMT__VEC(instruction) instructions;
    PMT__VEC(uint32_t) node_stacks; /* by id, 0 = root */
    uint64_t data_end; /* behind the last chunk that was taken in; symbols may follow */
    size_t resolved;   /* sites below this name their thread by its place */
    PMT__VEC(stray) strays;
    pmt__symbols symbols;
    pmt__index native_index;
    PMT__VEC(native_place) natives;
    PMT__VEC(uint32_t) native_frames;
    pmt__index object_index; /* of the reader's objects, by path */
    bool hide_interpreter;
    pmt__text_buffer scratch;
    const pmt_fact *sys_path; /* borrowed, or NULL */
    pmt_string cwd;
} loader;

static int
no_memory(loader *self)
{
    return pmt__error_set(self->err, PMT_ERR_NOMEM, "out of memory while reading the capture");
}

/* --- PROC ------------------------------------------------------------------------------------ */

static pmt_string
get_text(pmt__cursor *in)
{
    uint64_t len = pmt__get_varint(in);
    const uint8_t *bytes = pmt__get_bytes(in, len);
    if (bytes == NULL) {
        return (pmt_string){"", 0};
    }
    return (pmt_string){(const char *)bytes, (size_t)len};
}

static int
get_list(loader *self, pmt__cursor *in, pmt_fact *fact)
{
    size_t count = pmt__get_count(in, 1);
    pmt_string *items = pmt__alloc_zeroed(self->allocator, count, sizeof *items);
    if (items == NULL) {
        return no_memory(self);
    }
    for (size_t i = 0; i < count; i++) {
        items[i] = get_text(in);
    }
    fact->items = items;
    fact->item_count = count;
    return PMT_OK;
}

static int
load_proc(loader *self, const pmt__chunk *chunk)
{
    pmt_reader *reader = self->reader;
    if (chunk->size > PROC_LIMIT) {
        return pmt__error_set_at(self->err, PMT_ERR_DAMAGED, (int64_t)chunk->offset,
                                 "the capture is damaged: %zu bytes of facts about the process, "
                                 "more than %zu",
                                 chunk->size, PROC_LIMIT);
    }
    reader->proc = pmt__alloc_zeroed(self->allocator, chunk->size, 1);
    if (reader->proc == NULL) {
        return no_memory(self);
    }
    if (chunk->size != 0) {
        memcpy(reader->proc, chunk->payload, chunk->size);
    }
    pmt__chunk copy = *chunk;
    copy.payload = reader->proc;
    pmt__cursor in;
    pmt__cursor_init(&in, &copy, "the facts of the process (PROC)", self->err);
    size_t count = pmt__get_count(&in, 3);
    for (size_t i = 0; i < count && in.code == PMT_OK; i++) {
        pmt_fact fact = {0};
        fact.text.text = "";
        fact.key = get_text(&in);
        fact.type = pmt__get_u8(&in);
        int result = PMT_OK;
        switch (fact.type) {
        case PMT_FACT_NUMBER:
            fact.number = pmt__get_varint(&in);
            break;
        case PMT_FACT_SIGNED:
            fact.signed_number = pmt__get_zigzag(&in);
            break;
        case PMT_FACT_TEXT:
            fact.text = get_text(&in);
            break;
        case PMT_FACT_LIST:
            result = get_list(self, &in, &fact);
            break;
        default:
            pmt__cursor_fail(&in, "a fact has the unknown type %d", fact.type);
        }
        if (result == PMT_OK && !PMT__VEC_PUSH(self->allocator, &reader->facts, fact)) {
            result = no_memory(self);
        }
        if (result < 0) {
            pmt__release(self->allocator, fact.items);
            return result;
        }
    }
    reader->has_proc = true;
    self->sys_path = pmt_reader_find_fact(reader, "sys_path");
    const pmt_fact *cwd = pmt_reader_find_fact(reader, "cwd");
    self->cwd = cwd == NULL ? (pmt_string){"", 0} : cwd->text;
    return in.code;
}

/* --- sections of DLTA -------------------------------------------------------------------------- */

/* "varint first id, varint count": ids have no gaps. Returns the count. */
static size_t
get_ids(pmt__cursor *in, size_t known, size_t min_size)
{
    uint64_t first = pmt__get_varint(in);
    if (in->code == PMT_OK && first != known) {
        pmt__cursor_fail(in, "ids start at %llu where %zu comes next", (unsigned long long)first,
                         known);
        return 0;
    }
    size_t count = pmt__get_count(in, min_size);
    if (count > UINT32_MAX - 1 - known) {
        pmt__cursor_fail(in, "more than 2^32 ids");
        return 0;
    }
    return count;
}

static uint32_t
get_string(loader *self, pmt__cursor *in)
{
    uint64_t id = pmt__get_varint(in);
    if (id >= self->string_ids.len) {
        pmt__cursor_fail(in, "a reference to text %llu, which is not defined",
                         (unsigned long long)id);
        return 0;
    }
    return self->string_ids.data[id];
}

static int
load_strings(loader *self, pmt__cursor *in)
{
    size_t count = get_ids(in, self->string_ids.len, 1);
    if (!PMT__VEC_RESERVE(self->allocator, &self->string_ids, count)) {
        return no_memory(self);
    }
    for (size_t i = 0; i < count; i++) {
        pmt_string text = get_text(in);
        uint32_t string;
        int result = pmt__intern_string(&self->intern, text.text, text.len, &string);
        if (result < 0) {
            return result;
        }
        self->string_ids.data[self->string_ids.len++] = string;
    }
    return in->code;
}

/* The module of a code object, and the flags of its frames. */
static int
name_module(loader *self, code *it)
{
    pmt_reader *reader = self->reader;
    if (it->module == 0) {
        self->scratch.len = 0;
        const pmt_fact *path = self->sys_path;
        pmt__module_name(&self->scratch, pmt__reader_string(reader, it->file),
                         path == NULL ? NULL : path->items, path == NULL ? 0 : path->item_count,
                         self->cwd);
        if (self->scratch.failed) {
            return no_memory(self);
        }
        int result =
            pmt__intern_string(&self->intern, self->scratch.data, self->scratch.len, &it->module);
        if (result < 0) {
            return result;
        }
    }
    it->flags = pmt__frame_flags(pmt__reader_string(reader, it->file),
                                 pmt__reader_string(reader, it->module));
    if (pmt__is_launcher(pmt__reader_string(reader, it->file))) {
        /* Nobody's lines: what starts the program is one place without a line. */
        it->flags = PMT_FRAME_IS_INTERPRETER;
        it->file = 0;
        it->table_size = 0;
        return pmt__intern_string(&self->intern, "[pymemtrace]", 12, &it->function);
    }
    return PMT_OK;
}

static int
load_codes(loader *self, pmt__cursor *in)
{
    size_t count = get_ids(in, self->codes.len, 7);
    if (!PMT__VEC_RESERVE(self->allocator, &self->codes, count)) {
        return no_memory(self);
    }
    for (size_t i = 0; i < count && in->code == PMT_OK; i++) {
        code it = {0};
        it.file = get_string(self, in);
        it.function = get_string(self, in);
        it.module = get_string(self, in);
        it.first_line = pmt__get_zigzag(in);
        pmt__get_varint(in); /* flags */
        pmt__get_varint(in); /* size of the bytecode */
        uint64_t table_size = pmt__get_varint(in);
        const uint8_t *table = pmt__get_bytes(in, table_size);
        if (table == NULL) {
            break;
        }
        it.table_at = self->tables.len;
        it.table_size = (size_t)table_size;
        int result = name_module(self, &it);
        if (result < 0) {
            return result;
        }
        if (!PMT__VEC_RESERVE(self->allocator, &self->tables, it.table_size)) {
            return no_memory(self);
        }
        if (it.table_size != 0) {
            memcpy(self->tables.data + self->tables.len, table, it.table_size);
        }
        self->tables.len += it.table_size;
        self->codes.data[self->codes.len++] = it;
    }
    return in->code;
}

/* The frame of an instruction: most nodes share one with another node, and walking the location
   table takes far longer than this look-up. */
static int
python_frame(loader *self, uint32_t code_id, uint64_t offset_and_1, uint32_t *out)
{
    uint64_t hash = pmt__hash_pair(code_id, offset_and_1);
    pmt__index_walk walk;
    uint32_t at = pmt__index_first(&walk, &self->instruction_index, hash);
    for (; at != PMT_INDEX_NONE; at = pmt__index_next(&walk)) {
        const instruction *known = &self->instructions.data[at];
        if (known->code == code_id && known->offset == offset_and_1) {
            *out = known->frame;
            return PMT_OK;
        }
    }
    const code *it = &self->codes.data[code_id];
    pmt__frame frame = {0};
    frame.kind = PMT_FRAME_PYTHON;
    frame.flags = (uint8_t)it->flags;
    frame.function = it->function;
    frame.file = it->file;
    frame.module = it->module;
    if (offset_and_1 != 0) {
        frame.line = pmt__location_line(self->tables.data + it->table_at, it->table_size,
                                        it->first_line, offset_and_1 - 1);
    }
    int result = pmt__intern_frame(&self->intern, &frame, out);
    if (result < 0) {
        return result;
    }
    at = (uint32_t)self->instructions.len;
    if (!pmt__index_add(&self->instruction_index, hash, at)
        || !PMT__VEC_PUSH(self->allocator, &self->instructions,
                          (instruction){code_id, *out, offset_and_1})) {
        return no_memory(self);
    }
    return PMT_OK;
}

/* What all frames of an object have: its path, its name as their module, whether it is the interpreter. */
static int
object_frame(loader *self, uint32_t object, pmt__frame *out)
{
    pmt_reader *reader = self->reader;
    const pmt_fact *executable = pmt_reader_find_fact(reader, "executable");
    pmt_string path = pmt__reader_string(reader, object);
    pmt_string program = executable == NULL ? (pmt_string){"", 0} : executable->text;
    *out = (pmt__frame){.kind = PMT_FRAME_NATIVE, .object = object};
    out->flags = pmt__is_interpreter(path, program) ? PMT_FRAME_IS_INTERPRETER : 0;
    self->scratch.len = 0; /* the pool moves when a text is added to it */
    pmt_string name = pmt__last_part(path);
    pmt__text_put(&self->scratch, name.text, name.len);
    return self->scratch.failed ? no_memory(self)
                                : pmt__intern_string(&self->intern, self->scratch.data,
                                                     self->scratch.len, &out->module);
}

/* Where nobody knows better, a frame is named by its place: "libx.so+0x1234". scratch: the object's name. */
static int
name_by_place(loader *self, uint64_t offset, uint32_t *out)
{
    char place[24];
    int n = snprintf(place, sizeof place, "+0x%llx", (unsigned long long)offset);
    pmt__text_put(&self->scratch, place, (size_t)n);
    return self->scratch.failed
               ? no_memory(self)
               : pmt__intern_string(&self->intern, self->scratch.data, self->scratch.len, out);
}

static int
add_native_frame(loader *self, const pmt__frame *frame)
{
    if (!PMT__VEC_RESERVE(self->allocator, &self->native_frames, 1)) {
        return no_memory(self);
    }
    size_t at = self->native_frames.len++;
    return pmt__intern_frame(&self->intern, frame, &self->native_frames.data[at]);
}

/* The frames of a place that comes for the first time. */
static int
add_native(loader *self, uint32_t object, uint64_t offset)
{
    pmt__frame frame;
    int result = object_frame(self, object, &frame);
    native_place place = {object, offset, self->native_frames.len, 0};
    const pmt__symbol *symbol = pmt__symbols_find(&self->symbols, object, offset);
    if (result < 0 || (self->hide_interpreter && frame.flags != 0)) {
        /* no frames */
    } else if (symbol == NULL || symbol->frame_count == 0) {
        frame.file = object;
        frame.module = 0;
        result = name_by_place(self, offset, &frame.function);
        if (result == PMT_OK) {
            result = add_native_frame(self, &frame);
        }
    } else {
        for (size_t i = symbol->frame_count; i-- > 0 && result == PMT_OK;) {
            const pmt__symbol_frame *it = &self->symbols.frames.data[symbol->frames_at + i];
            bool outermost = i == symbol->frame_count - 1;
            frame.kind = outermost ? PMT_FRAME_NATIVE : PMT_FRAME_INLINED;
            frame.function = it->function;
            frame.file = it->file == 0 && it->line == 0 ? object : it->file;
            frame.line = it->line;
            result = add_native_frame(self, &frame);
        }
    }
    if (result == PMT_OK && symbol == NULL
        && !PMT__VEC_PUSH(self->allocator, &self->reader->unresolved,
                          (pmt__stored_place){object, 0, offset})) {
        result = no_memory(self);
    }
    place.frame_count = self->native_frames.len - place.frames_at;
    if (result == PMT_OK
        && (!PMT__VEC_RESERVE(self->allocator, &self->natives, 1)
            || !pmt__index_add(&self->native_index, pmt__hash_pair(object, offset),
                               (uint32_t)self->natives.len))) {
        result = no_memory(self);
    }
    if (result == PMT_OK) {
        self->natives.data[self->natives.len++] = place;
    }
    return result;
}

/* The stack of a native node: nothing, one frame or several stand on that of its parent. */
static int
native_stack(loader *self, uint32_t parent, uint32_t object, uint64_t offset, uint32_t *out)
{
    pmt__index_walk walk;
    uint32_t at = pmt__index_first(&walk, &self->native_index, pmt__hash_pair(object, offset));
    while (
        at != PMT_INDEX_NONE
        && (self->natives.data[at].object != object || self->natives.data[at].offset != offset)) {
        at = pmt__index_next(&walk);
    }
    if (at == PMT_INDEX_NONE) {
        at = (uint32_t)self->natives.len;
        int result = add_native(self, object, offset);
        if (result < 0) {
            return result;
        }
    }
    native_place place = self->natives.data[at];
    *out = parent;
    for (size_t i = 0; i < place.frame_count; i++) {
        int result = pmt__intern_stack(&self->intern, *out,
                                       self->native_frames.data[place.frames_at + i], out);
        if (result < 0) {
            return result;
        }
    }
    return PMT_OK;
}

/* Reads what follows the kind and parent of a node that is not native; sets *out to its frame. */
static int
get_frame(loader *self, pmt__cursor *in, uint64_t kind, uint32_t *out)
{
    pmt__frame frame = {0};
    switch (kind) {
    case PMT_NODE_PYTHON: {
        uint64_t code_id = pmt__get_varint(in);
        uint64_t offset_and_1 = pmt__get_varint(in);
        if (code_id == 0 || code_id >= self->codes.len) {
            return pmt__cursor_fail(in, "a reference to code object %llu, which is not defined",
                                    (unsigned long long)code_id);
        }
        return python_frame(self, (uint32_t)code_id, offset_and_1, out);
    }
    case PMT_NODE_INLINED:
        frame.kind = PMT_FRAME_INLINED;
        frame.function = get_string(self, in);
        frame.file = get_string(self, in);
        frame.line = (int64_t)pmt__get_limited(in, INT32_MAX, "a line number");
        break;
    case PMT_NODE_SYNTHETIC:
        frame.kind = PMT_FRAME_SYNTHETIC;
        frame.flags = PMT_FRAME_IS_SYNTHETIC;
        frame.function = get_string(self, in);
        break;
    default:
        return pmt__cursor_fail(in, "a node of unknown kind %llu", (unsigned long long)kind);
    }
    return in->code != PMT_OK ? in->code : pmt__intern_frame(&self->intern, &frame, out);
}

static int
load_nodes(loader *self, pmt__cursor *in)
{
    size_t count = get_ids(in, self->node_stacks.len, 3);
    if (!PMT__VEC_RESERVE(self->allocator, &self->node_stacks, count)) {
        return no_memory(self);
    }
    for (size_t i = 0; i < count && in->code == PMT_OK; i++) {
        uint64_t id = self->node_stacks.len;
        uint64_t kind = pmt__get_varint(in);
        uint64_t up = pmt__get_varint(in);
        if (up == 0 || up > id) {
            return pmt__cursor_fail(in, "node %llu has no valid parent", (unsigned long long)id);
        }
        uint32_t parent = self->node_stacks.data[id - up];
        uint32_t frame = 0;
        uint32_t stack = 0;
        int result;
        if (kind == PMT_NODE_NATIVE) {
            uint32_t object = get_string(self, in);
            uint64_t offset = pmt__get_varint(in);
            result =
                in->code != PMT_OK ? in->code : native_stack(self, parent, object, offset, &stack);
        } else {
            result = get_frame(self, in, kind, &frame);
            if (result == PMT_OK) {
                result = pmt__intern_stack(&self->intern, parent, frame, &stack);
            }
        }
        if (result < 0) {
            return result;
        }
        self->node_stacks.data[self->node_stacks.len++] = stack;
    }
    return in->code;
}

static int
load_sites(loader *self, pmt__cursor *in)
{
    pmt_reader *reader = self->reader;
    size_t count = get_ids(in, reader->sites.len, 4);
    if (!PMT__VEC_RESERVE(self->allocator, &reader->sites, count)) {
        return no_memory(self);
    }
    uint64_t node = 0;
    for (size_t i = 0; i < count && in->code == PMT_OK; i++) {
        node += (uint64_t)pmt__get_zigzag(in);
        pmt__stored_site site;
        site.size = (uint16_t)pmt__get_limited(in, PMT_SIZE_LARGE, "the size of a site");
        site.domain = (uint8_t)pmt__get_limited(in, PMT_DOMAIN_COUNT - 1, "the domain of a site");
        site.thread = (uint32_t)pmt__get_limited(in, UINT32_MAX, "the thread of a site");
        if (node >= self->node_stacks.len || site.domain == 0) {
            pmt__cursor_fail(in, node >= self->node_stacks.len
                                     ? "a site refers to a node that is not defined"
                                     : "a site has no domain");
            break;
        }
        site.stack = self->node_stacks.data[node];
        reader->sites.data[reader->sites.len++] = site;
    }
    return in->code;
}

/* The place of the thread with this id, or PMT_INDEX_NONE. */
static uint32_t
find_thread(const loader *self, uint64_t id)
{
    pmt__index_walk walk;
    uint32_t at = pmt__index_first(&walk, &self->thread_index, pmt__hash_u64(id));
    while (at != PMT_INDEX_NONE && self->reader->threads.data[at].id != id) {
        at = pmt__index_next(&walk);
    }
    return at;
}

static int
put_thread(loader *self, const pmt__stored_thread *thread)
{
    pmt_reader *reader = self->reader;
    uint32_t at = find_thread(self, thread->id);
    if (at != PMT_INDEX_NONE) {
        reader->threads.data[at] = *thread;
        return PMT_OK;
    }
    if (!pmt__index_add(&self->thread_index, pmt__hash_u64(thread->id),
                        (uint32_t)reader->threads.len)
        || !PMT__VEC_PUSH(self->allocator, &reader->threads, *thread)) {
        return no_memory(self);
    }
    return PMT_OK;
}

static int
load_threads(loader *self, pmt__cursor *in)
{
    size_t count = pmt__get_count(in, 7);
    for (size_t i = 0; i < count && in->code == PMT_OK; i++) {
        pmt__stored_thread thread;
        thread.id = pmt__get_limited(in, UINT32_MAX, "the id of a thread");
        thread.native_id = pmt__get_varint(in);
        thread.python_id = pmt__get_varint(in);
        thread.birth_ns = pmt__get_varint(in);
        thread.name = get_string(self, in);
        thread.flags = pmt__get_varint(in);
        thread.interpreter = pmt__get_varint(in);
        if (in->code == PMT_OK) {
            int result = put_thread(self, &thread);
            if (result < 0) {
                return result;
            }
        }
    }
    return in->code;
}

static int
load_marks(loader *self, pmt__cursor *in)
{
    size_t count = pmt__get_count(in, 3);
    for (size_t i = 0; i < count && in->code == PMT_OK; i++) {
        pmt__stored_mark mark;
        mark.epoch = pmt__get_varint(in);
        mark.t_ns = pmt__get_varint(in);
        mark.label = get_string(self, in);
        if (in->code == PMT_OK && !PMT__VEC_PUSH(self->allocator, &self->reader->marks, mark)) {
            return no_memory(self);
        }
    }
    return in->code;
}

static int
load_sizes(loader *self, pmt__cursor *in)
{
    size_t count = pmt__get_count(in, 3);
    for (size_t i = 0; i < count && in->code == PMT_OK; i++) {
        pmt__size_class *class =
            &self->reader->large_sizes[pmt__get_limited(in, 63, "a size class")];
        class->allocations += pmt__get_varint(in);
        class->bytes += pmt__get_varint(in);
    }
    return in->code;
}

static int
load_lifetimes(loader *self, pmt__cursor *in)
{
    pmt_reader *reader = self->reader;
    uint64_t site = 0;
    uint64_t birth = 0;
    size_t count = pmt__get_count(in, 4);
    for (size_t i = 0; i < count && in->code == PMT_OK; i++) {
        site += (uint64_t)pmt__get_zigzag(in);
        birth += (uint64_t)pmt__get_zigzag(in);
        if (in->code == PMT_OK && (site == 0 || site >= reader->sites.len)) {
            return pmt__cursor_fail(in, "a lifetime refers to site %llu", (unsigned long long)site);
        }
        pmt__stored_lifetime it = {.birth = birth, .cut = reader->cuts.len};
        it.site = in->code == PMT_OK ? (uint32_t)site : 0;
        it.age = pmt__get_varint(in);
        it.blocks = pmt__get_varint(in);
        uint16_t size = reader->sites.data[it.site].size;
        it.bytes = size == PMT_SIZE_LARGE ? pmt__get_varint(in) : it.blocks * size;
        if (in->code == PMT_OK && !PMT__VEC_PUSH(self->allocator, &reader->lifetimes, it)) {
            return no_memory(self);
        }
    }
    return in->code;
}

/* The place of the object with this path, or PMT_INDEX_NONE. */
static uint32_t
find_object(const loader *self, uint32_t path)
{
    pmt__index_walk walk;
    uint32_t at = pmt__index_first(&walk, &self->object_index, pmt__hash_u64(path));
    while (at != PMT_INDEX_NONE && self->reader->objects.data[at].path != path) {
        at = pmt__index_next(&walk);
    }
    return at;
}

static int
load_objects(loader *self, pmt__cursor *in)
{
    pmt_reader *reader = self->reader;
    size_t count = pmt__get_count(in, 2);
    for (size_t i = 0; i < count && in->code == PMT_OK; i++) {
        pmt__stored_object object = {.path = get_string(self, in)};
        uint64_t size = pmt__get_limited(in, PMT_BUILD_ID_MAX, "the length of a build id");
        const uint8_t *bytes = pmt__get_bytes(in, size);
        if (bytes == NULL) {
            break;
        }
        object.build_id_size = (uint8_t)size;
        memcpy(object.build_id, bytes, object.build_id_size);
        uint32_t at = find_object(self, object.path);
        if (at != PMT_INDEX_NONE) {
            reader->objects.data[at] = object;
            continue;
        }
        at = (uint32_t)reader->objects.len;
        if (!pmt__index_add(&self->object_index, pmt__hash_u64(object.path), at)
            || !PMT__VEC_PUSH(self->allocator, &reader->objects, object)) {
            return no_memory(self);
        }
    }
    return in->code;
}

static int
load_cut(loader *self, pmt__cursor *in)
{
    pmt_reader *reader = self->reader;
    pmt_cut cut;
    cut.number = pmt__get_varint(in);
    cut.t_ns = pmt__get_varint(in);
    cut.span_ns = pmt__get_varint(in);
    cut.unix_ns = pmt__get_varint(in);
    cut.flags = pmt__get_varint(in);
    cut.epoch = pmt__get_varint(in);
    cut.live_bytes = pmt__get_varint(in);
    cut.live_blocks = pmt__get_varint(in);
    cut.allocations = pmt__get_varint(in);
    cut.frees = pmt__get_varint(in);
    cut.allocated_bytes = pmt__get_varint(in);
    cut.peak_bytes = pmt__get_varint(in);
    cut.peak_blocks = pmt__get_varint(in);
    cut.peak_t_ns = pmt__get_varint(in);
    cut.rss_bytes = pmt__get_varint(in);
    for (size_t i = 0; i < 3; i++) {
        cut.gc[i] = pmt__get_varint(in);
    }
    cut.own_bytes = pmt__get_varint(in);
    size_t counters = pmt__get_count(in, 2);
    for (size_t i = 0; i < counters; i++) {
        uint64_t which = pmt__get_varint(in);
        uint64_t value = pmt__get_varint(in);
        if (which < PMT_COUNTERS) {
            reader->counters[which] = value;
        }
    }
    size_t row_count = pmt__get_count(in, 5);
    if (in->code != PMT_OK) {
        return in->code;
    }
    if (reader->cuts.len != 0) {
        const pmt_cut *before = &reader->cuts.data[reader->cuts.len - 1];
        if (cut.t_ns < before->t_ns || cut.epoch < before->epoch) {
            return pmt__cursor_fail(in, "cut %llu lies before the one that precedes it",
                                    (unsigned long long)cut.number);
        }
    }
    pmt__rows rows = {0};
    rows.size = (size_t)(in->end - in->at);
    rows.count = row_count;
    rows.site_limit = reader->sites.len;
    rows.offset = (uint64_t)in->offset;
    if (!PMT__VEC_RESERVE(self->allocator, &reader->cuts, 1)
        || !PMT__VEC_RESERVE(self->allocator, &reader->rows, 1)) {
        return no_memory(self);
    }
    uint8_t *bytes = pmt__alloc_zeroed(self->allocator, rows.size, 1);
    if (bytes == NULL) {
        return no_memory(self);
    }
    if (rows.size != 0) {
        memcpy(bytes, in->at, rows.size);
    }
    rows.bytes = bytes;
    reader->cuts.data[reader->cuts.len++] = cut;
    reader->rows.data[reader->rows.len++] = rows;

    /* Check them now, so that an analysis cannot meet anything wrong. */
    pmt__row_walk walk;
    pmt__row row;
    pmt__rows_begin(&walk, reader, reader->cuts.len - 1, self->err);
    while (pmt__rows_next(&walk, &row)) {
    }
    if (walk.cursor.code == PMT_OK && walk.cursor.at != walk.cursor.end) {
        pmt__cursor_fail(&walk.cursor, "bytes behind the last row");
    }
    return walk.cursor.code;
}

static int
load_delta(loader *self, const pmt__chunk *chunk)
{
    pmt__cursor in;
    pmt__cursor_init(&in, chunk, "a flush (DLTA)", self->err);
    bool has_cut = false;
    while (in.at < in.end) {
        uint8_t kind = pmt__get_u8(&in);
        uint64_t size = pmt__get_varint(&in);
        pmt__cursor body;
        pmt__cursor_take(&in, &body, size, "a section");
        if (has_cut) {
            return pmt__cursor_fail(&in, "a section behind CUT");
        }
        int result = in.code;
        if (result < 0) {
            return result;
        }
        switch (kind) {
        case PMT_SECTION_STRINGS:
            body.what = "STRINGS";
            result = load_strings(self, &body);
            break;
        case PMT_SECTION_CODES:
            body.what = "CODES";
            result = load_codes(self, &body);
            break;
        case PMT_SECTION_NODES:
            body.what = "NODES";
            result = load_nodes(self, &body);
            break;
        case PMT_SECTION_SITES:
            body.what = "SITES";
            result = load_sites(self, &body);
            break;
        case PMT_SECTION_THREADS:
            body.what = "THREADS";
            result = load_threads(self, &body);
            break;
        case PMT_SECTION_MARKS:
            body.what = "MARKS";
            result = load_marks(self, &body);
            break;
        case PMT_SECTION_CUT:
            body.what = "CUT";
            result = load_cut(self, &body);
            has_cut = true;
            break;
        case PMT_SECTION_SIZES:
            body.what = "SIZES";
            result = load_sizes(self, &body);
            break;
        case PMT_SECTION_RESIDENT:
            body.what = "RESIDENT";
            result = pmt__reader_add_resident(self->reader, &body, self->err);
            break;
        case PMT_SECTION_SAMPLES:
            body.what = "SAMPLES";
            result = pmt__reader_add_samples(self->reader, &body, self->err);
            break;
        case PMT_SECTION_LIFETIMES:
            body.what = "LIFETIMES";
            result = load_lifetimes(self, &body);
            break;
        case PMT_SECTION_OBJECTS:
            body.what = "OBJECTS";
            result = load_objects(self, &body);
            break;
        default:
            if (kind >= 128) {
                return pmt__cursor_fail(&in, "section %u is not known and must not be skipped",
                                        kind);
            }
            body.at = body.end;
        }
        if (result == PMT_OK && kind != PMT_SECTION_CUT && body.at != body.end) {
            result = pmt__cursor_fail(&body, "bytes behind its last entry");
        }
        if (result < 0) {
            return result;
        }
    }
    if (!has_cut && in.code == PMT_OK) {
        pmt__cursor_fail(&in, "it has no cut");
    }
    return in.code;
}

static int
load_end(loader *self, const pmt__chunk *chunk)
{
    pmt__cursor in;
    pmt__cursor_init(&in, chunk, "END", self->err);
    pmt__get_varint(&in); /* reason */
    self->reader->end_t_ns = pmt__get_varint(&in);
    self->reader->has_end = in.code == PMT_OK;
    if (in.code == PMT_OK && in.at < in.end) {
        uint64_t how = pmt__get_varint(&in);
        uint64_t status = pmt__get_varint(&in);
        if (in.code == PMT_OK && how <= PMT_MAIN_RAISED) {
            self->reader->main_ended = (uint32_t)how;
            self->reader->exit_status = status;
        }
    }
    return in.code;
}

/* --- the whole file -------------------------------------------------------------------------- */

static int
loader_init(loader *self, pmt_reader *reader, pmt_error *err)
{
    memset(self, 0, sizeof *self);
    self->reader = reader;
    self->allocator = reader->allocator;
    self->err = err;
    pmt__interner_init(&self->intern, reader, err);
    pmt__index_init(&self->instruction_index, self->allocator);
    pmt__index_init(&self->thread_index, self->allocator);
    pmt__index_init(&self->native_index, self->allocator);
    pmt__index_init(&self->object_index, self->allocator);
    pmt__symbols_init(&self->symbols, self->allocator);
    pmt__text_init(&self->scratch, self->allocator);
    self->cwd = (pmt_string){"", 0};
    self->resolved = 1; /* site 0 is not used */

    /* What has the place 0 in each column: the empty text, no code object, the root, no site, the
       unknown thread. */
    const pmt__stored_thread unknown = {0};
    if (!PMT__VEC_PUSH(self->allocator, &self->string_ids, 0)
        || !PMT__VEC_PUSH(self->allocator, &self->codes, (code){0})
        || !PMT__VEC_RESERVE(self->allocator, &self->tables, 1)
        || !PMT__VEC_PUSH(self->allocator, &self->node_stacks, 0)) {
        return no_memory(self);
    }
    int result = pmt__interner_begin(&self->intern);
    return result < 0 ? result : put_thread(self, &unknown);
}

static void
loader_dispose(loader *self)
{
    pmt__interner_dispose(&self->intern);
    pmt__index_dispose(&self->instruction_index);
    pmt__index_dispose(&self->thread_index);
    pmt__index_dispose(&self->native_index);
    pmt__index_dispose(&self->object_index);
    pmt__symbols_dispose(&self->symbols);
    PMT__VEC_DISPOSE(self->allocator, &self->natives);
    PMT__VEC_DISPOSE(self->allocator, &self->native_frames);
    PMT__VEC_DISPOSE(self->allocator, &self->string_ids);
    PMT__VEC_DISPOSE(self->allocator, &self->codes);
    PMT__VEC_DISPOSE(self->allocator, &self->tables);
    PMT__VEC_DISPOSE(self->allocator, &self->instructions);
    PMT__VEC_DISPOSE(self->allocator, &self->node_stacks);
    PMT__VEC_DISPOSE(self->allocator, &self->strays);
    pmt__text_dispose(&self->scratch);
}

static int
load_chunk(loader *self, const pmt__chunk *chunk)
{
    pmt_reader *reader = self->reader;
    bool is_proc = strcmp(chunk->kind, "PROC") == 0;
    if (is_proc == reader->has_proc) {
        return pmt__error_set_at(self->err, PMT_ERR_DAMAGED, (int64_t)chunk->offset,
                                 is_proc ? "the capture is damaged: a second PROC chunk"
                                         : "the capture is damaged: it does not start with PROC");
    }
    if (is_proc) {
        return load_proc(self, chunk);
    }
    if (strcmp(chunk->kind, "DLTA") == 0) {
        return load_delta(self, chunk);
    }
    if (strcmp(chunk->kind, "EVTS") == 0) {
        return pmt__reader_add_events(reader, chunk, self->err);
    }
    if (strcmp(chunk->kind, "END ") == 0) {
        return load_end(self, chunk);
    }
    return PMT_OK;
}

/* Symbols stand at the end and are needed first: when nodes become stacks. */
static int
load_symbols(loader *self, const pmt__source *source, const pmt_reader_options *options)
{
    pmt__chunk_reader chunks;
    pmt__chunk_reader_init(&chunks, source, self->reader->header.size, self->allocator);
    pmt__chunk chunk;
    int result = PMT_OK;
    while (!options->ignore_symbols
           && (result = pmt__chunk_next_of(&chunks, "SYMB", &chunk, self->err)) == 1) {
        result = pmt__symbols_load(&self->symbols, &chunk, &self->intern, self->err);
        if (result < 0) {
            break;
        }
    }
    if (result == PMT_OK && options->symbols != NULL) {
        chunk = (pmt__chunk){.payload = options->symbols, .size = options->symbols_size};
        result = pmt__symbols_load(&self->symbols, &chunk, &self->intern, self->err);
    }
    pmt__chunk_reader_dispose(&chunks);
    return result;
}

/* Where a further chunk would come. Behind END there are symbols, which are read by now. */
static int
find_end(loader *self, pmt__chunk_reader *chunks)
{
    pmt__chunk chunk;
    pmt_error err = PMT_ERROR_INIT;
    int result = PMT_OK;
    while (self->reader->has_end && (result = pmt__chunk_next(chunks, &chunk, &err)) == 1) {
    }
    self->reader->end_offset = chunks->next_offset;
    if (result != PMT_ERR_VERSION) { /* something that must not be skipped does not matter here */
        self->reader->end_sequence = chunks->next_sequence;
        if (result < 0 && self->err != NULL) {
            *self->err = err;
        }
        return result;
    }
    return PMT_OK;
}

/* What there is behind the chunks that were read before. */
static int
load_chunks(loader *self, pmt__chunk_reader *chunks, const pmt_reader_options *options)
{
    pmt_reader *reader = self->reader;
    uint64_t reported = 0;
    int result = PMT_OK;
    while (!reader->has_end) {
        pmt__chunk chunk;
        result = pmt__chunk_next(chunks, &chunk, self->err);
        if (result <= 0) {
            break;
        }
        result = load_chunk(self, &chunk);
        if (result < 0) {
            break;
        }
        if (options->progress != NULL && chunk.end - reported >= PROGRESS_STEP) {
            reported = chunk.end;
            if (options->progress(options->context, chunk.end, chunks->source.size) != 0) {
                result = pmt__error_set(self->err, PMT_ERR_STATE, "reading was interrupted");
                break;
            }
        }
    }
    if (result == PMT_OK && !reader->has_proc) {
        result = pmt__error_set(self->err, PMT_ERR_DAMAGED, "the capture holds nothing: %s",
                                chunks->stop[0] != '\0' ? chunks->stop
                                                        : "it ends behind its file header");
    }
    reader->damaged = false;
    reader->torn[0] = '\0';
    if (result == PMT_OK && !reader->has_end) {
        memcpy(reader->torn, chunks->stop, sizeof reader->torn);
        /* The slot was read before the chunks: what it says was complete then. */
        if (reader->has_slot
            && (reader->slot.data_end > chunks->next_offset
                || reader->slot.status == PMT_STATUS_ENDED)) {
            reader->damaged = true;
            if (reader->torn[0] == '\0') {
                snprintf(reader->torn, sizeof reader->torn,
                         "the file ends before its data do (at offset %llu)",
                         (unsigned long long)chunks->next_offset);
            }
        }
    }
    self->data_end = chunks->next_offset;
    if (result == PMT_OK) {
        result = find_end(self, chunks);
    }
    return result;
}

static void
resolve_objects(loader *self)
{
    for (size_t i = 0; i < self->reader->unresolved.len; i++) {
        pmt__stored_place *place = &self->reader->unresolved.data[i];
        uint32_t at = find_object(self, place->path);
        place->object = at == PMT_INDEX_NONE ? 0 : at + 1;
    }
}

/* Sites name threads by id, and a thread's record may follow its first site. */
static int
resolve_threads(loader *self)
{
    pmt_reader *reader = self->reader;
    size_t left = 0;
    for (size_t i = 0; i < self->strays.len; i++) {
        stray it = self->strays.data[i];
        uint32_t at = find_thread(self, it.thread);
        if (at == PMT_INDEX_NONE) {
            self->strays.data[left++] = it;
        } else {
            reader->sites.data[it.site].thread = at;
        }
    }
    self->strays.len = left;
    for (; self->resolved < reader->sites.len; self->resolved++) {
        pmt__stored_site *site = &reader->sites.data[self->resolved];
        stray it = {(uint32_t)self->resolved, site->thread};
        uint32_t at = find_thread(self, it.thread);
        site->thread = at == PMT_INDEX_NONE ? 0 : at;
        if (at == PMT_INDEX_NONE && !PMT__VEC_PUSH(self->allocator, &self->strays, it)) {
            return no_memory(self);
        }
    }
    return PMT_OK;
}

static bool
string_equals(pmt_string text, const char *other)
{
    return strlen(other) == text.len && memcmp(text.text, other, text.len) == 0;
}

static uint64_t
fact_number(const pmt_reader *self, const char *key)
{
    const pmt_fact *fact = pmt_reader_find_fact(self, key);
    return fact == NULL ? 0 : fact->number;
}

bool
pmt__reader_process_runs(const pmt_reader *self)
{
    char boot_id[64];
    pmt__boot_id_get(boot_id);
    const pmt_fact *fact = pmt_reader_find_fact(self, "boot_id");
    return boot_id[0] != '\0' && fact != NULL && string_equals(fact->text, boot_id)
           && pmt__process_is_alive(fact_number(self, "pid"), fact_number(self, "start_ticks"));
}

static pmt_ended
find_ended(const pmt_reader *self)
{
    if (self->has_end || (self->has_slot && self->slot.status == PMT_STATUS_ENDED)) {
        return PMT_ENDED_NORMAL;
    }
    if ((!self->has_slot || self->slot.status == PMT_STATUS_RECORDING)
        && pmt__reader_process_runs(self)) {
        return PMT_ENDED_RUNNING;
    }
    return PMT_ENDED_KILLED;
}

/* Reading that can go on where it has stopped. */
struct pmt_follower {
    pmt_reader *reader; /* owned */
    loader loader;
    pmt__chunk_reader chunks;
    char *path; /* owned, or NULL: it is not followed */
    bool broken;
};

static const pmt_reader_options defaults = {.allocator = NULL};

/* An error leaves nothing to dispose of. */
static int
begin(pmt_follower *self, const pmt__source *source, const pmt_reader_options *options,
      pmt_error *err)
{
    const pmt_allocator *allocator =
        options->allocator == NULL ? pmt_allocator_default() : options->allocator;
    memset(self, 0, sizeof *self);
    self->reader = pmt__alloc_zeroed(allocator, 1, sizeof *self->reader);
    if (self->reader == NULL) {
        return pmt__error_set(err, PMT_ERR_NOMEM, "out of memory");
    }
    self->reader->allocator = allocator;
    int result = loader_init(&self->loader, self->reader, err);
    if (result == PMT_OK) {
        result = pmt__header_read(&self->reader->header, source, err);
    }
    if (result == PMT_OK) {
        self->loader.hide_interpreter = options->hide_interpreter != 0;
        result = load_symbols(&self->loader, source, options);
    }
    if (result < 0) {
        loader_dispose(&self->loader);
        pmt_reader_destroy(self->reader);
        self->reader = NULL;
        return result;
    }
    pmt__chunk_reader_init(&self->chunks, source, self->reader->header.size, allocator);
    return PMT_OK;
}

static int
read_on(pmt_follower *self, const pmt_reader_options *options, pmt_error *err)
{
    pmt_reader *reader = self->reader;
    self->loader.err = self->loader.intern.err = err;
    int result = pmt__slot_read(&reader->slot, &reader->has_slot, &self->chunks.source, err);
    if (result == PMT_OK) {
        /* The writer appends first and updates the slot then: a size that is asked for after the slot
           was read covers all that the slot says is there. */
        result = pmt__source_refresh(&self->chunks.source, err);
    }
    if (result == PMT_OK) {
        result = load_chunks(&self->loader, &self->chunks, options);
    }
    if (result == PMT_OK) {
        result = resolve_threads(&self->loader);
    }
    if (result == PMT_OK) {
        resolve_objects(&self->loader);
        reader->fork_epoch = fact_number(reader, "fork_epoch");
        reader->ended = find_ended(reader);
        if (reader->ended == PMT_ENDED_RUNNING && !reader->damaged) {
            reader->torn[0] = '\0'; /* a chunk that is being written right now */
        }
    }
    return result;
}

static void
finish(pmt_follower *self)
{
    loader_dispose(&self->loader);
    pmt__chunk_reader_dispose(&self->chunks);
}

static int
open_source(pmt_reader **out, const pmt__source *source, const pmt_reader_options *options,
            pmt_error *err)
{
    options = options == NULL ? &defaults : options;
    *out = NULL;
    pmt_follower it;
    int result = begin(&it, source, options, err);
    if (result < 0) {
        return result;
    }
    result = read_on(&it, options, err);
    finish(&it);
    if (result < 0) {
        pmt_reader_destroy(it.reader);
        return result;
    }
    *out = it.reader;
    return PMT_OK;
}

static int
open_file(pmt__source *out, const char *path, pmt_error *err)
{
    *out = (pmt__source){NULL, -1, 0};
    out->fd = pmt__input_open(path, &out->size);
    return out->fd < 0 ? pmt__error_set_errno(err, PMT_ERR_IO, -out->fd, "cannot read %s", path)
                       : PMT_OK;
}

static void
name_file(pmt_error *err, const char *path, const pmt_error *inner)
{
    if (err != NULL) {
        *err = *inner;
        snprintf(err->message, sizeof err->message, "%.*s: %.*s", 160, path, 220, inner->message);
    }
}

int
pmt_reader_open(pmt_reader **out, const char *path, const pmt_reader_options *options,
                pmt_error *err)
{
    *out = NULL;
    pmt__source source;
    int result = open_file(&source, path, err);
    if (result < 0) {
        return result;
    }
    pmt_error inner = PMT_ERROR_INIT;
    result = open_source(out, &source, options, &inner);
    pmt__input_close(source.fd);
    if (result < 0) {
        name_file(err, path, &inner);
    }
    return result;
}

int
pmt_reader_open_bytes(pmt_reader **out, const void *bytes, size_t size,
                      const pmt_reader_options *options, pmt_error *err)
{
    pmt__source source = {size == 0 ? (const uint8_t *)"" : bytes, -1, size};
    return open_source(out, &source, options, err);
}

/* --- following ------------------------------------------------------------------------------- */

/* `self` is zeroed, and for the caller to destroy also after an error. */
static int
follow(pmt_follower *self, const pmt__source *source, const char *path,
       const pmt_reader_options *options, pmt_error *err)
{
    int result = begin(self, source, options, err);
    if (result < 0) {
        return result;
    }
    const pmt_allocator *allocator = self->reader->allocator;
    self->path = pmt__alloc_zeroed(allocator, strlen(path) + 1, 1);
    self->reader->running = pmt__alloc_zeroed(allocator, 1, sizeof *self->reader->running);
    if (self->path == NULL || self->reader->running == NULL) {
        return pmt__error_set(err, PMT_ERR_NOMEM, "out of memory");
    }
    memcpy(self->path, path, strlen(path));
    return read_on(self, options, err);
}

int
pmt_follower_open(pmt_follower **out, const char *path, const pmt_reader_options *options,
                  pmt_error *err)
{
    options = options == NULL ? &defaults : options;
    const pmt_allocator *allocator =
        options->allocator == NULL ? pmt_allocator_default() : options->allocator;
    *out = NULL;
    pmt__source source;
    int result = open_file(&source, path, err);
    if (result < 0) {
        return result;
    }
    pmt_error inner = PMT_ERROR_INIT;
    pmt_follower *self = pmt__alloc_zeroed(allocator, 1, sizeof *self);
    result = self == NULL ? pmt__error_set(&inner, PMT_ERR_NOMEM, "out of memory")
                          : follow(self, &source, path, options, &inner);
    if (result < 0) {
        name_file(err, path, &inner);
        if (self != NULL && self->reader != NULL) {
            pmt_follower_destroy(self); /* closes the file */
        } else {
            pmt__release(allocator, self);
            pmt__input_close(source.fd);
        }
        return result;
    }
    *out = self;
    return PMT_OK;
}

/* Is what was read still the beginning of what is at the path? */
static int
check_file(const pmt_follower *self, pmt_error *err)
{
    const pmt__source *source = &self->chunks.source;
    if (pmt__input_is_replaced(source->fd, self->path)) {
        return pmt__error_set(err, PMT_ERR_STATE, "another file has taken its place");
    }
    pmt__header header;
    int result = pmt__header_read(&header, source, err);
    if (result < 0) {
        return result;
    }
    pmt__source now = *source;
    result = pmt__source_refresh(&now, err);
    if (result == PMT_OK
        && (memcmp(header.id, self->reader->header.id, sizeof header.id) != 0
            || now.size + 7 < self->chunks.next_offset)) { /* at most 7 bytes of padding */
        return pmt__error_set(err, PMT_ERR_STATE, "the file is not what it was");
    }
    return result;
}

int
pmt_follower_refresh(pmt_follower *self, pmt_error *err)
{
    if (self->broken) {
        return pmt__error_set(err, PMT_ERR_STATE, "there is no more to be had: open it anew");
    }
    uint64_t before = self->chunks.next_offset;
    pmt_ended ended_before = self->reader->ended;
    pmt_error inner = PMT_ERROR_INIT;
    int result = check_file(self, &inner);
    if (result == PMT_OK) {
        result = read_on(self, &defaults, &inner);
    }
    if (result == PMT_OK && self->chunks.next_offset != self->loader.data_end) {
        result = pmt__error_set(&inner, PMT_ERR_STATE, "names have been added to it");
    }
    if (result < 0) {
        self->broken = true;
        name_file(err, self->path, &inner);
        return result;
    }
    return self->chunks.next_offset != before || self->reader->ended != ended_before;
}

const pmt_reader *
pmt_follower_reader(const pmt_follower *self)
{
    return self->reader;
}

void
pmt_follower_destroy(pmt_follower *self)
{
    if (self == NULL) {
        return;
    }
    const pmt_allocator *allocator = self->reader->allocator;
    int fd = self->chunks.source.fd;
    finish(self);
    pmt_reader_destroy(self->reader);
    pmt__input_close(fd);
    pmt__release(allocator, self->path);
    pmt__release(allocator, self);
}

void
pmt_reader_destroy(pmt_reader *self)
{
    if (self == NULL) {
        return;
    }
    const pmt_allocator *allocator = self->allocator;
    for (size_t i = 0; i < self->facts.len; i++) {
        pmt__release(allocator, self->facts.data[i].items);
    }
    for (size_t i = 0; i < self->rows.len; i++) {
        pmt__release(allocator, self->rows.data[i].bytes);
    }
    pmt__release(allocator, self->proc);
    PMT__VEC_DISPOSE(allocator, &self->facts);
    PMT__VEC_DISPOSE(allocator, &self->pool);
    PMT__VEC_DISPOSE(allocator, &self->strings);
    PMT__VEC_DISPOSE(allocator, &self->frames);
    PMT__VEC_DISPOSE(allocator, &self->stacks);
    PMT__VEC_DISPOSE(allocator, &self->sites);
    PMT__VEC_DISPOSE(allocator, &self->threads);
    PMT__VEC_DISPOSE(allocator, &self->marks);
    PMT__VEC_DISPOSE(allocator, &self->cuts);
    PMT__VEC_DISPOSE(allocator, &self->rows);
    PMT__VEC_DISPOSE(allocator, &self->lifetimes);
    PMT__VEC_DISPOSE(allocator, &self->event_chunks);
    PMT__VEC_DISPOSE(allocator, &self->resident_bytes);
    PMT__VEC_DISPOSE(allocator, &self->moments);
    PMT__VEC_DISPOSE(allocator, &self->sample_bytes);
    PMT__VEC_DISPOSE(allocator, &self->samples);
    if (self->running != NULL) {
        PMT__VEC_DISPOSE(allocator, &self->running->sites);
        pmt__release(allocator, self->running);
    }
    PMT__VEC_DISPOSE(allocator, &self->objects);
    PMT__VEC_DISPOSE(allocator, &self->unresolved);
    pmt__release(allocator, self);
}
