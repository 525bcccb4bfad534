/* Errors of the library: a negative pinned code as return value, details in a caller-owned pmt_error. */
#ifndef PYMEMTRACE_ERROR_H
#define PYMEMTRACE_ERROR_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Pinned: never renumber. 0 is success. */
typedef enum pmt_code {
    PMT_OK = 0,
    PMT_ERR_NOMEM = -1,       /* out of memory */
    PMT_ERR_IO = -2,          /* a system call failed: sys_errno says which way */
    PMT_ERR_NOT_CAPTURE = -3, /* the file is not a capture */
    PMT_ERR_DAMAGED = -4,     /* it is a capture and something in it is wrong */
    PMT_ERR_VERSION = -5,     /* newer version or an unknown required feature */
    PMT_ERR_EXISTS = -6,      /* the output exists and must not be overwritten */
    PMT_ERR_UNSUPPORTED = -7, /* not possible with this interpreter or on this system */
    PMT_ERR_STATE = -8,       /* called at the wrong time (already recording, not recording) */
    PMT_ERR_ARGUMENT = -9,    /* an argument is out of its range */
    PMT_ERR_LIMIT = -10,      /* a limit of this program was reached */
} pmt_code;

typedef struct pmt_error {
    int code;          /* one of pmt_code */
    int sys_errno;     /* errno of the failed call, or 0 */
    int64_t offset;    /* offset in the input file, or -1 */
    char message[384]; /* what, where, what to do; one line, NUL-terminated */
} pmt_error;

#define PMT_ERROR_INIT {0, 0, -1, {0}}

#ifdef __cplusplus
}
#endif
#endif
