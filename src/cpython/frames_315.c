/* CPython 3.15: as 3.14; the chain ends in a base frame without code; collections are counted in ring buffers. */
#define Py_BUILD_CORE_MODULE 1
#include <Python.h>

#include "internal/pycore_frame.h"
#include "internal/pycore_interp.h"
#include "internal/pycore_interpframe.h"
#include "internal/pycore_pystate.h"
#include "internal/pycore_runtime.h"

#if PY_VERSION_HEX >> 16 != 0x030F || defined(Py_GIL_DISABLED)
#error "this file reads the frames of CPython 3.15 with a GIL"
#endif

#define PMT_FRAME _PyInterpreterFrame
#define PMT_FRAME_PREVIOUS(f) ((f)->previous)
#define PMT_FRAME_INSTR(f) ((uint64_t)(uintptr_t)(f)->instr_ptr)
#define PMT_FRAME_CODE(f) \
    ((const void *)((f)->f_executable.bits & ~(uintptr_t)3)) /* without the tag */
#define PMT_FRAME_FIRST_LOCAL(f) PyStackRef_AsPyObjectBorrow((f)->localsplus[0])
#define PMT_FRAME_IS_ENTRY(f) ((f)->owner >= FRAME_OWNED_BY_INTERPRETER)
#define PMT_FRAME_IN_HEAP(f) ((f)->owner == FRAME_OWNED_BY_GENERATOR)

#ifdef Py_DEBUG
#define PMT_FRAMES_MARKABLE 0 /* one bit there, and assertions on it */
#define PMT_FRAMES_MARKING() 0
#else
#define PMT_FRAMES_MARKABLE 2
#define PMT_MARK 0x80 /* the collector writes 1 */
#define PMT_FRAME_MARKED(f) ((f)->owner == FRAME_OWNED_BY_THREAD && ((f)->visited & PMT_MARK))
#define PMT_FRAME_MARK(f) ((f)->visited = PMT_MARK)
#define PMT_FRAMES_MARKING() 1
#endif

#include "cpython/current_state.h"

/* What a suspended generator awaits; on top is the index of an iteration, or nothing. */
#define PMT_IS_SUSPENDED(frame_state) FRAME_STATE_SUSPENDED(frame_state)
#define PMT_FRAME_AWAITED(f, generator)                                             \
    (((generator)->gi_frame_state == FRAME_SUSPENDED_YIELD_FROM                     \
      || (generator)->gi_frame_state == FRAME_SUSPENDED_YIELD_FROM_LOCKED)          \
             && (f)->stackpointer - (f)->localsplus                                 \
                    > ((const PyCodeObject *)PMT_FRAME_CODE(f))->co_nlocalsplus + 1 \
         ? PyStackRef_AsPyObjectBorrow((f)->stackpointer[-2])                       \
         : NULL)
#define PMT_INSTANCE_VALUES(object)                         \
    ((Py_TYPE(object)->tp_flags & Py_TPFLAGS_INLINE_VALUES) \
             && _PyObject_InlineValues(object)->valid       \
         ? _PyObject_InlineValues(object)                   \
         : NULL)
#define PMT_INSTANCE_DICT(object) ((PyObject *)_PyObject_GetManagedDict(object))

#define PMT_RUNNING_TASK(state) (((const _PyThreadStateImpl *)(state))->asyncio_running_task)
#define PMT_RUNNING_LOOP(state) (((const _PyThreadStateImpl *)(state))->asyncio_running_loop)

#define PMT_CURRENT_STATE() pmt__current_state()
#define PMT_OWN_STATE() PyGILState_GetThisThreadState()
#define PMT_STATE_PREPARE(state) pmt__current_state_prepare(state)
#define PMT_CURRENT_FRAME(state) ((state)->current_frame)

static inline uint64_t
gc_collections(const PyInterpreterState *interpreter, int generation)
{
    const struct gc_stats *stats = interpreter->gc.generation_stats;
    if (stats == NULL) {
        return 0;
    }
    int young = stats->young.index, old0 = stats->old[0].index, old1 = stats->old[1].index;
    Py_ssize_t count = 0;
    if (generation == 0 && young >= 0 && young < GC_YOUNG_STATS_SIZE) {
        count = stats->young.items[young].collections;
    } else if (generation == 1 && old0 >= 0 && old0 < GC_OLD_STATS_SIZE) {
        count = stats->old[0].items[old0].collections;
    } else if (generation == 2 && old1 >= 0 && old1 < GC_OLD_STATS_SIZE) {
        count = stats->old[1].items[old1].collections;
    }
    return count < 0 ? 0 : (uint64_t)count;
}
#define PMT_GC_COLLECTIONS(interpreter, generation) gc_collections(interpreter, generation)
#define PMT_TRACEMALLOC_TRACES() (_PyRuntime.tracemalloc.config.tracing != 0)

#include "cpython/hooks_impl.h"
