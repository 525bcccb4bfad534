#include "events.h"

#include "analyze/replay.h"
#include "values.h"

#define REPLAY_STEP ((uint64_t)1 << 20) /* events between two looks for Ctrl-C */

typedef struct {
    PyObject_HEAD
    PyObject *reader_object; /* owned: Reader */
    pmt_event_walk *walk;    /* owned */
    PyObject *kinds[6];      /* owned: str */
} events_object;

static const char *const kind_names[] = {"alloc",        "free",        "realloc-alloc",
                                         "realloc-free", "reuse-alloc", "reuse-free"};

static pmt_event_walk *
open_walk(const ext_state *state, const pmt_reader *reader, PyObject *path)
{
    PyObject *bytes;
    if (!PyUnicode_FSConverter(path, &bytes)) {
        return NULL;
    }
    pmt_error err = PMT_ERROR_INIT;
    pmt_event_walk *walk;
    if (pmt_event_walk_open(&walk, reader, PyBytes_AS_STRING(bytes), &err) < 0) {
        ext_errors_raise(&state->errors, &err);
    }
    Py_DECREF(bytes);
    return walk;
}

/* 0, or -1 with an exception set. */
static int
require_log(const pmt_reader *reader)
{
    pmt_event_log log;
    pmt_reader_event_log(reader, &log);
    if (!log.present) {
        PyErr_SetString(PyExc_ValueError,
                        "this capture has no event log: record with --events (events=True)");
        return -1;
    }
    return 0;
}

/* --- the iterator ------------------------------------------------------------------------------ */

PyObject *
ext_events_new(const ext_state *state, PyObject *reader_object, const pmt_reader *reader,
               PyObject *path)
{
    PyTypeObject *type = (PyTypeObject *)state->events_type;
    if (require_log(reader) < 0) {
        return NULL;
    }
    events_object *self = (events_object *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->reader_object = Py_NewRef(reader_object);
    self->walk = open_walk(state, reader, path);
    int failed = self->walk == NULL;
    for (size_t i = 0; i < sizeof kind_names / sizeof *kind_names; i++) {
        self->kinds[i] = PyUnicode_InternFromString(kind_names[i]);
        failed |= self->kinds[i] == NULL;
    }
    if (failed) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static void
events_dealloc(PyObject *object)
{
    events_object *self = (events_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    pmt_event_walk_destroy(self->walk);
    for (size_t i = 0; i < sizeof kind_names / sizeof *kind_names; i++) {
        Py_XDECREF(self->kinds[i]);
    }
    Py_XDECREF(self->reader_object);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyObject *
events_next(PyObject *object)
{
    events_object *self = (events_object *)object;
    pmt_event event;
    pmt_error err = PMT_ERROR_INIT;
    int result = pmt_event_walk_next(self->walk, &event, &err);
    if (result <= 0) {
        return result == 0 ? NULL : ext_raise(Py_TYPE(object), &err);
    }
    PyObject *size = event.size == PMT_EVENT_SIZE_UNKNOWN ? Py_NewRef(Py_None)
                                                          : PyLong_FromUnsignedLongLong(event.size);
    return Py_BuildValue("(KdOIKN)", (unsigned long long)event.number, (double)event.t_ns / 1e9,
                         self->kinds[event.kind], (unsigned int)event.site,
                         (unsigned long long)event.address, size);
}

static PyType_Slot events_slots[] = {
    {Py_tp_doc, (void *)(uintptr_t)"The events of a log, in order."},
    {Py_tp_dealloc, (void *)(uintptr_t)events_dealloc},
    {Py_tp_iter, (void *)(uintptr_t)PyObject_SelfIter},
    {Py_tp_iternext, (void *)(uintptr_t)events_next},
    {0, NULL},
};

PyType_Spec ext_events_spec = {
    .name = "pymemtrace._core.EventIterator",
    .basicsize = (int)sizeof(events_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = events_slots,
};

/* --- the replay -------------------------------------------------------------------------------- */

static PyObject *
make_sites(const pmt__replay *replay)
{
    PyObject *dict = PyDict_New();
    for (size_t id = 1; dict != NULL && id <= replay->site_count; id++) {
        const pmt__replay_site *site = &replay->sites[id];
        if (site->blocks == 0) {
            continue;
        }
        PyObject *key = PyLong_FromSize_t(id);
        PyObject *value = Py_BuildValue("(KK)", (unsigned long long)site->blocks,
                                        (unsigned long long)site->bytes);
        if (key == NULL || value == NULL || PyDict_SetItem(dict, key, value) < 0) {
            Py_CLEAR(dict);
        }
        Py_XDECREF(key);
        Py_XDECREF(value);
    }
    return dict;
}

static PyObject *
make_result(const pmt__replay *replay)
{
    PyObject *dict = PyDict_New();
    if (dict != NULL
        && (values_put_u64(dict, "events", replay->events) < 0
            || values_put_u64(dict, "allocations", replay->allocations) < 0
            || values_put_u64(dict, "frees", replay->frees) < 0
            || values_put_u64(dict, "allocated_bytes", replay->allocated_bytes) < 0
            || values_put_u64(dict, "live_bytes", replay->live_bytes) < 0
            || values_put_u64(dict, "live_blocks", replay->live_blocks) < 0
            || values_put_u64(dict, "peak_bytes", replay->peak_bytes) < 0
            || values_put_u64(dict, "peak_stop", replay->peak_stop) < 0
            || values_put_seconds(dict, "peak_t_s", replay->peak_t_ns) < 0
            || values_put_u64(dict, "unmatched", replay->unmatched) < 0
            || values_put(dict, "sites", make_sites(replay)) < 0)) {
        Py_CLEAR(dict);
    }
    return dict;
}

PyObject *
ext_replay(const ext_state *state, const pmt_reader *reader, PyObject *path, PyObject *args,
           PyObject *kwargs)
{
    static char stop_key[] = "stop";
    static char *keywords[] = {stop_key, NULL};
    PyObject *stop_object = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:replay", keywords, &stop_object)) {
        return NULL;
    }
    uint64_t stop = UINT64_MAX;
    if (stop_object != Py_None) {
        stop = PyLong_AsUnsignedLongLong(stop_object);
        if (stop == UINT64_MAX && PyErr_Occurred()) {
            return NULL;
        }
    }
    if (require_log(reader) < 0) {
        return NULL;
    }
    pmt_event_walk *walk = open_walk(state, reader, path);
    if (walk == NULL) {
        return NULL;
    }
    pmt_error err = PMT_ERROR_INIT;
    pmt__replay replay;
    int result = pmt__replay_init(&replay, reader, walk, stop, &err);
    int more = 1;
    while (result == PMT_OK && more) {
        Py_BEGIN_ALLOW_THREADS
        result = pmt__replay_run(&replay, REPLAY_STEP, &err);
        Py_END_ALLOW_THREADS
        more = result > 0;
        if (result > 0) {
            result = PyErr_CheckSignals() < 0 ? PMT_ERR_STATE : PMT_OK;
        }
    }
    PyObject *dict = NULL;
    if (result == PMT_OK) {
        dict = make_result(&replay);
    } else if (!PyErr_Occurred()) {
        ext_errors_raise(&state->errors, &err);
    }
    pmt__replay_dispose(&replay);
    pmt_event_walk_destroy(walk);
    return dict;
}
