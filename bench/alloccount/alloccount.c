/* alloccount: counts every call that reaches CPython's three allocator domains, exactly, and does nothing else.

   install() puts the counters on top of what is there. A recorder that starts later sits above them, so they see
   what the program asks for plus what the recorder itself would ask Python's allocators for. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>

enum {
    DOMAINS = 3,
    KINDS = 4
};
enum {
    MALLOC,
    CALLOC,
    REALLOC,
    FREE
};
/* Where the counters start: above the small numbers that Python keeps, so that counts() itself allocates the same
   in every run. */
enum {
    FIRST = 1 << 20
};

typedef struct domain {
    PyMemAllocatorEx below;
    uint64_t calls[KINDS]; /* atomic: raw is called without the GIL */
    uint64_t bytes;        /* atomic */
} domain;

static domain domains[DOMAINS]; /* by PyMemAllocatorDomain: raw, mem, obj */
static const char *const domain_names[DOMAINS] = {"raw", "mem", "obj"};
static const char *const kind_names[KINDS] = {"malloc", "calloc", "realloc", "free"};

static void
count(domain *d, int kind, size_t bytes)
{
    __atomic_fetch_add(&d->calls[kind], 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&d->bytes, bytes, __ATOMIC_RELAXED);
}

static void *
count_malloc(void *ctx, size_t size)
{
    domain *d = ctx;
    count(d, MALLOC, size);
    return d->below.malloc(d->below.ctx, size);
}

static void *
count_calloc(void *ctx, size_t number, size_t size)
{
    domain *d = ctx;
    count(d, CALLOC, number * size);
    return d->below.calloc(d->below.ctx, number, size);
}

static void *
count_realloc(void *ctx, void *block, size_t size)
{
    domain *d = ctx;
    count(d, REALLOC, size);
    return d->below.realloc(d->below.ctx, block, size);
}

static void
count_free(void *ctx, void *block)
{
    domain *d = ctx;
    if (block != NULL) {
        count(d, FREE, 0);
    }
    d->below.free(d->below.ctx, block);
}

static PyObject *
install(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    if (domains[0].below.malloc != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the counters are installed already");
        return NULL;
    }
    for (int i = 0; i < DOMAINS; i++) {
        for (int k = 0; k < KINDS; k++) {
            domains[i].calls[k] = FIRST;
        }
        domains[i].bytes = FIRST;
        PyMem_GetAllocator((PyMemAllocatorDomain)i, &domains[i].below);
        PyMemAllocatorEx counting = {&domains[i], count_malloc, count_calloc, count_realloc,
                                     count_free};
        PyMem_SetAllocator((PyMemAllocatorDomain)i, &counting);
    }
    Py_RETURN_NONE;
}

/* {"raw": {"malloc": n, ..., "bytes": n}, ...}. The numbers are copied before the result is made. */
static PyObject *
counts(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    uint64_t copy[DOMAINS][KINDS + 1];
    for (int i = 0; i < DOMAINS; i++) {
        for (int k = 0; k < KINDS; k++) {
            copy[i][k] = __atomic_load_n(&domains[i].calls[k], __ATOMIC_RELAXED);
        }
        copy[i][KINDS] = __atomic_load_n(&domains[i].bytes, __ATOMIC_RELAXED);
    }
    PyObject *result = PyDict_New();
    for (int i = 0; result != NULL && i < DOMAINS; i++) {
        PyObject *row = Py_BuildValue(
            "{s:K,s:K,s:K,s:K,s:K}", kind_names[MALLOC], (unsigned long long)copy[i][MALLOC],
            kind_names[CALLOC], (unsigned long long)copy[i][CALLOC], kind_names[REALLOC],
            (unsigned long long)copy[i][REALLOC], kind_names[FREE],
            (unsigned long long)copy[i][FREE], "bytes", (unsigned long long)copy[i][KINDS]);
        if (row == NULL || PyDict_SetItemString(result, domain_names[i], row) < 0) {
            Py_CLEAR(result);
        }
        Py_XDECREF(row);
    }
    return result;
}

static PyMethodDef methods[] = {
    {"install", install, METH_NOARGS, "Starts to count, for the rest of the process."},
    {"counts", counts, METH_NOARGS, "Calls and bytes so far, by domain."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "alloccount",
    .m_doc = "Exact counts of the calls to Python's allocators.",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC
PyInit_alloccount(void)
{
    return PyModule_Create(&module);
}
