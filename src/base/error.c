#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void
fill(pmt_error *err, int code, int sys_errno, int64_t offset, const char *format, va_list args)
{
    err->code = code;
    err->sys_errno = sys_errno;
    err->offset = offset;
    int used = vsnprintf(err->message, sizeof err->message, format, args);
    size_t at = used < 0 ? 0 : (size_t)used;
    if (at >= sizeof err->message) {
        return;
    }
    if (sys_errno != 0) {
        snprintf(err->message + at, sizeof err->message - at, ": %s", strerror(sys_errno));
    } else if (offset >= 0) {
        snprintf(err->message + at, sizeof err->message - at, " (at offset %lld)",
                 (long long)offset);
    }
}

int
pmt__error_set(pmt_error *err, int code, const char *format, ...)
{
    if (err != NULL) {
        va_list args;
        va_start(args, format);
        fill(err, code, 0, -1, format, args);
        va_end(args);
    }
    return code;
}

int
pmt__error_set_errno(pmt_error *err, int code, int sys_errno, const char *format, ...)
{
    if (err != NULL) {
        va_list args;
        va_start(args, format);
        fill(err, code, sys_errno, -1, format, args);
        va_end(args);
    }
    return code;
}

int
pmt__error_set_at(pmt_error *err, int code, int64_t offset, const char *format, ...)
{
    if (err != NULL) {
        va_list args;
        va_start(args, format);
        fill(err, code, 0, offset, format, args);
        va_end(args);
    }
    return code;
}
