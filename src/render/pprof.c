/* profile.proto by hand: a handful of field numbers do not need a library.

   A protocol buffer message is a sequence of fields: a varint (number << 3 | wire type), then for type
   0 a varint, for type 2 a length and that many bytes (https://protobuf.dev/programming-guides/encoding).
   Numbers are those of github.com/google/pprof, proto/profile.proto. */
#include "render/render.h"

#include "analyze/combine.h"
#include "base/error.h"
#include "base/index.h"
#include "base/varint.h"
#include "render/text.h"

enum {
    PROFILE_SAMPLE_TYPE = 1,
    PROFILE_SAMPLE = 2,
    PROFILE_MAPPING = 3,
    PROFILE_LOCATION = 4,
    PROFILE_FUNCTION = 5,
    PROFILE_STRING_TABLE = 6,
    PROFILE_TIME_NANOS = 9,
    PROFILE_DURATION_NANOS = 10,
    PROFILE_PERIOD_TYPE = 11,
    PROFILE_PERIOD = 12,
    PROFILE_COMMENT = 13,
    PROFILE_DEFAULT_SAMPLE_TYPE = 14,
    VALUE_TYPE_TYPE = 1,
    VALUE_TYPE_UNIT = 2,
    SAMPLE_LOCATION_ID = 1,
    SAMPLE_VALUE = 2,
    MAPPING_ID = 1,
    MAPPING_FILENAME = 5,
    MAPPING_HAS_FUNCTIONS = 7,
    MAPPING_HAS_FILENAMES = 8,
    MAPPING_HAS_LINE_NUMBERS = 9,
    MAPPING_HAS_INLINE_FRAMES = 10,
    LOCATION_ID = 1,
    LOCATION_MAPPING_ID = 2,
    LOCATION_LINE = 4,
    LINE_FUNCTION_ID = 1,
    LINE_LINE = 2,
    FUNCTION_ID = 1,
    FUNCTION_NAME = 2,
    FUNCTION_FILENAME = 4
};

/* The string table starts with these; a string of the capture follows with its number + NAMES. */
static const char *const names[] = {"",      "alloc_objects", "count",      "alloc_space",
                                    "bytes", "inuse_objects", "inuse_space"};
enum {
    ALLOC_OBJECTS = 1,
    COUNT,
    ALLOC_SPACE,
    BYTES,
    INUSE_OBJECTS,
    INUSE_SPACE,
    NAMES
};

static void
put_varint(pmt__text_buffer *out, uint64_t value)
{
    uint8_t bytes[PMT_VARINT_MAX];
    pmt__text_put(out, bytes, (size_t)(pmt__varint_put(bytes, value) - bytes));
}

static void
put_number(pmt__text_buffer *out, unsigned field, uint64_t value)
{
    put_varint(out, (uint64_t)field << 3);
    put_varint(out, value);
}

static void
put_bytes(pmt__text_buffer *out, unsigned field, const pmt__text_buffer *bytes)
{
    put_varint(out, (uint64_t)field << 3 | 2);
    put_varint(out, bytes->len);
    pmt__text_put(out, bytes->data, bytes->len);
    out->failed = out->failed || bytes->failed;
}

typedef struct writer {
    pmt__text_buffer *out;
    pmt__text_buffer message; /* scratch: a message */
    pmt__text_buffer inner;   /* scratch: one within it */
    const pmt_reader *reader;
    uint8_t *frames;    /* owned: which are used */
    uint8_t *strings;   /* owned: which are used */
    uint32_t *places;   /* owned: string -> place in the table */
    uint32_t *mappings; /* owned: string of an object -> id of its mapping */
    uint32_t mapping_count;
    uint32_t string_count;        /* in the table */
    pmt__index index;             /* of functions, by frame */
    PMT__VEC(uint32_t) functions; /* a frame of each */
} writer;

static void
put_value_type(writer *self, unsigned type, unsigned unit)
{
    self->message.len = 0;
    put_number(&self->message, VALUE_TYPE_TYPE, type);
    put_number(&self->message, VALUE_TYPE_UNIT, unit);
    put_bytes(self->out, PROFILE_SAMPLE_TYPE, &self->message);
}

static bool
is_zero(const uint64_t values[4])
{
    return (values[0] | values[1] | values[2] | values[3]) == 0;
}

static void
put_sample(writer *self, const pmt_row *row, pmt_view view)
{
    const pmt_value *value = &row->value;
    bool temporary = view == PMT_VIEW_TEMPORARY;
    const uint64_t values[4] = {temporary ? value->blocks : value->allocations,
                                temporary ? value->bytes : value->allocated_bytes,
                                value->inuse_blocks, value->inuse_bytes};
    if (is_zero(values)) {
        return;
    }
    self->message.len = self->inner.len = 0;
    for (uint32_t stack = row->stack; stack != 0; stack = self->reader->stacks.data[stack].parent) {
        uint32_t frame = self->reader->stacks.data[stack].frame;
        self->frames[frame] = 1;
        put_varint(&self->inner, (uint64_t)frame + 1);
    }
    put_bytes(&self->message, SAMPLE_LOCATION_ID, &self->inner);
    self->inner.len = 0;
    for (size_t i = 0; i < 4; i++) {
        put_varint(&self->inner, values[i]);
    }
    put_bytes(&self->message, SAMPLE_VALUE, &self->inner);
    put_bytes(self->out, PROFILE_SAMPLE, &self->message);
}

/* The id of the frame's function: function and file. */
static uint64_t
function_id(writer *self, uint32_t frame)
{
    const pmt__frame *it = &self->reader->frames.data[frame];
    uint64_t hash = pmt__hash_u64((uint64_t)it->function << 32 | it->file);
    pmt__index_walk walk;
    uint32_t at = pmt__index_first(&walk, &self->index, hash);
    for (; at != PMT_INDEX_NONE; at = pmt__index_next(&walk)) {
        const pmt__frame *other = &self->reader->frames.data[self->functions.data[at]];
        if (other->function == it->function && other->file == it->file) {
            return (uint64_t)at + 1;
        }
    }
    at = (uint32_t)self->functions.len;
    /* The failure is noticed at the end only: until then the index may not name what is not there. */
    if (!PMT__VEC_RESERVE(self->reader->allocator, &self->functions, 1)
        || !pmt__index_add(&self->index, hash, at)) {
        self->out->failed = true;
        return 0;
    }
    self->functions.data[self->functions.len++] = frame;
    return (uint64_t)at + 1;
}

/* The id of an object's mapping. */
static uint64_t
mapping_id(writer *self, uint32_t object)
{
    if (self->mappings[object] == 0) {
        self->mappings[object] = ++self->mapping_count;
        self->strings[object] = 1;
    }
    return self->mappings[object];
}

static void
put_locations(writer *self)
{
    for (size_t i = 0; i < self->reader->frames.len; i++) {
        if (!self->frames[i]) {
            continue;
        }
        self->message.len = self->inner.len = 0;
        put_number(&self->inner, LINE_FUNCTION_ID, function_id(self, (uint32_t)i));
        put_number(&self->inner, LINE_LINE, (uint64_t)self->reader->frames.data[i].line);
        put_number(&self->message, LOCATION_ID, i + 1);
        if (self->reader->frames.data[i].object != 0) {
            put_number(&self->message, LOCATION_MAPPING_ID,
                       mapping_id(self, self->reader->frames.data[i].object));
        }
        put_bytes(&self->message, LOCATION_LINE, &self->inner);
        put_bytes(self->out, PROFILE_LOCATION, &self->message);
    }
}

/* Every module has a <module> and many a <lambda>, and pprof shows functions without their files. */
static bool
needs_module(const writer *self, size_t function)
{
    const pmt__frame *frame = &self->reader->frames.data[self->functions.data[function]];
    pmt_string name = pmt__reader_string(self->reader, frame->function);
    return name.len != 0 && name.text[0] == '<'
           && pmt__reader_string(self->reader, frame->module).len != 0;
}

/* The names of these functions, behind the strings of the capture. */
static void
put_long_names(writer *self)
{
    const pmt_reader *reader = self->reader;
    for (size_t i = 0; i < self->functions.len; i++) {
        const pmt__frame *frame = &reader->frames.data[self->functions.data[i]];
        if (needs_module(self, i)) {
            self->message.len = 0;
            pmt__put_utf8(&self->message, pmt__reader_string(reader, frame->module));
            pmt__text_put_char(&self->message, '.');
            pmt__put_utf8(&self->message, pmt__reader_string(reader, frame->function));
            put_bytes(self->out, PROFILE_STRING_TABLE, &self->message);
        }
    }
}

/* Without the field system_name: where it is there and equal to the name, pprof takes the name for one of C++, and what stands in
   angle brackets for template arguments, to be left out. */
static void
put_functions(writer *self)
{
    const pmt_reader *reader = self->reader;
    for (size_t i = 0; i < self->functions.len; i++) {
        const pmt__frame *frame = &reader->frames.data[self->functions.data[i]];
        self->strings[frame->file] = 1;
        if (!needs_module(self, i)) {
            self->strings[frame->function] = 1;
        }
    }
    uint32_t place = NAMES;
    for (size_t i = 1; i < reader->strings.len; i++) {
        self->places[i] = self->strings[i] ? place++ : 0;
    }
    for (size_t i = 0; i < self->functions.len; i++) {
        const pmt__frame *frame = &reader->frames.data[self->functions.data[i]];
        self->message.len = 0;
        put_number(&self->message, FUNCTION_ID, i + 1);
        put_number(&self->message, FUNCTION_NAME,
                   needs_module(self, i) ? place++ : self->places[frame->function]);
        put_number(&self->message, FUNCTION_FILENAME, self->places[frame->file]);
        put_bytes(self->out, PROFILE_FUNCTION, &self->message);
    }
    self->string_count = place;
    for (size_t i = 0; i < NAMES; i++) {
        self->message.len = 0;
        pmt__text_put_c(&self->message, names[i]);
        put_bytes(self->out, PROFILE_STRING_TABLE, &self->message);
    }
    for (size_t i = 1; i < reader->strings.len; i++) {
        if (self->strings[i]) {
            self->message.len = 0;
            pmt__put_utf8(&self->message, pmt__reader_string(reader, (uint32_t)i));
            put_bytes(self->out, PROFILE_STRING_TABLE, &self->message);
        }
    }
    put_long_names(self);
}

/* Objects without the addresses that they had: their functions are known, and pprof does not look for them. */
static void
put_mappings(writer *self)
{
    uint32_t next = 1; /* by their ids: pprof takes the first one for the program */
    for (size_t i = 0; i < self->reader->frames.len; i++) {
        uint32_t object = self->reader->frames.data[i].object;
        if (self->mappings[object] != next) {
            continue;
        }
        self->message.len = 0;
        put_number(&self->message, MAPPING_ID, next++);
        put_number(&self->message, MAPPING_FILENAME, self->places[object]);
        put_number(&self->message, MAPPING_HAS_FUNCTIONS, 1);
        put_number(&self->message, MAPPING_HAS_FILENAMES, 1);
        put_number(&self->message, MAPPING_HAS_LINE_NUMBERS, 1);
        put_number(&self->message, MAPPING_HAS_INLINE_FRAMES, 1);
        put_bytes(self->out, PROFILE_MAPPING, &self->message);
    }
}

static uint32_t
put_string(writer *self, const pmt__text_buffer *text)
{
    put_bytes(self->out, PROFILE_STRING_TABLE, text);
    return self->string_count++;
}

/* As Go's heap profiles say it: one sample per so many bytes of space. */
static void
put_period(writer *self, uint64_t mean_bytes)
{
    pmt__text_buffer *text = &self->inner, *message = &self->message;
    text->len = message->len = 0;
    pmt__text_put_c(text, "space");
    uint32_t space = put_string(self, text);
    put_number(message, VALUE_TYPE_TYPE, space);
    put_number(message, VALUE_TYPE_UNIT, BYTES);
    put_bytes(self->out, PROFILE_PERIOD_TYPE, message);
    put_number(self->out, PROFILE_PERIOD, mean_bytes);
    text->len = 0;
    pmt__text_put_c(text, "sampled: one sample per ");
    pmt__text_put_u64(text, mean_bytes);
    pmt__text_put_c(text, " bytes allocated on average; values are estimates");
    put_number(self->out, PROFILE_COMMENT, put_string(self, text));
}

/* The largest of several captures. */
static uint64_t
mean_of(const pmt_aggregate *aggregate)
{
    const pmt__combination *of = aggregate->combination;
    pmt_capture capture;
    pmt_reader_capture(aggregate->reader, &capture);
    uint64_t mean_bytes = capture.sample_bytes_now;
    for (size_t i = 0; of != NULL && i < of->count; i++) {
        pmt_reader_capture(of->parts[i].reader, &capture);
        mean_bytes = capture.sample_bytes_now > mean_bytes ? capture.sample_bytes_now : mean_bytes;
    }
    return mean_bytes;
}

static void
put_profile(writer *self, const pmt_aggregate *aggregate)
{
    put_value_type(self, ALLOC_OBJECTS, COUNT);
    put_value_type(self, ALLOC_SPACE, BYTES);
    put_value_type(self, INUSE_OBJECTS, COUNT);
    put_value_type(self, INUSE_SPACE, BYTES);
    for (size_t i = 0; i < aggregate->rows.len; i++) {
        put_sample(self, &aggregate->rows.data[i], aggregate->view);
    }
    put_locations(self);
    put_functions(self);
    put_mappings(self);
    pmt_capture capture;
    pmt_reader_capture(aggregate->reader, &capture);
    put_number(self->out, PROFILE_TIME_NANOS, capture.started_unix_ns);
    put_number(self->out, PROFILE_DURATION_NANOS, capture.duration_ns);
    bool inuse = aggregate->view == PMT_VIEW_PEAK || aggregate->view == PMT_VIEW_LEAKS;
    put_number(self->out, PROFILE_DEFAULT_SAMPLE_TYPE, inuse ? INUSE_SPACE : ALLOC_SPACE);
    if (aggregate->is_estimate) {
        put_period(self, mean_of(aggregate));
    }
}

int
pmt__render_pprof(pmt__text_buffer *out, const pmt_aggregate *aggregate, pmt_error *err)
{
    const pmt_reader *reader = aggregate->reader;
    const pmt_allocator *allocator = reader->allocator;
    writer self = {.out = out, .reader = reader};
    pmt__text_init(&self.message, allocator);
    pmt__text_init(&self.inner, allocator);
    pmt__index_init(&self.index, allocator);
    self.frames = pmt__alloc_zeroed(allocator, reader->frames.len, 1);
    self.strings = pmt__alloc_zeroed(allocator, reader->strings.len, 1);
    self.places = pmt__alloc_zeroed(allocator, reader->strings.len, sizeof *self.places);
    self.mappings = pmt__alloc_zeroed(allocator, reader->strings.len, sizeof *self.mappings);
    if (self.frames == NULL || self.strings == NULL || self.places == NULL
        || self.mappings == NULL) {
        out->failed = true;
    } else {
        put_profile(&self, aggregate);
    }
    pmt__text_dispose(&self.message);
    pmt__text_dispose(&self.inner);
    pmt__index_dispose(&self.index);
    pmt__release(allocator, self.frames);
    pmt__release(allocator, self.strings);
    pmt__release(allocator, self.places);
    pmt__release(allocator, self.mappings);
    PMT__VEC_DISPOSE(allocator, &self.functions);
    return pmt__text_result(out, err);
}
