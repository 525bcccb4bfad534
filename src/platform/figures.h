/* Numbers in the short texts of /proc and of cgroups. What cannot be read is not known, which is never 0. */
#ifndef PMT_PLATFORM_FIGURES_H
#define PMT_PLATFORM_FIGURES_H

#include <stdint.h>
#include <string.h>

#define PMT_UNKNOWN UINT64_MAX

/* A decimal number up to the end of the text or a blank; PMT_UNKNOWN if there is none, or one that is too large. */
static inline uint64_t
pmt__figure(const char *text)
{
    uint64_t value = 0;
    const char *at = text;
    for (; *at >= '0' && *at <= '9'; at++) {
        uint64_t digit = (uint64_t)(*at - '0');
        if (value > (UINT64_MAX - 2 - digit) / 10) {
            return PMT_UNKNOWN;
        }
        value = value * 10 + digit;
    }
    return at == text || (*at != '\0' && *at != ' ' && *at != '\n' && *at != '\t') ? PMT_UNKNOWN
                                                                                   : value;
}

/* What follows a key and blanks at the beginning of a line; NULL: it is the line of another key. */
static inline const char *
pmt__after_key(const char *line, const char *key)
{
    size_t length = strlen(key);
    if (strncmp(line, key, length) != 0) {
        return NULL;
    }
    const char *at = line + length;
    if (*at == ':') {
        at++;
    }
    if (*at != ' ' && *at != '\t') {
        return NULL;
    }
    while (*at == ' ' || *at == '\t') {
        at++;
    }
    return at;
}

/* The number of a key, if the line is its line: else *out stays. */
static inline void
pmt__figure_take(const char *line, const char *key, uint64_t *out)
{
    const char *at = pmt__after_key(line, key);
    if (at != NULL) {
        *out = pmt__figure(at);
    }
}

#endif
