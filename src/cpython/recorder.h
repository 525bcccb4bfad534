/* Recording in this interpreter: the allocator hooks and what they know of frames.

   One file per version of CPython (frames_311.c … frames_315.c) defines how a frame is read and includes hooks_impl.h, which
   is compiled against it; frames_unsupported.c stands in elsewhere. All functions need the GIL, except uninstall at exit. */
#ifndef PMT_CPYTHON_RECORDER_H
#define PMT_CPYTHON_RECORDER_H

#include <stddef.h>
#include <stdint.h>

#include "pymemtrace/error.h"
#include "record/native_table.h"
#include "record/tables.h"

/* Is this interpreter one whose frames this build can read? Compares the running version with the one compiled for and
   tests the layout on a real stack. 0 or PMT_ERR_UNSUPPORTED with the reason. Cheap; the result is not cached. */
int pmt__cpython_check(pmt_error *err);

const pmt__frame_source *pmt__cpython_source(void);

/* Puts the hooks on top of the allocators of obj, mem and raw (and, from 3.13, the reference tracer). May be called again after
   uninstall. The gate must be closed (pmt__record_enable opens it). native: the C library's allocator is recorded, too. Which hooks: those of
   the recording that was started, of everything or sampled. */
int pmt__cpython_install(int native, pmt_error *err);

/* What an interposer of the C library's allocator is to call. Static. */
const pmt__native_table *pmt__cpython_native_table(void);
const pmt__native_table *pmt__cpython_sampled_native_table(void);

/* Are requests still coming to the hooks? The program, or another profiler, may have put allocators back that it found before us.
   Then they are put on again, and the capture counts it: what happened meanwhile is lost. */
void pmt__cpython_check_hooks(void);

/* The frame of Python that the calling thread is in now, not to be looked into; NULL: none. */
const void *pmt__cpython_frame_now(void);
/* Is that frame a caller of the one that the calling thread is in now? No: it is that one, or has returned. */
int pmt__cpython_is_called_by(const void *frame);

/* Takes them off where they still are on top; hooks that others have wrapped stay and pass everything through. The hooks of raw
   stay for ever: threads without the GIL can be between reading a function and its context. */
void pmt__cpython_uninstall(void);

/* Every allocation compares the cached stack with a plain walk while this is on (tests; slow). */
void pmt__cpython_checking(int on);
void pmt__cpython_check_counts(uint64_t *compared, uint64_t *different);

/* ns per malloc + free pair of `size` bytes through PyObject_Malloc with the stack as it is now: the best of `rounds` rounds
   of 1,280 pairs in batches of 64. */
double pmt__cpython_pair_ns(size_t size, unsigned rounds);

/* Name of the allocator in force, as PYTHONMALLOC has it. */
const char *pmt__cpython_allocator_name(void);

#endif
