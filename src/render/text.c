#include "render/text.h"

#include <string.h>

#include "base/error.h"
#include "store/names.h"

/* Decodes one character of UTF-8 in which surrogates are allowed. Returns its length in bytes, or 0 if
   there is none at `at`. */
static size_t
decode(const uint8_t *at, size_t left, uint32_t *character)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    uint8_t head = at[0];
    if (head < 0x80) {
        *character = head;
        return 1;
    }
    size_t n = head >= 0xf0 ? 4 : head >= 0xe0 ? 3 : 2;
    if (head < 0xc2 || head > 0xf4 || n > left) {
        return 0;
    }
    uint32_t value = head & (0xffu >> (n + 1));
    for (size_t i = 1; i < n; i++) {
        if ((at[i] & 0xc0) != 0x80) {
            return 0;
        }
        value = value << 6 | (at[i] & 0x3f);
    }
    if (value < least[n] || value > 0x10ffff) {
        return 0;
    }
    *character = value;
    return n;
}

static bool
is_surrogate(uint32_t character)
{
    return character >= 0xd800 && character <= 0xdfff;
}

void
pmt__put_utf8(pmt__text_buffer *out, pmt_string text)
{
    for (size_t i = 0; i < text.len;) {
        uint32_t character;
        size_t n = decode((const uint8_t *)text.text + i, text.len - i, &character);
        if (n == 0 || is_surrogate(character)) {
            pmt__text_put(out, "\xef\xbf\xbd", 3);
            i += n == 0 ? 1 : n;
            continue;
        }
        pmt__text_put(out, text.text + i, n);
        i += n;
    }
}

static void
put_escape(pmt__text_buffer *out, uint32_t character)
{
    static const char digits[] = "0123456789abcdef";
    char escape[6] = {'\\', 'u'};
    for (size_t i = 0; i < 4; i++) {
        escape[2 + i] = digits[character >> (12 - 4 * i) & 15];
    }
    pmt__text_put(out, escape, sizeof escape);
}

void
pmt__put_json(pmt__text_buffer *out, pmt_string text)
{
    pmt__text_put_char(out, '"');
    for (size_t i = 0; i < text.len;) {
        uint32_t character;
        size_t n = decode((const uint8_t *)text.text + i, text.len - i, &character);
        if (n == 0) {
            put_escape(out, 0xfffd);
            i++;
            continue;
        }
        if (character == '"' || character == '\\') {
            pmt__text_put_char(out, '\\');
            pmt__text_put_char(out, (char)character);
        } else if (character < 0x20 || character == 0x7f || is_surrogate(character)) {
            put_escape(out, character);
        } else {
            pmt__text_put(out, text.text + i, n);
        }
        i += n;
    }
    pmt__text_put_char(out, '"');
}

void
pmt__put_i64(pmt__text_buffer *out, int64_t value)
{
    if (value < 0) {
        pmt__text_put_char(out, '-');
    }
    pmt__text_put_u64(out, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
}

void
pmt__put_seconds(pmt__text_buffer *out, uint64_t ns)
{
    char fraction[10];
    uint64_t left = ns % UINT64_C(1000000000);
    for (size_t i = 9; i > 0; i--) {
        fraction[i] = (char)('0' + left % 10);
        left /= 10;
    }
    fraction[0] = '.';
    pmt__text_put_u64(out, ns / UINT64_C(1000000000));
    pmt__text_put(out, fraction, sizeof fraction);
}

static void
put_name(pmt__text_buffer *out, pmt_string text)
{
    size_t start = out->len;
    pmt__put_utf8(out, text);
    for (size_t i = start; i < out->len; i++) {
        uint8_t c = (uint8_t)out->data[i];
        if (c == ';') {
            out->data[i] = ':';
        } else if (c < 0x20 || c == 0x7f) {
            out->data[i] = ' ';
        }
    }
}

static void
put_frame(pmt__text_buffer *out, const pmt_frame *frame, pmt_string place)
{
    put_name(out, frame->function);
    if (frame->file.len != 0) {
        pmt__text_put_c(out, " (");
        put_name(out, place);
        if (frame->line > 0) {
            pmt__text_put_char(out, ':');
            pmt__put_i64(out, frame->line);
        }
        pmt__text_put_char(out, ')');
    }
}

void
pmt__put_frame(pmt__text_buffer *out, const pmt_frame *frame)
{
    put_frame(out, frame, frame->file);
}

void
pmt__put_short_frame(pmt__text_buffer *out, const pmt_frame *frame)
{
    pmt_string place = frame->module;
    if (place.len == 0) {
        place = pmt__last_part(frame->file);
    }
    put_frame(out, frame, place);
}

bool
pmt__path_set(pmt__path *self, const pmt_reader *reader, uint32_t stack)
{
    self->frames.len = 0;
    for (; stack != 0; stack = reader->stacks.data[stack].parent) {
        if (!PMT__VEC_PUSH(self->allocator, &self->frames, reader->stacks.data[stack].frame)) {
            return false;
        }
    }
    return true;
}

void
pmt__path_dispose(pmt__path *self)
{
    PMT__VEC_DISPOSE(self->allocator, &self->frames);
}

int
pmt__text_result(const pmt__text_buffer *out, pmt_error *err)
{
    return out->failed ? pmt__error_set(err, PMT_ERR_NOMEM, "out of memory") : PMT_OK;
}
