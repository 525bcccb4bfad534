/* Reader: a capture. */
#define PY_SSIZE_T_CLEAN /* sizes of bytes are Py_ssize_t */
#include "reader.h"

#include <errno.h>

#include "aggregate.h"
#include "combined.h"
#include "events.h"
#include "pymemtrace/reader.h"
#include "state.h"
#include "symbols.h"
#include "values.h"
#include "where.h"

typedef struct {
    PyObject_HEAD
    PyObject *path;         /* owned: str */
    pmt_follower *follower; /* owned, or NULL */
    pmt_reader
        *reader; /* owned, or the follower's; NULL until __init__ and after a refresh that failed */
    values_sites sites; /* frames that site() has made; reader is NULL until then */
} reader_object;

static pmt_reader *
get_reader(PyObject *object)
{
    pmt_reader *reader = ((reader_object *)object)->reader;
    if (reader == NULL) {
        PyErr_SetString(PyExc_ValueError, "this reader is not open");
    }
    return reader;
}

/* --- opening --------------------------------------------------------------------------------- */

typedef struct {
    PyObject *callable;   /* borrowed, or NULL */
    PyThreadState *saved; /* while the GIL is released */
} progress;

/* Also where a long reading notices Ctrl-C. */
static int
report_progress(void *context, uint64_t done_bytes, uint64_t total_bytes)
{
    progress *self = context;
    PyEval_RestoreThread(self->saved);
    int failed = PyErr_CheckSignals() < 0;
    if (!failed && self->callable != NULL) {
        PyObject *result = PyObject_CallFunction(
            self->callable, "KK", (unsigned long long)done_bytes, (unsigned long long)total_bytes);
        failed = result == NULL;
        Py_XDECREF(result);
    }
    self->saved = PyEval_SaveThread();
    return failed;
}

static void
raise_for_file(reader_object *self, const pmt_error *err)
{
    if (err->code == PMT_ERR_IO) {
        errno = err->sys_errno;
        PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, self->path);
    } else {
        ext_raise(Py_TYPE(self), err);
    }
}

static int
reader_init(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static char path_key[] = "path";
    static char progress_key[] = "progress";
    static char symbols_key[] = "symbols";
    static char ignore_key[] = "ignore_symbols";
    static char hide_key[] = "hide_interpreter";
    static char follow_key[] = "follow";
    static char *keywords[] = {path_key, progress_key, symbols_key, ignore_key,
                               hide_key, follow_key,   NULL};
    reader_object *self = (reader_object *)object;
    PyObject *path;
    PyObject *callable = Py_None;
    const char *symbols = NULL;
    Py_ssize_t symbols_size = 0;
    int ignore = 0;
    int hide = 0;
    int follow = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$Oz#ppp:Reader", keywords, &path, &callable,
                                     &symbols, &symbols_size, &ignore, &hide, &follow)) {
        return -1;
    }
    if (self->reader != NULL || self->follower != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "this reader is open already");
        return -1;
    }
    PyObject *text;
    PyObject *bytes;
    if (!PyUnicode_FSDecoder(path, &text)) {
        return -1;
    }
    Py_XSETREF(self->path, text);
    if (!PyUnicode_FSConverter(text, &bytes)) {
        return -1;
    }
    progress state = {callable == Py_None ? NULL : callable, NULL};
    pmt_reader_options options = {.progress = report_progress,
                                  .context = &state,
                                  .symbols = symbols,
                                  .symbols_size = (size_t)symbols_size,
                                  .ignore_symbols = ignore,
                                  .hide_interpreter = hide};
    pmt_error err = PMT_ERROR_INIT;
    state.saved = PyEval_SaveThread();
    int result = follow
                     ? pmt_follower_open(&self->follower, PyBytes_AS_STRING(bytes), &options, &err)
                     : pmt_reader_open(&self->reader, PyBytes_AS_STRING(bytes), &options, &err);
    PyEval_RestoreThread(state.saved);
    Py_DECREF(bytes);
    if (result == PMT_OK) {
        if (follow) {
            self->reader = (pmt_reader *)(uintptr_t)pmt_follower_reader(self->follower);
        }
        return 0;
    }
    if (!PyErr_Occurred()) { /* what the progress function raised stays */
        raise_for_file(self, &err);
    }
    return -1;
}

static PyObject *
reader_refresh(PyObject *object, PyObject *unused)
{
    (void)unused;
    reader_object *self = (reader_object *)object;
    if (get_reader(object) == NULL) {
        return NULL;
    }
    if (self->follower == NULL) {
        PyErr_SetString(PyExc_ValueError, "this reader does not follow its capture");
        return NULL;
    }
    if (self->sites.reader != NULL) {
        values_sites_dispose(&self->sites); /* it has room for the frames that there were */
        self->sites.reader = NULL;
    }
    pmt_error err = PMT_ERROR_INIT;
    int result;
    Py_BEGIN_ALLOW_THREADS
    result = pmt_follower_refresh(self->follower, &err);
    Py_END_ALLOW_THREADS
    if (result < 0) {
        self->reader = NULL;
        raise_for_file(self, &err);
        return NULL;
    }
    return PyBool_FromLong(result);
}

static void
reader_dealloc(PyObject *object)
{
    reader_object *self = (reader_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (self->sites.reader != NULL) {
        values_sites_dispose(&self->sites);
    }
    if (self->follower != NULL) {
        pmt_follower_destroy(self->follower);
    } else {
        pmt_reader_destroy(self->reader);
    }
    Py_XDECREF(self->path);
    type->tp_free(object);
    Py_DECREF(type);
}

/* --- facts ----------------------------------------------------------------------------------- */

/* What a counter is called in reports; losses make "dropped". */
static const struct {
    int which;
    const char *name;
    int is_loss;
} counters[] = {
    {1, "memory limit", 1},
    {2, "folded stacks", 0},
    {3, "frees of earlier blocks", 0},
    {4, "other interpreters", 1},
    {5, "missed frees", 1},
    {6, "events without the GIL", 0},
    {7, "events without a Python stack", 0},
    {8, "stack caches dropped", 0},
    {9, "folded epochs", 0},
    {10, "re-attributed blocks", 0},
    {11, "folded threads", 0},
    {12, "events not in the log", 1},
    {13, "events", 0},
    {14, "hooks taken off", 1},
    {15, "flushes without new stacks", 0},
    {16, "events that could not wait", 1},
    {17, "task steps without their parents", 0},
};

static int
put_counters(PyObject *info, const pmt_capture *capture)
{
    PyObject *dropped = PyDict_New();
    PyObject *all = PyDict_New();
    int result = dropped == NULL || all == NULL ? -1 : 0;
    for (size_t i = 0; result == 0 && i < sizeof counters / sizeof *counters; i++) {
        uint64_t value = capture->counters[counters[i].which];
        if (value == 0) {
            continue;
        }
        result = values_put_u64(all, counters[i].name, value);
        if (result == 0 && counters[i].is_loss) {
            result = values_put_u64(dropped, counters[i].name, value);
        }
    }
    if (result == 0) {
        result = values_put(info, "dropped", Py_NewRef(dropped));
    }
    if (result == 0) {
        result = values_put(info, "counters", Py_NewRef(all));
    }
    Py_XDECREF(dropped);
    Py_XDECREF(all);
    return result;
}

/* A fact under its name in json.md, or None. */
static int
put_fact(PyObject *dict, const char *name, const pmt_reader *reader, const char *key)
{
    const pmt_fact *fact = pmt_reader_find_fact(reader, key);
    return values_put(dict, name, fact == NULL ? Py_NewRef(Py_None) : values_fact(fact));
}

static PyObject *
text_or_none(const char *text)
{
    return text == NULL ? Py_NewRef(Py_None) : PyUnicode_FromString(text);
}

static const char *const ended_names[] = {"", "normal", "killed", "running"};

/* By pmt_capture.main_ended. */
static const char *const main_names[] = {NULL, "return", "exit", "exception"};

static PyObject *
age_of(const pmt_capture *capture)
{
    double age = 0.0;
    if (capture->ended == PMT_ENDED_RUNNING && capture->last_cut_unix_ns != 0) {
        struct timespec now;
        timespec_get(&now, TIME_UTC);
        age = (double)now.tv_sec + (double)now.tv_nsec / 1e9
              - (double)capture->last_cut_unix_ns / 1e9;
    }
    return PyFloat_FromDouble(age < 0.0 ? 0.0 : age);
}

static PyObject *
id_of(const pmt_capture *capture)
{
    char digits[33];
    for (size_t i = 0; i < 16; i++) {
        static const char hex[] = "0123456789abcdef";
        digits[2 * i] = hex[capture->id[i] >> 4];
        digits[2 * i + 1] = hex[capture->id[i] & 15];
    }
    return PyUnicode_FromStringAndSize(digits, 32);
}

static int
put_sampling(PyObject *info, const pmt_capture *capture)
{
    if (!capture->sampled) {
        return 0;
    }
    return values_put_u64(info, "sample_bytes", capture->sample_bytes) < 0
               ? -1
               : values_put_u64(info, "sample_bytes_now", capture->sample_bytes_now);
}

PyObject *
ext_reader_info(PyObject *object)
{
    reader_object *self = (reader_object *)object;
    const pmt_reader *reader = get_reader(object);
    if (reader == NULL) {
        return NULL;
    }
    pmt_capture capture;
    pmt_reader_capture(reader, &capture);
    PyObject *info = PyDict_New();
    if (info == NULL) {
        return NULL;
    }
    if (values_put(info, "path", Py_NewRef(self->path)) < 0
        || values_put_u64(info, "pid", capture.pid) < 0
        || values_put_u64(info, "parent_pid", pmt_reader_parent_pid(reader)) < 0
        || values_put(info, "inherited", PyBool_FromLong(pmt_reader_inherited_epoch(reader) != 0))
               < 0
        || put_fact(info, "command", reader, "command") < 0
        || put_fact(info, "python", reader, "python") < 0
        || put_fact(info, "mode", reader, "mode") < 0 || put_sampling(info, &capture) < 0
        || values_put(info, "started", values_instant(capture.started_unix_ns)) < 0
        || values_put_seconds(info, "duration_s", capture.duration_ns) < 0
        || values_put(info, "ended", PyUnicode_FromString(ended_names[capture.ended])) < 0
        || values_put(info, "ended_by", text_or_none(main_names[capture.main_ended])) < 0
        || values_put(info, "exit_status",
                      capture.main_ended == 0 ? Py_NewRef(Py_None)
                                              : PyLong_FromUnsignedLongLong(capture.exit_status))
               < 0
        || values_put(info, "age_s", age_of(&capture)) < 0 || put_counters(info, &capture) < 0
        || values_put_u64(info, "folded", capture.counters[2]) < 0
        || values_put(info, "stopped", text_or_none(capture.stopped)) < 0
        || values_put(info, "damaged", text_or_none(capture.damaged ? capture.torn : NULL)) < 0
        || values_put(info, "torn", text_or_none(capture.damaged ? NULL : capture.torn)) < 0
        || values_put(info, "id", id_of(&capture)) < 0
        || values_put(info, "version",
                      PyUnicode_FromFormat("%d.%d", capture.version_major, capture.version_minor))
               < 0
        || values_put_u64(info, "cuts", pmt_reader_cut_count(reader)) < 0) {
        Py_DECREF(info);
        return NULL;
    }
    return info;
}

static PyObject *
reader_info(PyObject *object, PyObject *unused)
{
    (void)unused;
    return ext_reader_info(object);
}

static PyObject *
reader_proc(PyObject *object, PyObject *unused)
{
    (void)unused;
    const pmt_reader *reader = get_reader(object);
    PyObject *dict = reader == NULL ? NULL : PyDict_New();
    for (size_t i = 0; dict != NULL && i < pmt_reader_fact_count(reader); i++) {
        const pmt_fact *fact = pmt_reader_fact(reader, i);
        PyObject *key = values_text(fact->key);
        PyObject *value = key == NULL ? NULL : values_fact(fact);
        if (value == NULL || PyDict_SetItem(dict, key, value) < 0) {
            Py_CLEAR(dict);
        }
        Py_XDECREF(key);
        Py_XDECREF(value);
    }
    return dict;
}

static PyObject *
gc_of(const uint64_t gc[3])
{
    return Py_BuildValue("[KKK]", (unsigned long long)gc[0], (unsigned long long)gc[1],
                         (unsigned long long)gc[2]);
}

/* What the figures rest on. */
static int
put_samples(PyObject *dict, const pmt__totals *totals)
{
    return values_put_u64(dict, "samples_peak", totals->peak_spread.samples) < 0
                   || values_put_u64(dict, "samples_end", totals->end_spread.samples) < 0
                   || values_put_u64(dict, "samples", totals->allocated_spread.samples) < 0
               ? -1
               : 0;
}

int
ext_totals_put(PyObject *dict, const pmt__totals *totals)
{
    int is_estimate = totals->is_estimate;
    if (values_put_pair(dict, "heap_bytes_peak", totals->peak_bytes, "heap_blocks_peak",
                        totals->peak_blocks, is_estimate ? &totals->peak_spread : NULL)
            < 0
        || values_put_pair(dict, "heap_bytes_end", totals->end_bytes, "heap_blocks_end",
                           totals->end_blocks, is_estimate ? &totals->end_spread : NULL)
               < 0
        || values_put_pair(dict, "allocated_bytes", totals->allocated_bytes, "allocations",
                           totals->allocations, is_estimate ? &totals->allocated_spread : NULL)
               < 0
        || (is_estimate && put_samples(dict, totals) < 0)
        || values_put_u64(dict, "frees", totals->frees) < 0
        || values_put_u64(dict, "rss_bytes_peak", totals->rss_peak_bytes) < 0
        || values_put_u64(dict, "rss_bytes_end", totals->rss_end_bytes) < 0
        || values_put(dict, "gc_collections", gc_of(totals->gc)) < 0
        || values_put_u64(dict, "recorder_bytes", totals->own_bytes) < 0) {
        return -1;
    }
    return 0;
}

static PyObject *
reader_totals(PyObject *object, PyObject *unused)
{
    (void)unused;
    const pmt_reader *reader = get_reader(object);
    PyObject *dict = reader == NULL ? NULL : PyDict_New();
    if (dict == NULL) {
        return NULL;
    }
    pmt__totals totals;
    pmt_error err = PMT_ERROR_INIT;
    if (pmt__totals_compute(&totals, reader, 0, &err) < 0) {
        Py_DECREF(dict);
        return ext_raise(Py_TYPE(object), &err);
    }
    if (ext_totals_put(dict, &totals) < 0
        || values_put_seconds(dict, "peak_t_s", totals.peak_t_ns) < 0
        || values_put_seconds(dict, "end_t_s", totals.end_t_ns) < 0) {
        Py_DECREF(dict);
        return NULL;
    }
    return dict;
}

/* --- lists ----------------------------------------------------------------------------------- */

static PyObject *
make_thread(const pmt_thread *thread)
{
    PyObject *dict = PyDict_New();
    if (dict == NULL) {
        return NULL;
    }
    if (values_put_u64(dict, "id", thread->id) < 0
        || values_put_u64(dict, "native_id", thread->native_id) < 0
        || values_put_u64(dict, "python_id", thread->python_id) < 0
        || values_put(dict, "name", values_text(thread->name)) < 0
        || values_put_seconds(dict, "birth_s", thread->birth_ns) < 0
        || values_put(dict, "ended", PyBool_FromLong((long)(thread->flags & 1))) < 0
        || values_put_u64(dict, "interpreter", thread->interpreter) < 0) {
        Py_DECREF(dict);
        return NULL;
    }
    return dict;
}

static PyObject *
reader_threads(PyObject *object, PyObject *unused)
{
    (void)unused;
    const pmt_reader *reader = get_reader(object);
    PyObject *list = reader == NULL ? NULL : PyList_New(0);
    /* Without the one that stands for all that are not known. */
    for (size_t i = 1; list != NULL && i < pmt_reader_thread_count(reader); i++) {
        pmt_thread thread = pmt_reader_thread(reader, i);
        if (values_append(list, make_thread(&thread)) < 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

static PyObject *
make_cut(const pmt_cut *cut)
{
    PyObject *dict = PyDict_New();
    if (dict == NULL) {
        return NULL;
    }
    if (values_put_seconds(dict, "t_s", cut->t_ns) < 0
        || values_put_seconds(dict, "span_s", cut->span_ns) < 0
        || values_put(dict, "time", values_instant(cut->unix_ns)) < 0
        || values_put_u64(dict, "epoch", cut->epoch) < 0
        || values_put_u64(dict, "heap_bytes", cut->live_bytes) < 0
        || values_put_u64(dict, "heap_blocks", cut->live_blocks) < 0
        || values_put_u64(dict, "rss_bytes", cut->rss_bytes) < 0
        || values_put_u64(dict, "recorder_bytes", cut->own_bytes) < 0
        || values_put_u64(dict, "allocations", cut->allocations) < 0
        || values_put_u64(dict, "frees", cut->frees) < 0
        || values_put_u64(dict, "allocated_bytes", cut->allocated_bytes) < 0
        || values_put(dict, "gc_collections", gc_of(cut->gc)) < 0
        || values_put(dict, "main_returned", PyBool_FromLong((long)(cut->flags & 1))) < 0) {
        Py_DECREF(dict);
        return NULL;
    }
    return dict;
}

static PyObject *
reader_timeline(PyObject *object, PyObject *unused)
{
    (void)unused;
    const pmt_reader *reader = get_reader(object);
    PyObject *list = reader == NULL ? NULL : PyList_New(0);
    for (size_t i = 0; list != NULL && i < pmt_reader_cut_count(reader); i++) {
        if (values_append(list, make_cut(pmt_reader_cut(reader, i))) < 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

static PyObject *
make_mark(const pmt_mark *mark)
{
    PyObject *dict = PyDict_New();
    if (dict == NULL) {
        return NULL;
    }
    if (values_put_u64(dict, "epoch", mark->epoch) < 0
        || values_put_seconds(dict, "t_s", mark->t_ns) < 0
        || values_put(dict, "label", values_text(mark->label)) < 0) {
        Py_DECREF(dict);
        return NULL;
    }
    return dict;
}

static PyObject *
reader_marks(PyObject *object, PyObject *unused)
{
    (void)unused;
    const pmt_reader *reader = get_reader(object);
    PyObject *list = reader == NULL ? NULL : PyList_New(0);
    for (size_t i = 0; list != NULL && i < pmt_reader_mark_count(reader); i++) {
        pmt_mark mark = pmt_reader_mark(reader, i);
        if (values_append(list, make_mark(&mark)) < 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

static PyObject *
make_epoch(const pmt_reader *reader, const pmt__epoch *epoch, int sampled)
{
    PyObject *dict = PyDict_New();
    if (dict == NULL) {
        return NULL;
    }
    PyObject *label = epoch->mark == UINT32_MAX
                          ? Py_NewRef(Py_None)
                          : values_text(pmt_reader_mark(reader, epoch->mark).label);
    if (values_put_u64(dict, "epoch", epoch->epoch) < 0
        || values_put_seconds(dict, "start_s", epoch->start_ns) < 0
        || values_put_seconds(dict, "end_s", epoch->end_ns) < 0
        || values_put(dict, "label", label) < 0
        || values_put_u64(dict, "allocations", epoch->sums.total_blocks) < 0
        || values_put_u64(dict, "allocated_bytes", epoch->sums.total_bytes) < 0
        || values_put_u64(dict, "live_blocks", epoch->sums.leak_blocks) < 0
        || values_put_u64(dict, "live_bytes", epoch->sums.leak_bytes) < 0
        || values_put_known(dict, "temporaries", epoch->sums.temp_blocks, !sampled) < 0
        || values_put_known(dict, "temporary_bytes", epoch->sums.temp_bytes, !sampled) < 0) {
        Py_DECREF(dict);
        return NULL;
    }
    return dict;
}

static PyObject *
reader_epochs(PyObject *object, PyObject *unused)
{
    (void)unused;
    const pmt_reader *reader = get_reader(object);
    if (reader == NULL) {
        return NULL;
    }
    pmt_error err = PMT_ERROR_INIT;
    pmt__epochs epochs;
    int result;
    Py_BEGIN_ALLOW_THREADS
    result = pmt__epochs_init(&epochs, reader, &err);
    if (result == PMT_OK) {
        pmt__epochs_sum(&epochs, reader);
    }
    Py_END_ALLOW_THREADS
    PyObject *list = result < 0 ? ext_raise(Py_TYPE(object), &err) : PyList_New(0);
    int sampled = pmt__reader_is_sampled(reader);
    for (size_t i = 0; list != NULL && i < epochs.list.len; i++) {
        if (values_append(list, make_epoch(reader, &epochs.list.data[i], sampled)) < 0) {
            Py_CLEAR(list);
        }
    }
    pmt__epochs_dispose(&epochs);
    return list;
}

/* --- sites, the event log -------------------------------------------------------------------- */

static const char *const domain_names[] = {"", "obj", "mem", "raw", "malloc", "mmap", "track"};

static PyObject *
reader_site(PyObject *object, PyObject *number)
{
    reader_object *self = (reader_object *)object;
    const pmt_reader *reader = get_reader(object);
    Py_ssize_t id = reader == NULL ? -1 : PyNumber_AsSsize_t(number, PyExc_IndexError);
    if (id == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (id < 1 || (size_t)id > pmt_reader_site_count(reader)) {
        return PyErr_Format(PyExc_IndexError, "no site %zd: this capture has sites 1 to %zu", id,
                            pmt_reader_site_count(reader));
    }
    if (self->sites.reader == NULL && values_sites_init(&self->sites, reader) < 0) {
        self->sites.reader = NULL;
        return NULL;
    }
    pmt_site site = pmt_reader_site(reader, (uint32_t)id);
    pmt_thread thread = pmt_reader_thread(reader, site.thread);
    uint32_t frame = site.stack == 0 ? UINT32_MAX : pmt_reader_stack_frame(reader, site.stack);
    PyObject *dict = PyDict_New();
    if (dict != NULL
        && (values_put(dict, "site", values_site(&self->sites, frame)) < 0
            || values_put(dict, "stack", values_stack(&self->sites, site.stack)) < 0
            || values_put(dict, "size",
                          site.size == PMT_SITE_SIZELESS ? Py_NewRef(Py_None)
                                                         : PyLong_FromUnsignedLong(site.size))
                   < 0
            || values_put(dict, "domain", PyUnicode_FromString(domain_names[site.domain])) < 0
            || values_put(dict, "thread", make_thread(&thread)) < 0)) {
        Py_CLEAR(dict);
    }
    return dict;
}

static PyObject *
reader_event_log(PyObject *object, PyObject *unused)
{
    (void)unused;
    const pmt_reader *reader = get_reader(object);
    if (reader == NULL) {
        return NULL;
    }
    pmt_event_log log;
    pmt_reader_event_log(reader, &log);
    if (!log.present) {
        Py_RETURN_NONE;
    }
    PyObject *dict = PyDict_New();
    if (dict != NULL
        && (values_put_u64(dict, "events", log.events) < 0
            || values_put_u64(dict, "logged", log.logged) < 0
            || values_put_u64(dict, "complete", log.complete) < 0)) {
        Py_CLEAR(dict);
    }
    return dict;
}

static PyObject *
reader_events(PyObject *object, PyObject *unused)
{
    (void)unused;
    const ext_state *state = PyType_GetModuleState(Py_TYPE(object));
    const pmt_reader *reader = get_reader(object);
    return reader == NULL || state == NULL
               ? NULL
               : ext_events_new(state, object, reader, ((reader_object *)object)->path);
}

static PyObject *
reader_replay(PyObject *object, PyObject *args, PyObject *kwargs)
{
    const ext_state *state = PyType_GetModuleState(Py_TYPE(object));
    const pmt_reader *reader = get_reader(object);
    return reader == NULL || state == NULL
               ? NULL
               : ext_replay(state, reader, ((reader_object *)object)->path, args, kwargs);
}

/* --- statistics ------------------------------------------------------------------------------ */

static PyObject *
make_classes(const pmt__class *classes, size_t count, const char *blocks_key, int is_estimate)
{
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < count; i++) {
        const pmt__class *class = &classes[i];
        if ((class->blocks | class->bytes) == 0) {
            continue;
        }
        PyObject *dict = PyDict_New();
        if (dict == NULL || values_put_u64(dict, "low", class->low) < 0
            || values_put_u64(dict, "high", class->high) < 0
            || values_put_pair(dict, "bytes", class->bytes, blocks_key, class->blocks,
                               is_estimate ? &class->spread : NULL)
                   < 0) {
            Py_CLEAR(dict);
        }
        if (values_append(list, dict) < 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

static int
put_sums(PyObject *dict, const pmt__sums *sums, int is_estimate)
{
    if (values_put_pair(dict, "allocated_bytes", sums->total_bytes, "allocations",
                        sums->total_blocks, is_estimate ? &sums->total : NULL)
            < 0
        || values_put_pair(dict, "peak_bytes", sums->peak_bytes, "peak_blocks", sums->peak_blocks,
                           is_estimate ? &sums->peak : NULL)
               < 0
        || values_put_pair(dict, "end_bytes", sums->leak_bytes, "end_blocks", sums->leak_blocks,
                           is_estimate ? &sums->leak : NULL)
               < 0
        || (is_estimate && values_put_u64(dict, "samples", sums->total.samples) < 0)
        || values_put_known(dict, "temporaries", sums->temp_blocks, !is_estimate) < 0
        || values_put_known(dict, "temporary_bytes", sums->temp_bytes, !is_estimate) < 0) {
        return -1;
    }
    return 0;
}

static PyObject *
make_domains(const pmt__stats *stats)
{
    PyObject *dict = PyDict_New();
    for (size_t i = 1; dict != NULL && i < PMT_DOMAIN_COUNT; i++) {
        PyObject *domain = PyDict_New();
        if (domain == NULL || put_sums(domain, &stats->domains[i], stats->is_estimate) < 0) {
            Py_CLEAR(domain);
        }
        if (values_put(dict, domain_names[i], domain) < 0) {
            Py_CLEAR(dict);
        }
    }
    return dict;
}

PyObject *
ext_thread_sums_make(const pmt__stats *stats, const pmt_reader *reader)
{
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < pmt_reader_thread_count(reader); i++) {
        const pmt__sums *sums = &stats->threads[i];
        bool has_any = (sums->total_blocks | sums->peak_blocks | sums->leak_blocks) != 0;
        if (!has_any && (i == 0 || stats->filtered)) {
            continue;
        }
        pmt_thread thread = pmt_reader_thread(reader, i);
        PyObject *dict = make_thread(&thread);
        if (dict != NULL && put_sums(dict, sums, stats->is_estimate) < 0) {
            Py_CLEAR(dict);
        }
        if (values_append(list, dict) < 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

static PyObject *
make_sizes(const pmt__stats *stats)
{
    int is_estimate = stats->is_estimate;
    PyObject *list = make_classes(stats->sizes, PMT_SIZE_CLASSES, "allocations", is_estimate);
    PyObject *large =
        list == NULL ? NULL : make_classes(&stats->large, 1, "allocations", is_estimate);
    if (large == NULL || PyList_SetSlice(list, PY_SSIZE_T_MAX, PY_SSIZE_T_MAX, large) < 0) {
        Py_CLEAR(list);
    }
    Py_XDECREF(large);
    return list;
}

PyObject *
ext_stats_make(const pmt__stats *stats, PyObject *by_thread)
{
    PyObject *dict = PyDict_New();
    if (dict != NULL
        && (values_put(dict, "window", values_window(stats->start_ns, stats->end_ns)) < 0
            || values_put(dict, "size_histogram", make_sizes(stats)) < 0
            || values_put(dict, "by_domain", make_domains(stats)) < 0
            || values_put(dict, "by_thread", Py_XNewRef(by_thread)) < 0
            || values_put(dict, "lifetimes",
                          make_classes(stats->ages, PMT_AGE_CLASSES, "blocks", 0))
                   < 0
            || values_put_u64(dict, "frees", stats->frees) < 0
            || put_sums(dict, &stats->total, stats->is_estimate) < 0)) {
        Py_CLEAR(dict);
    }
    Py_XDECREF(by_thread);
    return dict;
}

static PyObject *
ask_stats(PyObject *object, PyObject *args, PyObject *kwargs, int only_threads)
{
    const pmt_reader *reader = get_reader(object);
    if (reader == NULL) {
        return NULL;
    }
    static char inherited_key[] = "with_inherited";
    ext_query query = {.flag = 1};
    PyObject *answer = NULL;
    if (ext_query_parse(&query, args, kwargs, 0, inherited_key) == 0) {
        query.query.exclude_epoch = query.flag ? 0 : pmt_reader_inherited_epoch(reader);
        pmt_error err = PMT_ERROR_INIT;
        pmt__stats stats;
        int result;
        Py_BEGIN_ALLOW_THREADS
        result = only_threads ? pmt__stats_query_threads(&stats, reader, &query.query, &err)
                              : pmt__stats_query(&stats, reader, &query.query, &err);
        Py_END_ALLOW_THREADS
        answer =
            result < 0 ? ext_raise(Py_TYPE(object), &err) : ext_thread_sums_make(&stats, reader);
        if (answer != NULL && !only_threads) {
            answer = ext_stats_make(&stats, answer);
        }
        pmt__stats_dispose(&stats);
    }
    ext_query_dispose(&query);
    return answer;
}

static PyObject *
reader_stats(PyObject *object, PyObject *args, PyObject *kwargs)
{
    return ask_stats(object, args, kwargs, 0);
}

static PyObject *
reader_thread_sums(PyObject *object, PyObject *args, PyObject *kwargs)
{
    return ask_stats(object, args, kwargs, 1);
}

static PyObject *
reader_where(PyObject *object, PyObject *args, PyObject *kwargs)
{
    const ext_state *state = PyType_GetModuleState(Py_TYPE(object));
    const pmt_reader *reader = get_reader(object);
    return reader == NULL || state == NULL ? NULL : ext_where(state, reader, args, kwargs);
}

static PyObject *
reader_where_timeline(PyObject *object, PyObject *unused)
{
    (void)unused;
    const pmt_reader *reader = get_reader(object);
    return reader == NULL ? NULL : ext_where_timeline(reader);
}

static PyObject *
reader_unresolved(PyObject *object, PyObject *unused)
{
    (void)unused;
    const pmt_reader *reader = get_reader(object);
    return reader == NULL ? NULL : ext_unresolved(reader);
}

static PyObject *
reader_append_symbols(PyObject *object, PyObject *bytes)
{
    const pmt_reader *reader = get_reader(object);
    return reader == NULL ? NULL
                          : ext_append_symbols(reader, ((reader_object *)object)->path, bytes);
}

/* --- type ------------------------------------------------------------------------------------ */

static PyObject *
reader_aggregate(PyObject *object, PyObject *args, PyObject *kwargs)
{
    const pmt_reader *reader = get_reader(object);
    const ext_state *state = PyType_GetModuleState(Py_TYPE(object));
    if (reader == NULL || state == NULL) {
        return NULL;
    }
    return ext_aggregate_new((PyTypeObject *)state->aggregate_type, object, reader, args, kwargs);
}

static PyObject *
reader_path(PyObject *object, void *closure)
{
    (void)closure;
    PyObject *path = ((reader_object *)object)->path;
    return Py_NewRef(path == NULL ? Py_None : path);
}

static PyGetSetDef reader_getset[] = {
    {"path", reader_path, NULL, "where the capture was read from", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef reader_methods[] = {
    {"refresh", reader_refresh, METH_NOARGS,
     PyDoc_STR("refresh($self, /)\n--\n\nTakes in what was appended to a capture that is followed; "
               "whether there was anything.")},
    {"info", reader_info, METH_NOARGS,
     PyDoc_STR("info($self, /)\n--\n\nThe capture in short: one entry of `captures` in the JSON of "
               "the commands.")},
    {"proc", reader_proc, METH_NOARGS,
     PyDoc_STR("proc($self, /)\n--\n\nAll facts about the process.")},
    {"totals", reader_totals, METH_NOARGS,
     PyDoc_STR("totals($self, /)\n--\n\nFigures of the whole run.")},
    {"threads", reader_threads, METH_NOARGS, PyDoc_STR("threads($self, /)\n--\n\nAll threads.")},
    {"timeline", reader_timeline, METH_NOARGS,
     PyDoc_STR("timeline($self, /)\n--\n\nOne entry per cut; what counts is cumulative.")},
    {"marks", reader_marks, METH_NOARGS,
     PyDoc_STR("marks($self, /)\n--\n\nWhat the program marked.")},
    {"epochs", reader_epochs, METH_NOARGS,
     PyDoc_STR("epochs($self, /)\n--\n\nThe epochs, with what was allocated in each and what of it "
               "was alive at the end.")},
    {"site", reader_site, METH_O,
     PyDoc_STR("site($self, site_id, /)\n--\n\nWhat a site id stands for.")},
    {"event_log", reader_event_log, METH_NOARGS,
     PyDoc_STR("event_log($self, /)\n--\n\nWhat there is of an event log; None without one.")},
    {"events", reader_events, METH_NOARGS,
     PyDoc_STR("events($self, /)\n--\n\nThe events of the log, in order.")},
    {"replay", (PyCFunction)(void (*)(void))reader_replay, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("replay($self, stop=None)\n--\n\nThe heap after the first `stop` events, from the "
               "log.")},
    {"stats", (PyCFunction)(void (*)(void))reader_stats, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("stats($self, *, start_s=None, end_s=None, thread=None, include=(), exclude=(), "
               "with_inherited=True)\n--\n\nSizes, domains, threads, lifetimes of what the filters "
               "let through.")},
    {"thread_sums", (PyCFunction)(void (*)(void))reader_thread_sums, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("thread_sums($self, *, start_s=None, end_s=None, thread=None, include=(), "
               "exclude=(), with_inherited=True)\n--\n\n`by_thread` of stats(), alone.")},
    {"where", (PyCFunction)(void (*)(void))reader_where, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("where($self, at_s=None)\n--\n\nHow the resident memory was made up at the last "
               "measurement (not behind at_s); None if there is none.")},
    {"where_timeline", reader_where_timeline, METH_NOARGS,
     PyDoc_STR("where_timeline($self, /)\n--\n\nThe same at every measurement, in short.")},
    {"unresolved", reader_unresolved, METH_NOARGS,
     PyDoc_STR("unresolved($self, /)\n--\n\nThe native places without symbols: (object, build id, "
               "offsets) for each object.")},
    {"append_symbols", reader_append_symbols, METH_O,
     PyDoc_STR("append_symbols($self, symbols, /)\n--\n\nAppends what encode_symbols gave to the "
               "capture; False if that is not possible.")},
    {"aggregate", (PyCFunction)(void (*)(void))reader_aggregate, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("aggregate($self, view='peak', *, start_s=None, end_s=None, thread=None, "
               "include=(), exclude=(), with_inherited=True)\n--\n\nA view, summed over what the "
               "filters let through.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot reader_slots[] = {
    {Py_tp_doc,
     (void *)(uintptr_t)"Reader(path, *, progress=None, follow=False)\n--\n\nA capture, read up to "
                        "its last complete cut."},
    {Py_tp_init, (void *)(uintptr_t)reader_init},
    {Py_tp_dealloc, (void *)(uintptr_t)reader_dealloc},
    {Py_tp_methods, reader_methods},
    {Py_tp_getset, reader_getset},
    {0, NULL},
};

static PyType_Spec reader_spec = {
    .name = "pymemtrace._core.Reader",
    .basicsize = (int)sizeof(reader_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = reader_slots,
};

static PyObject *
add_type(PyObject *module, PyType_Spec *spec)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    if (type != NULL && PyModule_AddType(module, (PyTypeObject *)type) < 0) {
        Py_CLEAR(type);
    }
    return type;
}

const pmt_reader *
ext_reader_get(PyObject *module, PyObject *object)
{
    if (!Py_IS_TYPE(object, (PyTypeObject *)ext_state_get(module)->reader_type)) {
        PyErr_Format(PyExc_TypeError, "a Reader is needed, not %.100s", Py_TYPE(object)->tp_name);
        return NULL;
    }
    return get_reader(object);
}

int
ext_reader_add(PyObject *module)
{
    ext_state *state = ext_state_get(module);
    state->reader_type = add_type(module, &reader_spec);
    if (state->reader_type == NULL) {
        return -1;
    }
    state->aggregate_type = add_type(module, &ext_aggregate_spec);
    if (state->aggregate_type == NULL) {
        return -1;
    }
    state->combined_type = add_type(module, &ext_combined_spec);
    if (state->combined_type == NULL) {
        return -1;
    }
    state->events_type = PyType_FromModuleAndSpec(module, &ext_events_spec, NULL);
    return state->events_type == NULL ? -1 : 0;
}
