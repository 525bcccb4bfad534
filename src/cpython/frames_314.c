/* CPython 3.14: tagged references; frames have the byte `visited`, cleared by every new activation. The cycle collector of
   3.14.0–3.14.4 uses it as well (for the same purpose), so frames are marked from 3.14.5 on. */
#define Py_BUILD_CORE_MODULE 1
#include <Python.h>

#include "internal/pycore_frame.h"
#include "internal/pycore_interp.h"
#include "internal/pycore_interpframe.h"
#include "internal/pycore_pystate.h"
#include "internal/pycore_runtime.h"

#if PY_VERSION_HEX >> 16 != 0x030E || defined(Py_GIL_DISABLED)
#error "this file reads the frames of CPython 3.14 with a GIL"
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
#define PMT_FRAMES_MARKING() (Py_Version >= 0x030E0500)
#endif

#include "cpython/current_state.h"

/* What a suspended generator awaits. */
#define PMT_IS_SUSPENDED(frame_state) FRAME_STATE_SUSPENDED(frame_state)
#define PMT_FRAME_AWAITED(f, generator)                                         \
    ((generator)->gi_frame_state == FRAME_SUSPENDED_YIELD_FROM                  \
             && (f)->stackpointer - (f)->localsplus                             \
                    > ((const PyCodeObject *)PMT_FRAME_CODE(f))->co_nlocalsplus \
         ? PyStackRef_AsPyObjectBorrow((f)->stackpointer[-1])                   \
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
#define PMT_GC_COLLECTIONS(interpreter, generation) \
    ((interpreter)->gc.generation_stats[generation].collections)
#define PMT_TRACEMALLOC_TRACES() (_PyRuntime.tracemalloc.config.tracing != 0)

#include "cpython/hooks_impl.h"
