#include "base/glob.h"

#include <string.h>

/* Matches one byte against the set that starts behind `[`. Returns the position behind the set, or
   NULL if the set has no end: then `[` stands for itself. */
static const char *
match_set(const char *set, unsigned char c, bool *matches)
{
    bool negated = *set == '!';
    if (negated) {
        set++;
    }
    bool found = false;
    const char *at = set;
    do {
        if (*at == '\0') {
            return NULL;
        }
        unsigned char low = (unsigned char)*at++;
        unsigned char high = low;
        if (*at == '-' && at[1] != '\0' && at[1] != ']') {
            high = (unsigned char)at[1];
            at += 2;
        }
        found = found || (c >= low && c <= high);
    } while (*at != ']');
    *matches = found != negated;
    return at + 1;
}

/* Linear in the text for each star, because only the last star seen ever needs to take more. */
bool
pmt__glob_match(const char *pattern, const char *text, size_t text_len)
{
    const char *end = text + text_len;
    const char *star = NULL;
    const char *star_text = NULL;
    while (text < end || *pattern != '\0') {
        if (*pattern == '*') {
            star = ++pattern;
            star_text = text;
            continue;
        }
        if (text < end && *pattern != '\0') {
            bool matches = false;
            const char *behind = NULL;
            if (*pattern == '?') {
                matches = true;
                behind = pattern + 1;
            } else if (*pattern == '[') {
                behind = match_set(pattern + 1, (unsigned char)*text, &matches);
            }
            if (behind == NULL) {
                matches = *pattern == *text;
                behind = pattern + 1;
            }
            if (matches) {
                pattern = behind;
                text++;
                continue;
            }
        }
        if (star == NULL || star_text >= end) {
            return false;
        }
        pattern = star;
        text = ++star_text;
    }
    return true;
}
