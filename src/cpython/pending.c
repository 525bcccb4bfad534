#define Py_BUILD_CORE_MODULE 1
#include <Python.h>

#include "internal/pycore_ceval.h"
#include "internal/pycore_interp.h"
#include "internal/pycore_runtime.h"

#include "cpython/pending.h"

#define ITEM(name, structure, field) {name, offsetof(structure, field)}

static const pmt__layout_item items[] = {
#if PY_VERSION_HEX < 0x03100000 && !defined(Py_GIL_DISABLED)
    ITEM("runtime.main", _PyRuntimeState, interpreters.main),
    ITEM("runtime.finalizing", _PyRuntimeState, _finalizing),
    ITEM("thread.interpreter", PyThreadState, interp),
    ITEM("thread.native_id", PyThreadState, native_thread_id),
    ITEM("runtime.head", _PyRuntimeState, interpreters.head),
    ITEM("interpreter.head", PyInterpreterState, threads.head),
#if PY_VERSION_HEX < 0x030C0000
    ITEM("interpreter.modules", PyInterpreterState, modules),
    ITEM("interpreter.pending", PyInterpreterState, ceval.pending),
#else
    ITEM("interpreter.modules", PyInterpreterState, imports.modules),
    ITEM("runtime.pending", _PyRuntimeState, ceval.pending_mainthread),
#endif
#if PY_VERSION_HEX < 0x030D0000
    ITEM("interpreter.breaker", PyInterpreterState, ceval.eval_breaker),
    ITEM("interpreter.runtime", PyInterpreterState, runtime),
    ITEM("pending.lock", struct _pending_calls, lock),
    ITEM("pending.to_do", struct _pending_calls, calls_to_do),
    ITEM("pending.last", struct _pending_calls, last),
    {"calls.count", NPENDINGCALLS},
#else
    ITEM("runtime.main_thread", _PyRuntimeState, main_tstate),
    ITEM("thread.breaker", PyThreadState, eval_breaker),
    ITEM("pending.lock", struct _pending_calls, mutex),
    ITEM("pending.to_do", struct _pending_calls, npending),
    ITEM("pending.max", struct _pending_calls, max),
    ITEM("pending.last", struct _pending_calls, next),
    ITEM("call.flags", struct _pending_call, flags),
    {"calls.count", PENDINGCALLSARRAYSIZE},
    {"calls.bit", _PY_CALLS_TO_DO_BIT},
#endif
#if PY_VERSION_HEX >= 0x030E0000
    ITEM("interpreter.remote_debug", PyInterpreterState, config.remote_debug),
    ITEM("thread.asked", PyThreadState, remote_debugger_support.debugger_pending_call),
    ITEM("thread.script", PyThreadState, remote_debugger_support.debugger_script_path),
#endif
    {"call.size", sizeof((struct _pending_calls *)0)->calls[0]},
    ITEM("pending.calls", struct _pending_calls, calls),
    ITEM("pending.first", struct _pending_calls, first),
#endif
    {NULL, 0},
};

const pmt__layout_item *
pmt__cpython_layout(void)
{
    return items;
}

void
pmt__cpython_call_soon(int (*function)(void *))
{
    Py_AddPendingCall(function, NULL);
#if PY_VERSION_HEX < 0x030D0000
    /* There, what asks the loop to look is set only for calls that come from the main thread. */
    _Py_atomic_store_relaxed(&PyInterpreterState_Main()->ceval.eval_breaker, 1);
#endif
}
