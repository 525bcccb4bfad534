/* Filling a pmt_error. */
#ifndef PMT_BASE_ERROR_H
#define PMT_BASE_ERROR_H

#include "pymemtrace/error.h"

/* Fills *err (which may be NULL) and returns code, so that callers write `return pmt__error_set(...)`. */
int pmt__error_set(pmt_error *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same with the errno of a failed call; appends its text to the message. */
int pmt__error_set_errno(pmt_error *err, int code, int sys_errno, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The same with a place in the input file; appends "at offset N" to the message. */
int pmt__error_set_at(pmt_error *err, int code, int64_t offset, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
