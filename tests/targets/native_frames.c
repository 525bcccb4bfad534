/* An extension whose calls are known: outer -> between -> (a Python function) and inner -> deepest -> malloc; `inlined` is part of `deepest`. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define NOINLINE __attribute__((noinline, noclone))

void *volatile native_frames_kept[1000];
static int count;

static inline __attribute__((always_inline)) void
inlined(size_t size)
{
    native_frames_kept[count] = malloc(size);
    memset(native_frames_kept[count], 1, size);
    count++;
}

static NOINLINE int
deepest(size_t size)
{
    inlined(size);
    return count;
}

static PyObject *
inner(PyObject *module, PyObject *argument)
{
    (void)module;
    return PyLong_FromLong(deepest(PyLong_AsSize_t(argument)) + 1);
}

static NOINLINE PyObject *
between(PyObject *callback, int times)
{
    volatile char room[200]; /* a frame of another size than its caller's */
    room[times] = 1;
    PyObject *result = PyObject_CallFunction(callback, "i", times);
    return room[times] ? result : NULL;
}

static PyObject *
outer(PyObject *module, PyObject *callback)
{
    (void)module;
    PyObject *result = between(callback, 3);
    return result == NULL ? NULL
                          : PyLong_FromLong(PyLong_AsLong(result) + (PyErr_Occurred() != NULL));
}

static NOINLINE void
in_thread(size_t size)
{
    inlined(size);
}

static void *
thread(void *size)
{
    in_thread((size_t)size);
    return NULL;
}

/* A thread that Python does not know, while the caller has given up the GIL. */
static PyObject *
threaded(PyObject *module, PyObject *argument)
{
    (void)module;
    size_t size = PyLong_AsSize_t(argument);
    Py_BEGIN_ALLOW_THREADS
    pthread_t it;
    if (pthread_create(&it, NULL, thread, (void *)size) == 0) {
        pthread_join(it, NULL);
    }
    deepest(size * 2);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"inner", inner, METH_O, NULL},
    {"outer", outer, METH_O, NULL},
    {"threaded", threaded, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "native_frames", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_native_frames(void);
PyMODINIT_FUNC
PyInit_native_frames(void)
{
    return PyModule_Create(&module);
}
