/* CPython 3.11: the frame is a plain struct; `previous` and the instruction are neighbours. The current thread state is a field
   of the runtime, whoever's it is; the current frame hangs on the C frame.

   The mark. When a frame calls a Python function (CALL, CALL_PY_*, BINARY_SUBSCR_GETITEM), the interpreter keeps its stack pointer
   in `stacktop`, and the slot there is dead: the callable or the container stood in it and has been taken away. The frame cannot
   make another call with the same stacktop without pushing into that slot first, and a return pushes its value there at once. So
   a mark in the slot says that the frame is still in the same call. While it runs otherwise, stacktop is -1 and there is no mark.
   Only callers can carry it, and only while the thread is not traced: a trace function is called with a stacktop that no push
   came before. Nobody reads a dead slot: collector, frame objects and generators stop at stacktop. The frame is asserted on in debug
   builds only (there: no marks). */
#define Py_BUILD_CORE_MODULE 1
#include <Python.h>

#include "internal/pycore_frame.h"
#include "internal/pycore_interp.h"
#include "internal/pycore_pymem.h"
#include "internal/pycore_pystate.h"
#include "internal/pycore_runtime.h"

#if PY_VERSION_HEX >> 16 != 0x030B || defined(Py_GIL_DISABLED)
#error "this file reads the frames of CPython 3.11 with a GIL"
#endif

#define PMT_FRAME _PyInterpreterFrame
#define PMT_FRAME_PREVIOUS(f) ((f)->previous)
#define PMT_FRAME_INSTR(f) ((uint64_t)(uintptr_t)(f)->prev_instr)
#define PMT_FRAME_LINK(f) (&(f)->previous)
_Static_assert(offsetof(_PyInterpreterFrame, prev_instr)
                   == offsetof(_PyInterpreterFrame, previous) + 8,
               "side by side");
#define PMT_FRAME_CODE(f) ((const void *)(f)->f_code)
#define PMT_FRAME_FIRST_LOCAL(f) ((f)->localsplus[0])
#define PMT_FRAME_IS_ENTRY(f) 0
#define PMT_FRAME_IN_HEAP(f) ((f)->owner == FRAME_OWNED_BY_GENERATOR)

#ifdef Py_DEBUG
#define PMT_FRAMES_MARKABLE 0
#define PMT_FRAMES_MARKING() 0
#else
#define PMT_FRAMES_MARKABLE 1
#define PMT_FRAMES_MARKING() 1
#define PMT_MARK \
    ((PyObject   \
          *)(uintptr_t)0x504D544D41524B31u) /* no pointer: odd and beyond every address space */
#define PMT_FRAME_MARKED(f) ((f)->stacktop >= 0 && (f)->localsplus[(f)->stacktop] == PMT_MARK)
#define PMT_FRAME_MARK(f) mark(f)

static inline void
mark(_PyInterpreterFrame *frame)
{
    const PyThreadState *state = _PyThreadState_GET();
    if (frame->stacktop >= 0
        && frame->stacktop < frame->f_code->co_nlocalsplus + frame->f_code->co_stacksize
        && frame->owner == FRAME_OWNED_BY_THREAD && state->tracing == 0
        && state->cframe->use_tracing == 0) {
        frame->localsplus[frame->stacktop] = PMT_MARK;
    }
}
#endif

/* Every activation of the loop has a _PyCFrame on the C stack. A generator's frame keeps is_entry from when it was resumed last; while an
   exception is thrown through it into the one that it delegates to, it is on the chain and no loop runs it. What tells is whether its
   caller is the frame that the activation below stands at. */
#define PMT_FRAME_ENTRY_CURSOR const _PyCFrame *
#define PMT_FRAME_ENTRIES(state) ((state) == NULL ? NULL : ((const PyThreadState *)(state))->cframe)
#define PMT_FRAME_ENTRY_AT(f, cursor) ((f)->is_entry ? entry_next(f, &(cursor)) : 0)

static inline uint64_t
entry_next(const _PyInterpreterFrame *frame, const _PyCFrame **cursor)
{
    const _PyCFrame *entry = *cursor;
    if (entry == NULL) {
        return 1; /* an activation, and not on this stack */
    }
    if (entry->previous != NULL && entry->previous->current_frame != frame->previous) {
        return 0;
    }
    *cursor = entry->previous;
    return (uint64_t)(uintptr_t)entry;
}

/* What a suspended generator awaits: behind the yield of an `await` or `yield from` stands a RESUME that says so, and it is on top. */
#define PMT_IS_SUSPENDED(frame_state) ((frame_state) == FRAME_SUSPENDED)
#define PMT_FRAME_AWAITED(f, generator)                                                \
    ((void)(generator),                                                                \
     _Py_OPARG((f)->prev_instr[1]) >= 2 && (f)->stacktop > (f)->f_code->co_nlocalsplus \
         ? (f)->localsplus[(f)->stacktop - 1]                                          \
         : NULL)
#define PMT_INSTANCE_VALUES(object) (*_PyObject_ValuesPointer(object))
#define PMT_INSTANCE_DICT(object) (*_PyObject_ManagedDictPointer(object))
#define PMT_MODULES(interpreter) ((interpreter)->modules)

#define PMT_CURRENT_STATE() _PyThreadState_GET()
#define PMT_STATE_IS_GLOBAL
#define PMT_OWN_STATE() PyGILState_GetThisThreadState()
#define PMT_STATE_PREPARE(state) 0
#define PMT_CURRENT_FRAME(state) ((state)->cframe->current_frame)
#define PMT_GC_COLLECTIONS(interpreter, generation) \
    ((interpreter)->gc.generation_stats[generation].collections)
#define PMT_TRACEMALLOC_TRACES() (_Py_tracemalloc_config.tracing != 0)

#include "cpython/hooks_impl.h"
