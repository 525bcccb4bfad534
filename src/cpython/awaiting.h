/* Which frames await the task that runs (--async-parents): for mixed_track.h, as a part of hooks_impl.h.

   From a coroutine's frame on the stack to its task. The loop runs Handle._run, whose first local is the handle, whose callback is
   the step of a task (an object that has the task, or the builtin method task_wakeup of it). Loops without that frame (uvloop): the
   task that asyncio says is running. Either way the task counts only if the coroutine of that frame is found in it.

   From a task to who awaits it: the callbacks that it will call when it is done. task_wakeup is the awaiting task's. Those that
   asyncio.wait, gather, shield, wait_for and TaskGroup add lead to another future, whose callbacks are looked at in turn, or to the
   task of the group. So it is the same on all versions; 3.14 and later also keep it in a field of the future, for others.

   Rules. All this happens inside an allocation: nothing here calls into the interpreter but for functions that only read, makes or
   frees an object, or changes a reference count. Everything looked at is held by something that the stack holds. The type of an
   object is checked before its fields are read.

   A block that is moved: between the free of the old one and the end of realloc, its owner (a list of callbacks) has a pointer to
   what is gone. So nothing is asked then, nor without the GIL; the next event asks.

   Layouts that no header has: the first four fields of a future (loop, callback, its context, list of further callbacks and their
   contexts) and the coroutine in a task. They are not believed: at every task that is met on the stack, its loop must be the one that
   runs it, and the coroutine that runs is searched for in its words; contexts must be contexts. Where that fails there are no
   parents, and the capture counts it. Other fields are found by the names of their members. */
#ifndef PMT_CPYTHON_AWAITING_H
#define PMT_CPYTHON_AWAITING_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <structmember.h>

#include "internal/pycore_dict.h"
#include "internal/pycore_object.h"

#include "record/tables.h"

#define PMT_FRAMES_ASK() awaiting_may_ask()
#define PMT_FRAME_AWAITING(state, f, out, room) awaiting_frames_nopy(state, f, out, room)

enum { /* words of a future */
    FUTURE_LOOP = sizeof(PyObject) / sizeof(PyObject *),
    FUTURE_CALLBACK,
    FUTURE_CONTEXT, /* of the first callback; NULL: there is none */
    FUTURE_CALLBACKS,
    FUTURE_KNOWN /* so many */
};

enum {
    AWAITING_TASKS = 64,     /* one awaits the other */
    AWAITING_CALLBACKS = 64, /* looked at per task */
    AWAITING_DETOURS = 12    /* futures between two tasks */
};

typedef struct search {
    size_t coroutine; /* its word in a task */
    int callbacks;    /* may still be looked at */
} search;

static bool awaiting_may_ask(void);

static bool
is_named(PyObject *text, const char *name)
{
    return text != NULL && PyUnicode_Check(text)
           && PyUnicode_CompareWithASCIIString(text, name) == 0;
}

/* A type of C code, of this name: a program can give its classes any name, but cannot make them immutable. */
static bool
is_type(const PyTypeObject *type, const char *name)
{
    return strcmp(type->tp_name, name) == 0
           && (!(type->tp_flags & Py_TPFLAGS_HEAPTYPE)
               || (type->tp_flags & Py_TPFLAGS_IMMUTABLETYPE));
}

static bool
is_a(PyObject *object, const char *type_name)
{
    for (const PyTypeObject *t = Py_TYPE(object); t != NULL; t = t->tp_base) {
        if (is_type(t, type_name)) {
            return true;
        }
    }
    return false;
}

static bool
is_task(PyObject *object)
{
    return object != NULL && is_a(object, "_asyncio.Task");
}

static bool
is_future(PyObject *object)
{
    return object != NULL && is_a(object, "_asyncio.Future");
}

/* A member that holds an object (a slot), by its name. Borrowed, as all that these functions return. */
static PyObject *
member_nopy(PyObject *object, const char *name)
{
    for (const PyTypeObject *t = Py_TYPE(object); t != NULL; t = t->tp_base) {
        for (const PyMemberDef *m = t->tp_members; m != NULL && m->name != NULL; m++) {
            if ((m->type == T_OBJECT || m->type == T_OBJECT_EX) && strcmp(m->name, name) == 0) {
                return *(PyObject **)(void *)((char *)object + m->offset);
            }
        }
    }
    return NULL;
}

/* An attribute in the instance itself, of an object with a managed dict. */
static PyObject *
attribute_nopy(PyObject *object, const char *name)
{
    PyTypeObject *type = Py_TYPE(object);
    if (!(type->tp_flags & Py_TPFLAGS_MANAGED_DICT)) {
        return NULL;
    }
    const PyDictValues *values = PMT_INSTANCE_VALUES(object);
    if (values != NULL) {
        PyDictKeysObject *keys = ((PyHeapTypeObject *)type)->ht_cached_keys;
        for (Py_ssize_t i = 0; keys != NULL && i < keys->dk_nentries; i++) {
            if (is_named(DK_UNICODE_ENTRIES(keys)[i].me_key, name)) {
                return values->values[i];
            }
        }
        return NULL;
    }
    PyObject *dict = PMT_INSTANCE_DICT(object), *key, *value;
    for (Py_ssize_t at = 0; dict != NULL && PyDict_Next(dict, &at, &key, &value);) {
        if (is_named(key, name)) {
            return value;
        }
    }
    return NULL;
}

/* --- generators and coroutines --------------------------------------------------------------------------------------------------- */

static bool
is_generator(const PyObject *object)
{
    return object != NULL
           && (Py_IS_TYPE(object, &PyCoro_Type) || Py_IS_TYPE(object, &PyGen_Type)
               || Py_IS_TYPE(object, &PyAsyncGen_Type));
}

static PMT_FRAME *
frame_of(PyObject *generator)
{
    return (PMT_FRAME *)(void *)((char *)generator + offsetof(PyGenObject, gi_iframe));
}

static PyObject *
generator_of(PMT_FRAME *frame)
{
    return (PyObject *)(void *)((char *)frame - offsetof(PyGenObject, gi_iframe));
}

static bool
is_suspended(PyObject *object)
{
    return is_generator(object) && PMT_IS_SUSPENDED(((const PyGenObject *)object)->gi_frame_state);
}

/* What a suspended one awaits; of an asynchronous generator's steps, the generator. */
static PyObject *
awaited_nopy(PyObject *generator)
{
    PyObject *next = PMT_FRAME_AWAITED(frame_of(generator), (const PyGenObject *)generator);
    if (next != NULL
        && (Py_IS_TYPE(next, &_PyAsyncGenASend_Type)
            || is_type(Py_TYPE(next), "async_generator_athrow"))) {
        next = ((PyObject **)next)[FUTURE_LOOP]; /* their first field */
    }
    return next;
}

/* --- callbacks ------------------------------------------------------------------------------------------------------------------ */

static PyObject *awaiting_task_nopy(search *s, PyObject *future, int detours);

/* What a variable of the function around stands for. */
static PyObject *
free_variable_nopy(PyObject *function, const char *name)
{
    const PyCodeObject *code = (const PyCodeObject *)PyFunction_GET_CODE(function);
    PyObject *closure = PyFunction_GET_CLOSURE(function);
    if (closure == NULL || !PyTuple_CheckExact(closure)
        || PyTuple_GET_SIZE(closure) != code->co_nfreevars) {
        return NULL;
    }
    const int first = code->co_nlocalsplus - code->co_nfreevars;
    for (int i = 0; i < code->co_nfreevars; i++) {
        PyObject *cell = PyTuple_GET_ITEM(closure, i);
        if (is_named(PyTuple_GET_ITEM(code->co_localsplusnames, first + i), name)
            && PyCell_Check(cell)) {
            return ((PyCellObject *)cell)->ob_ref;
        }
    }
    return NULL;
}

/* The future that a function of asyncio completes, which was added to another one's callbacks. */
static PyObject *
completed_by_nopy(PyObject *callback)
{
    static const struct {
        const char *function, *variable;
    } known[] = {
        {"gather.<locals>._done_callback", "outer"},
        {"_wait.<locals>._on_completion", "waiter"},
        {"shield.<locals>._inner_done_callback", "outer"},
    };
    if (PyFunction_Check(callback)) {
        const PyCodeObject *code = (const PyCodeObject *)PyFunction_GET_CODE(callback);
        for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
            if (is_named(code->co_qualname, known[i].function)) {
                return free_variable_nopy(callback, known[i].variable);
            }
        }
        return NULL;
    }
    if (is_type(Py_TYPE(callback), "functools.partial")) {
        PyObject *function = member_nopy(callback, "func");
        PyObject *arguments = member_nopy(callback, "args");
        if (function != NULL && PyFunction_Check(function) && arguments != NULL
            && PyTuple_CheckExact(arguments) && PyTuple_GET_SIZE(arguments) == 1
            && is_named(((const PyCodeObject *)PyFunction_GET_CODE(function))->co_qualname,
                        "_release_waiter")) {
            return PyTuple_GET_ITEM(arguments, 0);
        }
    }
    return NULL;
}

/* The task whose builtin method task_wakeup this is. */
static PyObject *
woken_by_nopy(PyObject *callback)
{
    if (!PyCFunction_CheckExact(callback)
        || strcmp(((const PyCFunctionObject *)callback)->m_ml->ml_name, "task_wakeup") != 0) {
        return NULL;
    }
    return PyCFunction_GET_SELF(callback);
}

/* The task that goes on when this callback is called. */
static PyObject *
task_behind_nopy(search *s, PyObject *callback, int detours)
{
    PyObject *task = woken_by_nopy(callback);
    if (task == NULL && PyMethod_Check(callback)) {
        PyObject *function = PyMethod_GET_FUNCTION(callback);
        if (PyFunction_Check(function)
            && is_named(((const PyCodeObject *)PyFunction_GET_CODE(function))->co_qualname,
                        "TaskGroup._on_task_done")) {
            task = attribute_nopy(PyMethod_GET_SELF(callback), "_parent_task");
        }
    } else if (task == NULL) {
        PyObject *next = completed_by_nopy(callback);
        if (detours < AWAITING_DETOURS && is_future(next)) {
            return awaiting_task_nopy(s, next, detours + 1);
        }
    }
    return is_task(task) ? task : NULL;
}

/* The task that awaits a future, the first if there are several. */
static PyObject *
awaiting_task_nopy(search *s, PyObject *future, int detours)
{
    PyObject **words = (PyObject **)future;
    PyObject *context = words[FUTURE_CONTEXT], *more = words[FUTURE_CALLBACKS], *task = NULL;
    if (context != NULL) {
        if (!PyContext_CheckExact(context) || words[FUTURE_CALLBACK] == NULL) {
            pmt__t.counters[PMT_COUNTER_NO_PARENTS]++;
            return NULL;
        }
        task = s->callbacks-- > 0 ? task_behind_nopy(s, words[FUTURE_CALLBACK], detours) : NULL;
    }
    if (more == NULL || !PyList_CheckExact(more)) {
        return task;
    }
    for (Py_ssize_t i = 0; task == NULL && i < PyList_GET_SIZE(more) && s->callbacks-- > 0; i++) {
        PyObject *pair = PyList_GET_ITEM(more, i);
        if (PyTuple_CheckExact(pair) && PyTuple_GET_SIZE(pair) == 2
            && PyContext_CheckExact(PyTuple_GET_ITEM(pair, 1))) {
            task = task_behind_nopy(s, PyTuple_GET_ITEM(pair, 0), detours);
        }
    }
    return task;
}

/* --- tasks ---------------------------------------------------------------------------------------------------------------------- */

/* The word of a running task that has its coroutine; 0: it is not that loop's task or has another coroutine. */
static size_t
coroutine_word_nopy(PyObject *task, const PyObject *loop, const PyObject *coroutine)
{
    PyObject **words = (PyObject **)task;
    const PyTypeObject *type = Py_TYPE(task);
    while (!is_type(type, "_asyncio.Task")) {
        type = type->tp_base;
    }
    if (loop == NULL || words[FUTURE_LOOP] != loop) {
        return 0;
    }
    const size_t count = (size_t)type->tp_basicsize / sizeof *words;
    for (size_t i = FUTURE_KNOWN; i < count; i++) {
        if (words[i] == coroutine) {
            return i;
        }
    }
    return 0;
}

/* The task whose step a handle of the loop is. */
static PyObject *
stepped_task_nopy(PyObject *handle)
{
    PyObject *callback = member_nopy(handle, "_callback"), *task = NULL;
    if (callback == NULL) {
        return NULL;
    }
    const PyTypeObject *type = Py_TYPE(callback);
    if (is_type(type, "_asyncio.TaskStepMethWrapper") || is_type(type, "TaskStepMethWrapper")) {
        task = ((PyObject **)callback)[FUTURE_LOOP]; /* its first field */
    } else {
        task = woken_by_nopy(callback);
    }
    return is_task(task) ? task : NULL;
}

#ifdef PMT_RUNNING_TASK
static void
awaiting_prepare(void)
{
}

/* The task that runs and has this coroutine. */
static PyObject *
running_task_nopy(const void *state, const PyObject *coroutine, size_t *word)
{
    PyObject *task = PMT_RUNNING_TASK(state);
    *word = is_task(task) ? coroutine_word_nopy(task, PMT_RUNNING_LOOP(state), coroutine) : 0;
    return *word != 0 ? task : NULL;
}
#else
static PyObject *asyncio_name, *current_tasks_name; /* owned, for ever */

static void
awaiting_prepare(void)
{
    asyncio_name = PyUnicode_InternFromString("_asyncio");
    current_tasks_name = PyUnicode_InternFromString("_current_tasks");
    PyErr_Clear();
}

static PyObject *
item_nopy(PyObject *dict, PyObject *key)
{
    return dict != NULL && PyDict_CheckExact(dict) && key != NULL
               ? PyDict_GetItemWithError(dict, key)
               : NULL;
}

static PyObject *
running_task_nopy(const void *state, const PyObject *coroutine, size_t *word)
{
    PyObject *module = item_nopy(PMT_MODULES(((const PyThreadState *)state)->interp), asyncio_name);
    PyObject *tasks = module == NULL || !PyModule_CheckExact(module)
                          ? NULL
                          : item_nopy(PyModule_GetDict(module), current_tasks_name);
    PyObject *loop, *task;
    for (Py_ssize_t at = 0;
         tasks != NULL && PyDict_CheckExact(tasks) && PyDict_Next(tasks, &at, &loop, &task);) {
        *word = is_task(task) ? coroutine_word_nopy(task, loop, coroutine) : 0;
        if (*word != 0) {
            return task;
        }
    }
    return NULL;
}
#endif

/* The task that begins with this frame, and the word of its coroutine; NULL: none does. */
static PyObject *
task_of_frame_nopy(const void *state, PMT_FRAME *frame, size_t *word)
{
    PMT_FRAME *caller = PMT_FRAME_PREVIOUS(frame);
    while (caller != NULL && PMT_FRAME_IS_ENTRY(caller)) {
        caller = PMT_FRAME_PREVIOUS(caller);
    }
    PyObject *coroutine = generator_of(frame);
    if (caller == NULL || PMT_FRAME_IN_HEAP(caller) || !is_generator(coroutine)) {
        return NULL;
    }
    const PyCodeObject *code = PMT_FRAME_CODE(caller);
    if (!is_named(code->co_qualname, "Handle._run") || code->co_argcount != 1) {
        return running_task_nopy(state, coroutine, word);
    }
    PyObject *handle = PMT_FRAME_FIRST_LOCAL(caller);
    PyObject *task = handle == NULL ? NULL : stepped_task_nopy(handle);
    if (task == NULL) {
        return running_task_nopy(state, coroutine, word);
    }
    *word = coroutine_word_nopy(task, member_nopy(handle, "_loop"), coroutine);
    if (*word == 0) {
        pmt__t.counters[PMT_COUNTER_NO_PARENTS]++;
        return NULL;
    }
    return task;
}

/* The frames of a task that awaits something. */
static int
chain_nopy(PyObject *coroutine, PMT_FRAME **out, int room)
{
    int count = 0;
    for (; is_suspended(coroutine) && count < room; coroutine = awaited_nopy(coroutine)) {
        out[count++] = frame_of(coroutine);
    }
    return count;
}

/* The frames of the tasks that await the one that begins with this frame, outermost first. With the GIL and the tables. */
static int
awaiting_frames_nopy(const void *state, PMT_FRAME *frame, PMT_FRAME **out, int room)
{
    PyObject *tasks[AWAITING_TASKS];
    search s = {0, 0};
    int count = 0, depth = 0;
    PyObject *task = task_of_frame_nopy(state, frame, &s.coroutine);
    while (task != NULL && count < AWAITING_TASKS) {
        tasks[count++] = task;
        s.callbacks = AWAITING_CALLBACKS;
        task = awaiting_task_nopy(&s, task, 0);
        if (task == NULL || !is_suspended(((PyObject **)task)[s.coroutine])) {
            break;
        }
        for (int i = 0; task != NULL && i < count; i++) {
            task = tasks[i] == task ? NULL : task; /* they wait for each other */
        }
    }
    while (--count > 0) {
        depth += chain_nopy(((PyObject **)tasks[count])[s.coroutine], out + depth, room - depth);
    }
    return depth;
}

#endif
