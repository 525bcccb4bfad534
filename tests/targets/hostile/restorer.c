/* An extension that hooks the allocators when it is imported and puts back what it found on demand. */
#include <Python.h>

static PyMemAllocatorEx found;
static unsigned long long calls;

static void *
our_malloc(void *ctx, size_t size)
{
    (void)ctx;
    calls++;
    return found.malloc(found.ctx, size);
}

static void *
our_calloc(void *ctx, size_t count, size_t size)
{
    (void)ctx;
    return found.calloc(found.ctx, count, size);
}

static void *
our_realloc(void *ctx, void *block, size_t size)
{
    (void)ctx;
    return found.realloc(found.ctx, block, size);
}

static void
our_free(void *ctx, void *block)
{
    (void)ctx;
    found.free(found.ctx, block);
}

static PyObject *
on(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    PyMemAllocatorEx ours = {NULL, our_malloc, our_calloc, our_realloc, our_free};
    PyMem_GetAllocator(PYMEM_DOMAIN_OBJ, &found);
    PyMem_SetAllocator(PYMEM_DOMAIN_OBJ, &ours);
    Py_RETURN_NONE;
}

static PyObject *
off(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    PyMem_SetAllocator(PYMEM_DOMAIN_OBJ, &found);
    Py_RETURN_NONE;
}

static PyObject *
count(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return PyLong_FromUnsignedLongLong(calls);
}

static PyMethodDef methods[] = {
    {"on", on, METH_NOARGS, NULL},
    {"off", off, METH_NOARGS, NULL},
    {"calls", count, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "restorer", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC
PyInit_restorer(void)
{
    return PyModule_Create(&module);
}
