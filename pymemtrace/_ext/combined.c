/* Combined: several captures as one. It holds their Readers and nothing else: everything is computed anew for each
   question, so it costs nothing to have. */
#include "combined.h"

#include "aggregate.h"
#include "analyze/totals.h"
#include "reader.h"
#include "state.h"
#include "values.h"

typedef struct {
    PyObject_HEAD
    PyObject *readers;          /* owned: tuple of Reader; NULL until __init__ */
    const pmt_reader **sources; /* owned; elements borrowed from the readers */
    size_t count;
    int with_inherited;
} combined_object;

static int
combined_init(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static char readers_key[] = "readers";
    static char inherited_key[] = "with_inherited";
    static char *keywords[] = {readers_key, inherited_key, NULL};
    combined_object *self = (combined_object *)object;
    PyObject *sequence;
    int with_inherited = 0;
    PyObject *module = PyType_GetModule(Py_TYPE(object)); /* borrowed */
    if (module == NULL
        || !PyArg_ParseTupleAndKeywords(args, kwargs, "O|$p:Combined", keywords, &sequence,
                                        &with_inherited)) {
        return -1;
    }
    if (self->readers != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "these captures are combined already");
        return -1;
    }
    PyObject *readers = PySequence_Tuple(sequence);
    size_t count = readers == NULL ? 0 : (size_t)PyTuple_GET_SIZE(readers);
    if (readers != NULL && count == 0) {
        PyErr_SetString(PyExc_ValueError, "no captures to combine");
    }
    const pmt_reader **sources = count == 0 ? NULL : PyMem_Calloc(count, sizeof *sources);
    if (sources == NULL) {
        if (!PyErr_Occurred()) {
            PyErr_NoMemory();
        }
        Py_XDECREF(readers);
        return -1;
    }
    for (size_t i = 0; i < count; i++) {
        sources[i] = ext_reader_get(module, PyTuple_GET_ITEM(readers, (Py_ssize_t)i));
        if (sources[i] == NULL) {
            PyMem_Free(sources);
            Py_DECREF(readers);
            return -1;
        }
    }
    self->readers = readers;
    self->sources = sources;
    self->count = count;
    self->with_inherited = with_inherited;
    return 0;
}

static void
combined_dealloc(PyObject *object)
{
    combined_object *self = (combined_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyMem_Free(self->sources);
    Py_XDECREF(self->readers);
    type->tp_free(object);
    Py_DECREF(type);
}

static combined_object *
get_self(PyObject *object)
{
    combined_object *self = (combined_object *)object;
    if (self->readers == NULL) {
        PyErr_SetString(PyExc_ValueError, "no captures are combined here");
        return NULL;
    }
    return self;
}

static uint64_t
epoch_of(const combined_object *self, size_t at)
{
    return self->with_inherited ? 0 : pmt_reader_inherited_epoch(self->sources[at]);
}

/* Reader.info() of each. */
static PyObject *
combined_info(PyObject *object, PyObject *unused)
{
    (void)unused;
    combined_object *self = get_self(object);
    PyObject *list = self == NULL ? NULL : PyList_New(0);
    for (size_t i = 0; list != NULL && i < self->count; i++) {
        if (values_append(list, ext_reader_info(PyTuple_GET_ITEM(self->readers, (Py_ssize_t)i)))
            < 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

/* --- totals ---------------------------------------------------------------------------------- */

static PyObject *
make_process(const pmt_reader *reader, const pmt__totals *totals)
{
    pmt_capture capture;
    pmt_reader_capture(reader, &capture);
    PyObject *dict = PyDict_New();
    if (dict != NULL
        && (values_put_u64(dict, "pid", capture.pid) < 0
            || values_put_u64(dict, "parent_pid", pmt_reader_parent_pid(reader)) < 0
            || ext_totals_put(dict, totals) < 0
            || values_put_seconds(dict, "peak_t_s", totals->peak_t_ns) < 0
            || values_put_seconds(dict, "end_t_s", totals->end_t_ns) < 0
            || values_put_u64(dict, "inherited_bytes", totals->inherited_bytes) < 0
            || values_put_u64(dict, "inherited_blocks", totals->inherited_blocks) < 0)) {
        Py_CLEAR(dict);
    }
    return dict;
}

/* The highest sum of the heaps at one time, and when that was. */
static int
put_together(PyObject *dict, const pmt__together *together)
{
    const pmt__moment none = {0};
    const pmt__moment *highest =
        together->highest == SIZE_MAX ? &none : &together->list.data[together->highest];
    const pmt__moment *last =
        together->list.len == 0 ? &none : &together->list.data[together->list.len - 1];
    if (values_put_u64(dict, "heap_bytes_peak_simultaneous", highest->heap_bytes) < 0
        || values_put_seconds(dict, "peak_simultaneous_t_s", highest->t_ns) < 0
        || values_put(dict, "peak_simultaneous_time",
                      values_instant(together->start_unix_ns + highest->t_ns))
               < 0
        || values_put(dict, "started", values_instant(together->start_unix_ns)) < 0
        || values_put_seconds(dict, "duration_s", last->t_ns) < 0
        || values_put_u64(dict, "peak_simultaneous_processes", highest->processes) < 0) {
        return -1;
    }
    return 0;
}

static PyObject *
make_totals(combined_object *self, const pmt__totals *totals, const pmt__together *together)
{
    PyObject *dict = PyDict_New();
    PyObject *processes = dict == NULL ? NULL : PyList_New(0);
    pmt__totals sum = {0};
    for (size_t i = 0; processes != NULL && i < self->count; i++) {
        pmt__totals_add(&sum, &totals[i]);
        if (values_append(processes, make_process(self->sources[i], &totals[i])) < 0) {
            Py_CLEAR(processes);
        }
    }
    if (processes == NULL || ext_totals_put(dict, &sum) < 0
        || values_put_u64(dict, "inherited_bytes", sum.inherited_bytes) < 0
        || values_put_u64(dict, "inherited_blocks", sum.inherited_blocks) < 0
        || put_together(dict, together) < 0
        || values_put(dict, "processes", Py_NewRef(processes)) < 0) {
        Py_CLEAR(dict);
    }
    Py_XDECREF(processes);
    return dict;
}

static PyObject *
combined_totals(PyObject *object, PyObject *unused)
{
    (void)unused;
    combined_object *self = get_self(object);
    if (self == NULL) {
        return NULL;
    }
    pmt__totals *totals = PyMem_Calloc(self->count, sizeof *totals);
    if (totals == NULL) {
        return PyErr_NoMemory();
    }
    pmt_error err = PMT_ERROR_INIT;
    pmt__together together;
    int result;
    Py_BEGIN_ALLOW_THREADS
    result =
        pmt__together_init(&together, self->sources, self->count, self->with_inherited != 0, &err);
    for (size_t i = 0; i < self->count && result == PMT_OK; i++) {
        result = pmt__totals_compute(&totals[i], self->sources[i], epoch_of(self, i), &err);
    }
    Py_END_ALLOW_THREADS
    PyObject *dict =
        result < 0 ? ext_raise(Py_TYPE(object), &err) : make_totals(self, totals, &together);
    pmt__together_dispose(&together);
    PyMem_Free(totals);
    return dict;
}

static PyObject *
make_moment(const pmt__together *together, const pmt__moment *moment)
{
    PyObject *dict = PyDict_New();
    if (dict != NULL
        && (values_put_seconds(dict, "t_s", moment->t_ns) < 0
            || values_put(dict, "time", values_instant(together->start_unix_ns + moment->t_ns)) < 0
            || values_put_u64(dict, "heap_bytes", moment->heap_bytes) < 0
            || values_put_u64(dict, "processes", moment->processes) < 0)) {
        Py_CLEAR(dict);
    }
    return dict;
}

static PyObject *
combined_timeline(PyObject *object, PyObject *unused)
{
    (void)unused;
    combined_object *self = get_self(object);
    if (self == NULL) {
        return NULL;
    }
    pmt_error err = PMT_ERROR_INIT;
    pmt__together together;
    int result;
    Py_BEGIN_ALLOW_THREADS
    result =
        pmt__together_init(&together, self->sources, self->count, self->with_inherited != 0, &err);
    Py_END_ALLOW_THREADS
    PyObject *list = result < 0 ? ext_raise(Py_TYPE(object), &err) : PyList_New(0);
    for (size_t i = 0; list != NULL && i < together.list.len; i++) {
        if (values_append(list, make_moment(&together, &together.list.data[i])) < 0) {
            Py_CLEAR(list);
        }
    }
    pmt__together_dispose(&together);
    return list;
}

/* --- statistics, views ----------------------------------------------------------------------- */

/* The threads of all, each with the pid of its process. */
static PyObject *
make_thread_rows(combined_object *self, const pmt__stats *parts)
{
    PyObject *all = PyList_New(0);
    for (size_t i = 0; all != NULL && i < self->count; i++) {
        if (parts[i].threads == NULL) {
            continue;
        }
        pmt_capture capture;
        pmt_reader_capture(self->sources[i], &capture);
        PyObject *rows = ext_thread_sums_make(&parts[i], self->sources[i]);
        for (Py_ssize_t n = 0; rows != NULL && n < PyList_GET_SIZE(rows); n++) {
            if (values_put_u64(PyList_GET_ITEM(rows, n), "pid", capture.pid) < 0) {
                Py_CLEAR(rows);
            }
        }
        if (rows == NULL || PyList_SetSlice(all, PY_SSIZE_T_MAX, PY_SSIZE_T_MAX, rows) < 0) {
            Py_CLEAR(all);
        }
        Py_XDECREF(rows);
    }
    return all;
}

static PyObject *
make_stats(combined_object *self, const pmt_query *query)
{
    pmt__stats *parts = PyMem_Calloc(self->count, sizeof *parts);
    if (parts == NULL) {
        return PyErr_NoMemory();
    }
    pmt_error err = PMT_ERROR_INIT;
    pmt__stats sum;
    int result;
    Py_BEGIN_ALLOW_THREADS
    result = pmt__stats_combine(&sum, parts, self->sources, self->count, query,
                                self->with_inherited != 0, &err);
    Py_END_ALLOW_THREADS
    PyObject *dict = result < 0 ? ext_raise(Py_TYPE(self), &err)
                                : ext_stats_make(&sum, make_thread_rows(self, parts));
    for (size_t i = 0; i < self->count; i++) {
        pmt__stats_dispose(&parts[i]);
    }
    pmt__stats_dispose(&sum);
    PyMem_Free(parts);
    return dict;
}

static PyObject *
combined_stats(PyObject *object, PyObject *args, PyObject *kwargs)
{
    combined_object *self = get_self(object);
    if (self == NULL) {
        return NULL;
    }
    ext_query query = {.flag = 0};
    PyObject *dict = NULL;
    if (ext_query_parse(&query, args, kwargs, 0, NULL) == 0) {
        dict = make_stats(self, &query.query);
    }
    ext_query_dispose(&query);
    return dict;
}

static PyObject *
combined_aggregate(PyObject *object, PyObject *args, PyObject *kwargs)
{
    combined_object *self = get_self(object);
    const ext_state *state = PyType_GetModuleState(Py_TYPE(object));
    if (self == NULL || state == NULL) {
        return NULL;
    }
    return ext_aggregate_combine((PyTypeObject *)state->aggregate_type, object, self->sources,
                                 self->count, self->with_inherited, args, kwargs);
}

/* --- type ------------------------------------------------------------------------------------ */

static PyObject *
combined_readers(PyObject *object, void *closure)
{
    (void)closure;
    combined_object *self = get_self(object);
    return self == NULL ? NULL : Py_NewRef(self->readers);
}

static PyGetSetDef combined_getset[] = {
    {"readers", combined_readers, NULL, "the captures, in their order", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef combined_methods[] = {
    {"info", combined_info, METH_NOARGS,
     PyDoc_STR("info($self, /)\n--\n\nReader.info() of each capture.")},
    {"totals", combined_totals, METH_NOARGS,
     PyDoc_STR("totals($self, /)\n--\n\nFigures of the whole run, of all and of each process.")},
    {"timeline", combined_timeline, METH_NOARGS,
     PyDoc_STR("timeline($self, /)\n--\n\nThe sum of the heaps over time.")},
    {"stats", (PyCFunction)(void (*)(void))combined_stats, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("stats($self, *, start_s=None, end_s=None, thread=None, include=(), exclude=())\n"
               "--\n\nSizes, domains, threads, lifetimes of what the filters let through.")},
    {"aggregate", (PyCFunction)(void (*)(void))combined_aggregate, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("aggregate($self, view='peak', *, start_s=None, end_s=None, thread=None, "
               "include=(), exclude=(), by_process=False)\n--\n\nA view of all, summed over what "
               "the filters let through.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot combined_slots[] = {
    {Py_tp_doc, (void *)(uintptr_t)"Combined(readers, *, with_inherited=False)\n--\n\nSeveral "
                                   "captures as one."},
    {Py_tp_init, (void *)(uintptr_t)combined_init},
    {Py_tp_dealloc, (void *)(uintptr_t)combined_dealloc},
    {Py_tp_methods, combined_methods},
    {Py_tp_getset, combined_getset},
    {0, NULL},
};

PyType_Spec ext_combined_spec = {
    .name = "pymemtrace._core.Combined",
    .basicsize = (int)sizeof(combined_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = combined_slots,
};
