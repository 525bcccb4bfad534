#include "platform/psi.h"

#include <fcntl.h>

#include "platform/figures.h"

/* "4.10" */
static uint64_t
hundredths(const char *text)
{
    uint64_t value = 0;
    const char *at = text;
    for (; *at >= '0' && *at <= '9' && at - text < 9; at++) {
        value = value * 10 + (uint64_t)(*at - '0');
    }
    if (at == text || at[0] != '.' || at[1] < '0' || at[1] > '9' || at[2] < '0' || at[2] > '9') {
        return PMT_UNKNOWN;
    }
    return value * 100 + (uint64_t)(at[1] - '0') * 10 + (uint64_t)(at[2] - '0');
}

static void
line_take(const char *line, uint64_t *total_us, uint64_t *avg10)
{
    const char *average = strstr(line, " avg10="), *total = strstr(line, " total=");
    if (average != NULL) {
        *avg10 = hundredths(average + strlen(" avg10="));
    }
    if (total != NULL) {
        *total_us = pmt__figure(total + strlen(" total="));
    }
}

static int
each_line(void *context, char *line)
{
    pmt__psi *self = context;
    if (strncmp(line, "some ", 5) == 0) {
        line_take(line, &self->some_us, &self->some_avg10);
    } else if (strncmp(line, "full ", 5) == 0) {
        line_take(line, &self->full_us, &self->full_avg10);
    }
    return 0;
}

int
pmt__psi_read(pmt__psi *out, pmt__kept *file, const char *path, char *text, size_t size)
{
    *out = (pmt__psi){PMT_UNKNOWN, PMT_UNKNOWN, PMT_UNKNOWN, PMT_UNKNOWN};
    int fd = pmt__kept_fd(file, path, O_RDONLY);
    return fd < 0 ? fd : pmt__lines_read(fd, text, size, each_line, out);
}
