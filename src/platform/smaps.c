#include "platform/smaps.h"

#include <string.h>

void
pmt__smaps_init(pmt__smaps *self)
{
    memset(self, 0, sizeof *self);
}

static int
hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A number of at most 16 digits, and what stands behind it; NULL if there is none. */
static const char *
get_hex(const char *at, uint64_t *out)
{
    uint64_t value = 0;
    int digits = 0;
    for (int digit; (digit = hex_digit(*at)) >= 0; at++, digits++) {
        if (digits == 16) {
            return NULL;
        }
        value = value << 4 | (uint64_t)digit;
    }
    *out = value;
    return digits == 0 ? NULL : at;
}

static const char *
skip_blanks(const char *at)
{
    while (*at == ' ' || *at == '\t') {
        at++;
    }
    return at;
}

static const char *
skip_word(const char *at)
{
    while (*at != '\0' && *at != ' ' && *at != '\t') {
        at++;
    }
    return skip_blanks(at);
}

static int
begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

static pmt__area_kind
kind_of(const char *name, unsigned flags)
{
    if (begins(name, "[heap]")) {
        return PMT_AREA_HEAP;
    }
    if (begins(name, "[stack]")) {
        return PMT_AREA_MAIN_STACK;
    }
    if (begins(name, "[anon_shmem:")) {
        return PMT_AREA_SHARED;
    }
    if (name[0] == '\0' || begins(name, "[anon:") || begins(name, "[stack:")) {
        return PMT_AREA_ANONYMOUS;
    }
    if (name[0] == '[') {
        return PMT_AREA_KERNEL;
    }
    int memory = begins(name, "/dev/zero") || begins(name, "/memfd:") || begins(name, "/dev/shm/")
                 || begins(name, "/SYSV");
    return memory && (flags & PMT_AREA_IS_SHARED) ? PMT_AREA_SHARED : PMT_AREA_FILE;
}

/* "5639edafa000-5639edafc000 r--p 00000000 fe:00 247278      /usr/bin/head" */
static int
header_parse(const char *line, pmt__area *out)
{
    memset(out, 0, sizeof *out);
    const char *at = get_hex(line, &out->start);
    if (at == NULL || *at != '-' || (at = get_hex(at + 1, &out->end)) == NULL || *at != ' '
        || out->start >= out->end || strnlen(at + 1, 5) < 5 || at[5] != ' ') {
        return 0;
    }
    at++;
    unsigned flags =
        (at[0] == 'r' ? PMT_AREA_READABLE : 0u) | (at[1] == 'w' ? PMT_AREA_WRITABLE : 0u)
        | (at[2] == 'x' ? PMT_AREA_EXECUTABLE : 0u) | (at[3] == 's' ? PMT_AREA_IS_SHARED : 0u);
    at = skip_word(at); /* permissions */
    at = skip_word(at); /* offset */
    at = skip_word(at); /* device */
    at = skip_word(at); /* inode */
    if (begins(at, "[anon:pymemtrace]")) {
        flags |= PMT_AREA_IS_OWN;
    }
    out->flags = (uint8_t)flags;
    out->kind = (uint8_t)kind_of(at, flags);
    return 1;
}

/* "Rss:                  12 kB"; false if the line is none of this kind. What overflows is as much as can be. */
static int
field_parse(const char *line, const char *name, uint64_t *bytes)
{
    size_t len = strlen(name);
    if (strncmp(line, name, len) != 0 || line[len] != ':') {
        return 0;
    }
    const char *at = skip_blanks(line + len + 1);
    uint64_t kib = 0;
    for (; *at >= '0' && *at <= '9'; at++) {
        kib = kib > UINT64_MAX >> 14 ? UINT64_MAX >> 10 : kib * 10 + (uint64_t)(*at - '0');
    }
    *bytes = kib > UINT64_MAX >> 10 ? UINT64_MAX : kib << 10;
    return 1;
}

static uint64_t
limited(uint64_t value, uint64_t most)
{
    return value < most ? value : most;
}

static void
fields_add(pmt__area *area, const char *line)
{
    uint64_t bytes;
    uint64_t most = area->end - area->start;
    if (field_parse(line, "Rss", &bytes)) {
        area->rss_bytes = limited(bytes, most);
    } else if (field_parse(line, "Pss", &bytes)) {
        area->pss_bytes = limited(bytes, most);
    } else if (field_parse(line, "Anonymous", &bytes)) {
        area->anonymous_bytes = limited(bytes, most);
    } else if (field_parse(line, "Shared_Clean", &bytes)
               || field_parse(line, "Shared_Dirty", &bytes)) {
        area->shared_bytes = limited(area->shared_bytes + limited(bytes, most), most);
    } else if (field_parse(line, "Swap", &bytes)) {
        area->swap_bytes = limited(bytes, most);
    }
}

static void
area_settle(pmt__area *area)
{
    area->anonymous_bytes = limited(area->anonymous_bytes, area->rss_bytes);
    area->shared_bytes = limited(area->shared_bytes, area->rss_bytes);
}

/* A line is complete: 1 if it ends the area before, which is in *out. */
static int
line_end(pmt__smaps *self, pmt__area *out)
{
    self->line[self->len] = '\0';
    self->len = 0;
    if (hex_digit(self->line[0]) < 0) { /* fields begin with a capital letter */
        if (self->open) {
            fields_add(&self->area, self->line);
        }
        return 0;
    }
    int was_open = self->open;
    *out = self->area;
    area_settle(out);
    self->open = header_parse(self->line, &self->area);
    return was_open;
}

int
pmt__smaps_take(pmt__smaps *self, const char *text, size_t size, size_t *used, pmt__area *out)
{
    for (size_t at = 0; at < size;) {
        const char *end = memchr(text + at, '\n', size - at);
        size_t n = end == NULL ? size - at : (size_t)(end - text) - at;
        size_t room = sizeof self->line - 1 - self->len;
        size_t keep = n < room ? n : room;
        memcpy(self->line + self->len, text + at, keep);
        self->len += keep;
        at += n + (end != NULL);
        if (end != NULL && line_end(self, out)) {
            *used = at;
            return 1;
        }
    }
    *used = size;
    return 0;
}

int
pmt__smaps_end(pmt__smaps *self, pmt__area *out)
{
    if (self->len != 0 && line_end(self, out)) { /* the last line began another one */
        return 1;
    }
    if (!self->open) {
        return 0;
    }
    self->open = 0;
    *out = self->area;
    area_settle(out);
    return 1;
}
