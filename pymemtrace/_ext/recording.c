/* start, stop, mark and what goes with them: converts arguments and facts, calls src/record and src/cpython. */
#include "recording.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "attach.h"
#include "attend.h"
#include "base/error.h"
#include "cpython/pending.h"
#include "cpython/recorder.h"
#include "cpython/run_main.h"
#include "errors.h"
#include "format/encode.h"
#include "head.h"
#include "native/children.h"
#include "native/connect.h"
#include "native/pair.h"
#include "native/patch.h"
#include "platform/platform.h"
#include "record/sample.h"
#include "record/writer.h"
#include "state.h"
#include "symbols.h"
#include "where.h"

#define DEFAULT_INTERVAL_S 1.0
#define DURATION_MAX_S 1e9
#define ENDING_TRIES 1000
#define ENDING_PAUSE_NS 100000

static PyObject *
raise_for(PyObject *module, const pmt_error *err)
{
    return ext_errors_raise(&ext_state_get(module)->errors, err);
}

/* --- facts -------------------------------------------------------------------------------------------------------------------- */

typedef struct facts {
    pmt__buffer buffer;
    uint32_t count;
} facts;

/* Facts are text for people: what is not valid UTF-8 (surrogates) is replaced. */
static int
fact_put_object(facts *self, const char *key, PyObject *value)
{
    PyObject *bytes = PyUnicode_AsEncodedString(value, "utf-8", "replace");
    if (bytes == NULL) {
        return -1;
    }
    pmt__fact_put_text(&self->buffer, key, PyBytes_AS_STRING(bytes));
    self->count++;
    Py_DECREF(bytes);
    return 0;
}

static int
fact_put_sys(facts *self, const char *key, const char *name)
{
    PyObject *value = PySys_GetObject(name); /* borrowed */
    return value == NULL || !PyUnicode_Check(value) ? 0 : fact_put_object(self, key, value);
}

/* A list of the strings in a sequence; other items are left out. */
static int
fact_put_sequence(facts *self, const char *key, PyObject *sequence)
{
    PyObject *items = PySequence_List(sequence);
    if (items == NULL) {
        return -1;
    }
    Py_ssize_t count = PyList_GET_SIZE(items);
    PyObject *encoded = PyList_New(0);
    const char **texts = PyMem_Calloc((size_t)count + 1, sizeof *texts);
    int rc = encoded == NULL || texts == NULL ? -1 : 0;
    size_t used = 0;
    for (Py_ssize_t i = 0; rc == 0 && i < count; i++) {
        PyObject *item = PyList_GET_ITEM(items, i); /* borrowed */
        if (!PyUnicode_Check(item)) {
            continue;
        }
        PyObject *bytes = PyUnicode_AsEncodedString(item, "utf-8", "replace");
        rc = bytes == NULL ? -1 : PyList_Append(encoded, bytes);
        if (rc == 0) {
            texts[used++] = PyBytes_AS_STRING(bytes);
        }
        Py_XDECREF(bytes);
    }
    if (rc == 0) {
        pmt__fact_put_list(&self->buffer, key, texts, used);
        self->count++;
    }
    PyMem_Free(texts);
    Py_XDECREF(encoded);
    Py_DECREF(items);
    return rc;
}

static void
fact_put_number(facts *self, const char *key, uint64_t value)
{
    pmt__fact_put_number(&self->buffer, key, value);
    self->count++;
}

static int
facts_collect(facts *self, PyObject *argv, int sampled)
{
    char version[64];
    snprintf(version, sizeof version, "%lu.%lu.%lu", Py_Version >> 24 & 0xff,
             Py_Version >> 16 & 0xff, Py_Version >> 8 & 0xff);
    pmt__fact_put_text(&self->buffer, "pymemtrace", PMT_VERSION);
    pmt__fact_put_text(&self->buffer, "python", version);
    pmt__fact_put_text(&self->buffer, "implementation", "cpython");
    pmt__fact_put_text(&self->buffer, "mode", sampled ? "sampled" : "full");
    pmt__fact_put_text(&self->buffer, "allocator", pmt__cpython_allocator_name());
    self->count += 5;
    char cwd[4096];
    if (getcwd(cwd, sizeof cwd) != NULL) {
        pmt__fact_put_text(&self->buffer, "cwd", cwd);
        self->count++;
    }
    fact_put_number(self, "uid", (uint64_t)getuid());
    PyObject *path = PySys_GetObject("path"); /* borrowed */
    if (fact_put_sys(self, "executable", "executable") < 0
        || fact_put_sys(self, "prefix", "prefix") < 0
        || fact_put_sys(self, "base_prefix", "base_prefix") < 0
        || fact_put_sys(self, "stdlib", "_stdlib_dir") < 0
        || fact_put_sequence(self, "command", argv) < 0
        || (path != NULL && PySequence_Check(path)
            && fact_put_sequence(self, "sys_path", path) < 0)) {
        return -1;
    }
    return self->buffer.failed ? (PyErr_NoMemory(), -1) : 0;
}

/* What a process that ran already had when the recording began. */
static void
facts_put_attached(facts *self, int64_t blocks)
{
    struct timespec now;
    const uint64_t tick_ns = 1000000000u / (uint64_t)sysconf(_SC_CLK_TCK);
    clock_gettime(CLOCK_BOOTTIME, &now);
    const uint64_t now_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    const uint64_t started_ns = pmt__process_start_ticks() * tick_ns;
    fact_put_number(self, "attached_age_ns", now_ns > started_ns ? now_ns - started_ns : 0);
    fact_put_number(self, "attached_rss_bytes", pmt__process_rss_bytes());
    fact_put_number(self, "attached_blocks", (uint64_t)blocks);
}

/* The path of the preload library, beside this extension; NULL if it is not there. */
static const char *
preload_library(char *path, size_t size)
{
    Dl_info own;
    if (dladdr((const void *)(uintptr_t)&preload_library, &own) == 0 || own.dli_fname == NULL) {
        return NULL;
    }
    const char *slash = strrchr(own.dli_fname, '/');
    int folder = slash == NULL ? 0 : (int)(slash - own.dli_fname + 1);
    int length = snprintf(path, size, "%.*s_preload.so", folder, own.dli_fname);
    return length > 0 && (size_t)length < size && access(path, R_OK) == 0 ? path : NULL;
}

/* --- start and stop ------------------------------------------------------------------------------------------------------------ */

static int
    runs_program; /* `pymemtrace run`: its user waits for the capture and must hear what is wrong with it, -q or not */

static void
stop_at_exit(void)
{
    if (!pmt__record_active()) {
        return;
    }
    pmt__record_stop(PMT_END_NORMAL);
    char line[4600] = "pymemtrace: ";
    size_t start = strlen(line);
    size_t length = pmt__record_complaint(line + start, sizeof line - start - 1);
    if (runs_program && length != 0) {
        line[start + length] = '\n';
        const ssize_t written = write(STDERR_FILENO, line, start + length + 1);
        (void)written;
    }
}

/* Names for the threads that exist now, from the threading module if the program has loaded it. */
static void
threads_name(void)
{
    PyObject *module = PyUnicode_FromString("threading");
    PyObject *attribute = PyUnicode_FromString("_name");
    PyObject *threading = module == NULL || attribute == NULL ? NULL : PyImport_GetModule(module);
    PyObject *active = threading == NULL ? NULL : PyObject_GetAttrString(threading, "_active");
    /* A copy: a descriptor of the program could change the dict. */
    Py_XSETREF(active, active != NULL && PyDict_Check(active) ? PyDict_Copy(active) : NULL);
    if (active != NULL) {
        PyObject *ident, *thread;
        Py_ssize_t at = 0;
        while (PyDict_Next(active, &at, &ident, &thread)) {
            PyObject *name =
                PyObject_GenericGetAttr(thread, attribute); /* not the program's __getattribute__ */
            if (name != NULL && PyUnicode_Check(name) && PyLong_Check(ident)) {
                pmt__text text = {PyUnicode_DATA(name), (size_t)PyUnicode_GET_LENGTH(name),
                                  (uint8_t)PyUnicode_KIND(name)};
                pmt__record_thread_name(PyLong_AsUnsignedLongMask(ident), &text);
            }
            Py_XDECREF(name);
            PyErr_Clear();
        }
    }
    PyErr_Clear();
    Py_XDECREF(active);
    Py_XDECREF(threading);
    Py_XDECREF(attribute);
    Py_XDECREF(module);
}

static int attached; /* Protected by the GIL: the recording was begun from outside */

static void
stop_recording(void)
{
    threads_name();
    pmt__cpython_check_hooks();
    pmt__cpython_uninstall();
    pmt__record_stop(PMT_END_BY_PROGRAM);
}

/* The writer may ask the interpreter to end the recording, but not one that is gone. */
static pthread_mutex_t ending = PTHREAD_MUTEX_INITIALIZER;
static int interpreter_ends; /* Protected by ending */

static int
end_py(void *unused)
{
    (void)unused;
    if (pmt__record_due()) {
        stop_recording();
    }
    return 0;
}

static void
end_soon(void)
{
    pthread_mutex_lock(&ending);
    if (!interpreter_ends) {
        pmt__cpython_call_soon(end_py);
    }
    pthread_mutex_unlock(&ending);
}

PyDoc_STRVAR(
    start_doc,
    "start(path, *, argv, force=False, events=False, max_memory_bytes=0, max_size_bytes=0,\n"
    "      temporaries=1, interval_s=1.0, native=True, native_traces=False,\n"
    "      async_parents=False, sample_bytes=0, box_bytes=0, max_overhead_ppm=0, follow=None,\n"
    "      base=None, parent=0, generation=0, duration_s=0.0, attached=-1)\n--\n\n"
    "Records this process from now on into a new capture at path.\n\n"
    "native: also what goes past Python's allocators, where the preloaded library is there.\n"
    "native_traces: the stacks contain the frames of C functions, too.\n"
    "async_parents: those of asyncio's tasks contain the frames of the tasks that await them.\n"
    "follow: children are recorded too, into <path without .pmt>.<pid>.pmt, or <base>.<pid>.pmt;\n"
    "the words are for executed ones (src/native/exec.c). parent, generation: facts of such one.\n"
    "duration_s: the recording ends by itself; 0: it does not. attached: it was begun from "
    "outside,\n"
    "when so many blocks were there already.\n"
    "0 bytes means no limit set by the caller. Raises CaptureExistsError, UnsupportedError,\n"
    "OSError, ValueError; then nothing is recorded.");

/* PyUnicode_FSConverter, with None for nothing. */
static int
fs_or_none(PyObject *object, void *out)
{
    return object == Py_None ? 1 : PyUnicode_FSConverter(object, out);
}

/* --- forks ---------------------------------------------------------------------------------------------------------------------- */

static const void *fork_frame; /* which called os.fork; with the GIL */

static int
writer_restart(void *unused)
{
    (void)unused;
    if (pmt__cpython_is_called_by(
            fork_frame)) { /* in another callback (logging has one): not yet */
        Py_AddPendingCall(writer_restart, NULL);
        return 0;
    }
    fork_frame = NULL;
    pmt__writer_restart_now();
    return 0;
}

/* After os.fork, still in it: the writer's thread starts when that has returned, as from 3.12 on it warns of threads. An event starts it,
   too; but who waits for its children has none, and who is sampled has few. */
static PyObject *
forked(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    fork_frame = pmt__cpython_frame_now();
    Py_AddPendingCall(writer_restart, NULL);
    Py_RETURN_NONE;
}

/* Once per process: they stay for ever. -1: an exception is set. */
static int
forks_watch(void)
{
    static PyMethodDef definition = {"forked", forked, METH_NOARGS, NULL};
    static int is_done;
    if (is_done) {
        return 0;
    }
    int rc = -1;
    PyObject *name = PyUnicode_FromString("posix");
    PyObject *posix = name == NULL ? NULL : PyImport_GetModule(name); /* runs no code of anybody */
    Py_XDECREF(name);
    PyObject *function = posix == NULL ? NULL : PyObject_GetAttrString(posix, "register_at_fork");
    PyObject *restart = PyCFunction_New(&definition, NULL);
    PyObject *names = Py_BuildValue("(ss)", "after_in_parent", "after_in_child");
    if (function != NULL && restart != NULL && names != NULL) {
        PyObject *const values[] = {restart, restart};
        PyObject *none = PyObject_Vectorcall(function, values, 0, names);
        rc = none == NULL ? -1 : 0;
        Py_XDECREF(none);
    }
    Py_XDECREF(names);
    Py_XDECREF(restart);
    Py_XDECREF(function);
    Py_XDECREF(posix);
    is_done = rc == 0;
    return rc;
}

static PyObject *
core_start(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"path",
                            "argv",
                            "force",
                            "events",
                            "max_memory_bytes",
                            "max_size_bytes",
                            "temporaries",
                            "interval_s",
                            "native",
                            "native_traces",
                            "async_parents",
                            "sample_bytes",
                            "box_bytes",
                            "max_overhead_ppm",
                            "follow",
                            "base",
                            "parent",
                            "generation",
                            "duration_s",
                            "attached",
                            NULL};
    static int exit_registered;
    PyObject *path = NULL, *argv = NULL, *follow = NULL, *base = NULL;
    unsigned long long parent = 0;
    unsigned int generation = 0;
    int force = 0, events = 0, native = 1, native_traces = 0, async_parents = 0;
    unsigned int temporaries = 1, max_overhead_ppm = 0;
    unsigned long long max_memory = 0, max_size = 0, sample = 0, box = 0;
    double interval_s = DEFAULT_INTERVAL_S, duration_s = 0;
    long long blocks = -1;
    pmt_error err = PMT_ERROR_INIT;
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "O&|$OppKKIdpppKKIO&O&KIdL:start", names, PyUnicode_FSConverter, &path,
            &argv, &force, &events, &max_memory, &max_size, &temporaries, &interval_s, &native,
            &native_traces, &async_parents, &sample, &box, &max_overhead_ppm, fs_or_none, &follow,
            fs_or_none, &base, &parent, &generation, &duration_s, &blocks)) {
        return NULL;
    }
    PyObject *result = NULL;
    facts f = {.count = 0};
    pmt__buffer_init(&f.buffer);
    if (argv == NULL) {
        PyErr_SetString(PyExc_TypeError, "start() needs the keyword argument argv");
        goto done;
    }
    if (temporaries < 1 || temporaries > PMT_TEMPORARIES_MAX
        || !(interval_s >= 0.01 && interval_s <= 3600.0)) {
        PyErr_Format(PyExc_ValueError, "temporaries must be 1 to %d, interval_s 0.01 to 3600",
                     PMT_TEMPORARIES_MAX);
        goto done;
    }
    if (!(duration_s >= 0 && duration_s <= DURATION_MAX_S)) {
        PyErr_SetString(PyExc_ValueError, "duration_s must be 0 to 1e9");
        goto done;
    }
    if (sample != 0 && (sample < PMT_SAMPLE_MEAN_MIN || sample > PMT_SAMPLE_MEAN_MAX)) {
        PyErr_Format(PyExc_ValueError, "sample_bytes must be %llu to %llu, or 0: everything",
                     (unsigned long long)PMT_SAMPLE_MEAN_MIN,
                     (unsigned long long)PMT_SAMPLE_MEAN_MAX);
        goto done;
    }
    if (max_overhead_ppm > 1000000 || (max_overhead_ppm != 0 && sample == 0)) {
        PyErr_SetString(PyExc_ValueError,
                        "max_overhead must be 0 to 1, a share of the CPU time, in "
                        "a recording with sample_bytes");
        goto done;
    }
    if (box != 0 && (sample == 0 || max_size != 0 || box < PMT_BOX_MIN || box > PMT_BOX_MAX)) {
        PyErr_Format(PyExc_ValueError,
                     "box_bytes must be %llu to %llu, in a recording with sample_bytes and without "
                     "max_size_bytes",
                     (unsigned long long)PMT_BOX_MIN, (unsigned long long)PMT_BOX_MAX);
        goto done;
    }
    if (sample != 0 && (events || native_traces || async_parents)) {
        PyErr_SetString(PyExc_ValueError, "a sampled recording has no event log, no native stacks "
                                          "and no awaiting tasks");
        goto done;
    }
    if (pmt__cpython_check(&err) < 0) {
        raise_for(module, &err);
        goto done;
    }
    if (facts_collect(&f, argv, sample != 0) < 0) {
        goto done;
    }
    fact_put_number(&f, "interval_ns", (uint64_t)(interval_s * 1e9));
    fact_put_number(&f, "temporaries_n", temporaries);
    fact_put_number(&f, "native_traces", (uint64_t)native_traces);
    fact_put_number(&f, "async_parents", (uint64_t)async_parents);
    fact_put_number(&f, "max_size_bytes", max_size);
    fact_put_number(&f, "max_memory_bytes", max_memory);
    if (parent != 0) {
        fact_put_number(&f, "parent_pid", parent);
    }
    if (blocks >= 0) {
        facts_put_attached(&f, blocks);
    }
    if (pmt__record_finished()) { /* a recording whose end nobody has seen to yet */
        stop_recording();
    }
    char library[4096];
    const pmt__native_table *native_table =
        sample != 0 ? pmt__cpython_sampled_native_table() : pmt__cpython_native_table();
    const char *layer =
        pmt__native_connect(native ? native_table : NULL, preload_library(library, sizeof library));
    pmt__fact_put_text(&f.buffer, "native_layer", layer);
    f.count++;
    if (sample != 0) {
        fact_put_number(&f, "sample_bytes", sample);
        fact_put_number(&f, "box_bytes", box);
    }
    if (!exit_registered && Py_AtExit(stop_at_exit) < 0) {
        PyErr_SetString(PyExc_RuntimeError, "no room for another exit handler");
        goto done;
    }
    exit_registered = 1;
    pmt__record_options options = {
        .path = PyBytes_AS_STRING(path),
        .replace = force,
        .interval_ns = (uint64_t)(interval_s * 1e9),
        .max_size_bytes = max_size,
        .box_bytes = box,
        .max_overhead = max_overhead_ppm / 1e6,
        .max_memory_bytes = max_memory,
        .temporaries_n = temporaries,
        .events = events,
        .native_stacks = native_traces,
        .own_code = pmt__native_library(),
        .async_parents = async_parents,
        .sample_mean = sample,
        .before_cut = pmt__native_patch_again,
        .duration_ns = (uint64_t)(duration_s * 1e9),
        .on_end = end_soon,
        .follow = follow != NULL,
        .generation = generation,
        .follow_base = base == NULL ? NULL : PyBytes_AS_STRING(base),
        .facts = &f.buffer,
        .fact_count = f.count,
    };
    if (forks_watch() < 0) {
        goto done;
    }
    int rc = pmt__record_start(&options, pmt__cpython_source(), &err);
    if (rc == 0) {
        rc = pmt__cpython_install(strcmp(layer, "none") != 0, &err);
        if (rc < 0) {
            pmt__record_stop(PMT_END_BY_PROGRAM);
        }
    }
    if (rc < 0) {
        raise_for(module, &err);
        goto done;
    }
    pmt__native_children(follow == NULL ? NULL : PyBytes_AS_STRING(follow));
    pmt__record_enable();
    attached = blocks >= 0;
    result = Py_NewRef(Py_None);
done:
    if (result == NULL && !pmt__record_active()) {
        pmt__process_files_close(); /* the facts have opened some */
    }
    pmt__buffer_dispose(&f.buffer);
    Py_XDECREF(path);
    Py_XDECREF(follow);
    Py_XDECREF(base);
    return result;
}

static PyObject *
core_stop(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    if (pmt__record_active() || pmt__record_finished()) {
        stop_recording();
    }
    Py_RETURN_NONE;
}

static PyObject *
core_flush(PyObject *module, PyObject *unused)
{
    (void)unused;
    if (!pmt__record_active()) {
        pmt_error err = PMT_ERROR_INIT;
        pmt__error_set(&err, PMT_ERR_STATE, "nothing is being recorded: start a recording first");
        return raise_for(module, &err);
    }
    threads_name();
    pmt__cpython_check_hooks();
    pmt__record_flush(0);
    Py_RETURN_NONE;
}

static void
main_returned_py(void *context, int how, int exit_status)
{
    (void)context;
    if (pmt__record_active()) {
        pmt__record_main_ended((uint32_t)how, (uint32_t)exit_status);
        threads_name();
        pmt__cpython_check_hooks();
        pmt__record_flush(PMT_CUT_MAIN_RETURNED);
    }
}

static PyObject *
core_run_main(PyObject *module, PyObject *args)
{
    (void)module;
    const char *kind, *note = NULL, *base = NULL;
    PyObject *what;
    int fd = -1;
    if (!PyArg_ParseTuple(args, "sU|izz:run_main", &kind, &what, &fd, &note, &base)) {
        return NULL;
    }
    runs_program = 1;
    int status = pmt_run_main_py(kind, what, fd, note, base, main_returned_py, NULL);
    return status < 0 ? NULL : PyLong_FromLong(status);
}

static PyObject *
core_main_returned(PyObject *module, PyObject *args)
{
    (void)module;
    int raised = 0;
    if (!PyArg_ParseTuple(args, "|p:main_returned", &raised)) {
        return NULL;
    }
    int tries = 0; /* in a forked child, nobody may be left to give it back */
    while (pthread_mutex_trylock(&ending) != 0 && tries++ < ENDING_TRIES) {
        nanosleep(&(struct timespec){.tv_nsec = ENDING_PAUSE_NS}, NULL);
    }
    interpreter_ends = 1;
    if (tries <= ENDING_TRIES) {
        pthread_mutex_unlock(&ending);
    }
    main_returned_py(NULL, raised ? PMT_MAIN_RAISED : PMT_MAIN_UNKNOWN, raised);
    Py_RETURN_NONE;
}

/* For code that runs where a signal handler of the program may raise an exception, which is none of its own. */
static int
raise_py(void *exception)
{
    PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    Py_DECREF(exception);
    return -1;
}

static PyObject *
core_raise_soon(PyObject *module, PyObject *exception)
{
    (void)module;
    if (!PyExceptionInstance_Check(exception)) {
        return PyErr_Format(PyExc_TypeError, "not an exception: %R", exception);
    }
    if (Py_AddPendingCall(raise_py, Py_NewRef(exception)) < 0) {
        Py_DECREF(exception);
    }
    Py_RETURN_NONE;
}

static PyObject *
core_mark(PyObject *module, PyObject *label)
{
    if (!PyUnicode_Check(label)) {
        return PyErr_Format(PyExc_TypeError, "a label is a str, not %.100s",
                            Py_TYPE(label)->tp_name);
    }
    if (!pmt__record_active()) {
        pmt_error err = PMT_ERROR_INIT;
        pmt__error_set(&err, PMT_ERR_STATE, "nothing is being recorded: start a recording first");
        return raise_for(module, &err);
    }
    pmt__text text = {PyUnicode_DATA(label), (size_t)PyUnicode_GET_LENGTH(label),
                      (uint8_t)PyUnicode_KIND(label)};
    return PyLong_FromUnsignedLongLong(pmt__record_mark(&text));
}

/* A mean in bytes; "off", "on". */
static PyObject *
core_order_sampling(PyObject *module, PyObject *what)
{
    pmt__order order = {PMT_ORDER_MEAN, 0};
    if (PyUnicode_Check(what)) {
        order.kind = PyUnicode_CompareWithASCIIString(what, "off") == 0  ? PMT_ORDER_OFF
                     : PyUnicode_CompareWithASCIIString(what, "on") == 0 ? PMT_ORDER_ON
                                                                         : PMT_ORDER_NONE;
    } else {
        order.mean = PyLong_AsUnsignedLongLong(what);
        if (order.mean == (unsigned long long)-1 && PyErr_Occurred()) {
            return NULL;
        }
    }
    if (order.kind == PMT_ORDER_NONE
        || (order.kind == PMT_ORDER_MEAN
            && (order.mean < PMT_SAMPLE_MEAN_MIN || order.mean > PMT_SAMPLE_MEAN_MAX))) {
        return PyErr_Format(PyExc_ValueError, "give %llu to %llu bytes, 'off' or 'on'",
                            (unsigned long long)PMT_SAMPLE_MEAN_MIN,
                            (unsigned long long)PMT_SAMPLE_MEAN_MAX);
    }
    if (pmt__record_order(&order) < 0) {
        pmt_error err = PMT_ERROR_INIT;
        pmt__error_set(&err, PMT_ERR_STATE,
                       "nothing is being sampled: start a recording with sample_bytes first");
        return raise_for(module, &err);
    }
    Py_RETURN_NONE;
}

static PyObject *
core_is_recording(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyBool_FromLong(pmt__record_active());
}

static PyObject *
core_is_preloaded(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyBool_FromLong(pmt__native_library() != NULL);
}

static PyObject *
core_status(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    pmt__record_status s;
    pmt__record_status_get(&s);
    return Py_BuildValue(
        "{s:O,s:O,s:N,s:K,s:K,s:K,s:K,s:K,s:I,s:I,s:i}", "recording",
        pmt__record_active() ? Py_True : Py_False, "attached",
        attached && s.path != NULL ? Py_True : Py_False, "path",
        s.path == NULL ? Py_NewRef(Py_None) : PyUnicode_DecodeFSDefault(s.path), "cuts",
        (unsigned long long)s.cuts, "file_bytes", (unsigned long long)s.file_bytes, "live_bytes",
        (unsigned long long)s.live_bytes, "peak_bytes", (unsigned long long)s.peak_bytes,
        "own_bytes", (unsigned long long)s.own_bytes, "status", s.status, "reason", s.reason,
        "errno", s.sys_errno);
}

/* --- checks --------------------------------------------------------------------------------------------------------------------- */

static PyObject *
core_self_test(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    pmt_error err = PMT_ERROR_INIT;
    int ok = pmt__cpython_check(&err) == 0;
    return Py_BuildValue(
        "[{s:s,s:O,s:s,s:s}]", "name", "frames", "ok", ok ? Py_True : Py_False, "detail",
        ok ? "the interpreter's frames are readable" : err.message, "remedy",
        ok ? "" : "use CPython 3.11 to 3.15 with a GIL, and the build of PyMemTrace for it");
}

static PyObject *
core_check_stacks(PyObject *module, PyObject *on)
{
    (void)module;
    int truth = PyObject_IsTrue(on);
    if (truth < 0) {
        return NULL;
    }
    uint64_t compared, different;
    pmt__cpython_check_counts(&compared, &different);
    pmt__cpython_checking(truth);
    return Py_BuildValue("KK", (unsigned long long)compared, (unsigned long long)different);
}

static PyObject *
core_pair_ns(PyObject *module, PyObject *args)
{
    (void)module;
    Py_ssize_t size = 48;
    unsigned int rounds = 600;
    if (!PyArg_ParseTuple(args, "|nI:pair_ns", &size, &rounds)) {
        return NULL;
    }
    return PyFloat_FromDouble(pmt__cpython_pair_ns((size_t)size, rounds));
}

static PyObject *
core_malloc_pair_ns(PyObject *module, PyObject *args)
{
    (void)module;
    Py_ssize_t size = 64;
    unsigned int rounds = 600, threads = 1;
    int with_gil = 1;
    double ns = 0;
    if (!PyArg_ParseTuple(args, "|nIIp:malloc_pair_ns", &size, &rounds, &threads, &with_gil)) {
        return NULL;
    }
    if (with_gil) {
        ns = pmt__native_pair_ns((size_t)size, rounds, threads);
    } else {
        Py_BEGIN_ALLOW_THREADS;
        ns = pmt__native_pair_ns((size_t)size, rounds, threads);
        Py_END_ALLOW_THREADS;
    }
    return PyFloat_FromDouble(ns);
}

PyMethodDef ext_recording_methods[] = {
    {"encode_symbols", ext_encode_symbols, METH_O, EXT_ENCODE_SYMBOLS_DOC},
    {"where_process", ext_where_process, METH_O, EXT_WHERE_PROCESS_DOC},
    {"start", (PyCFunction)(void (*)(void))core_start, METH_VARARGS | METH_KEYWORDS, start_doc},
    {"stop", core_stop, METH_NOARGS, "Ends the recording of this process, if there is one."},
    {"flush", core_flush, METH_NOARGS, "Writes what happened since the last cut now."},
    {"main_returned", core_main_returned, METH_VARARGS,
     "main_returned(raised=False): marks this moment as the one for \"alive at the end\". raised: "
     "by an unhandled "
     "exception."},
    {"read_head", ext_read_head, METH_O, EXT_READ_HEAD_DOC},
    {"raise_soon", core_raise_soon, METH_O,
     "Raises an exception in the main thread, a moment later."},
    {"attend", ext_attend, METH_O, EXT_ATTEND_DOC},
    {"attach_layout", ext_attach_layout, METH_NOARGS, EXT_ATTACH_LAYOUT_DOC},
    {"attach_exchange", ext_attach_exchange, METH_VARARGS, EXT_ATTACH_EXCHANGE_DOC},
    {"attach_divert", ext_attach_divert, METH_VARARGS, EXT_ATTACH_DIVERT_DOC},
    {"run_main", core_run_main, METH_VARARGS,
     "Runs a program as the interpreter would and ends the process (see src/cpython/run_main.h)."},
    {"mark", core_mark, METH_O,
     "Ends the current epoch under a label; returns the epoch's number."},
    {"order_sampling", core_order_sampling, METH_O,
     "order_sampling(what)\n--\n\nAnother mean in bytes; 'off': nothing new is a sample; 'on' "
     "again."},
    {"is_recording", core_is_recording, METH_NOARGS, "Whether this process is being recorded."},
    {"is_preloaded", core_is_preloaded, METH_NOARGS,
     "Whether the library of `pymemtrace run` was loaded into this process."},
    {"status", core_status, METH_NOARGS, "Figures of the running recording, as a dict."},
    {"self_test", core_self_test, METH_NOARGS,
     "What works here: a list of checks (name, ok, detail, remedy)."},
    {"_check_stacks", core_check_stacks, METH_O,
     "Switches the comparison of every stack with a plain walk on or off; returns (compared, "
     "different) so far."},
    {"_pair_ns", core_pair_ns, METH_VARARGS,
     "ns per PyObject_Malloc + PyObject_Free pair (size=48, rounds=600)."},
    {"_malloc_pair_ns", core_malloc_pair_ns, METH_VARARGS,
     "CPU ns per malloc + free pair (size=64, rounds=600, threads=1, with_gil=True)."},
    {NULL, NULL, 0, NULL},
};
