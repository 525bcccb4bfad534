/* The request is words, and so is the answer: nothing of them is executed. The request must belong to us or to root, and the command
   that has written it must still hold its lock on it: without one, it has given up or was killed, and nothing is done. It is taken
   by being renamed, which only one can do.

   In C, and in one call, because no signal handler of the program gets between (nothing here may call PyErr_CheckSignals or run code
   in Python: the exception of a handler would be lost), and because what is left of the recording when it
   ends should be the program's memory, not ours. */
#include "attend.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "platform/platform.h"
#include "record/writer.h"
#include "state.h"

#define TEXT_MAX 65536
#define SEPARATOR '\x1f'

typedef struct folder {
    const char *path;
    char name[4096]; /* of a file in it */
} folder;

static const char *
file_in(folder *self, const char *name)
{
    snprintf(self->name, sizeof self->name, "%s/%s", self->path, name);
    return self->name;
}

/* Nobody else will; but not while somebody is at it. */
static void
tidy(folder *self)
{
    if (access(file_in(self, "claimed"), F_OK) == 0) {
        return;
    }
    static const char *const names[] = {"request", "start", "answer"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        unlink(file_in(self, names[i]));
    }
    rmdir(self->path);
}

static int
somebody_waits(int fd)
{
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    struct stat about;
    return fstat(fd, &about) == 0 && S_ISREG(about.st_mode)
           && (about.st_uid == 0 || about.st_uid == geteuid()) && fcntl(fd, F_GETLK, &lock) == 0
           && lock.l_type != F_UNLCK;
}

/* A child that was forked meanwhile has the call in its queue, too. */
static int
is_for_us(const char *text, ssize_t length)
{
    char mine[32];
    const int size = snprintf(mine, sizeof mine, "pid=%ld%c", (long)getpid(), SEPARATOR);
    return length >= size && memcmp(text, mine, (size_t)size) == 0;
}

enum {
    NOTHING = -1,   /* nobody waits for it any more */
    NOT_FOR_US = -2 /* but for another process */
};

/* The length of the text of the request, or why it is not to be done. request: open then, to be closed. */
static ssize_t
claim(folder *self, char *text, int *request)
{
    const int fd = open(file_in(self, "request"), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
        return NOTHING;
    }
    char claimed[sizeof self->name];
    strcpy(claimed, file_in(self, "claimed"));
    ssize_t length = NOTHING;
    if (somebody_waits(fd)) {
        length = read(fd, text, TEXT_MAX);
        if (!is_for_us(text, length)) {
            length = NOT_FOR_US;
        } else if (rename(file_in(self, "request"), claimed) < 0) {
            length = NOTHING;
        } else {
            *request = fd;
            return length;
        }
    }
    close(fd);
    return length;
}

/* The command may have been killed meanwhile. */
static void
leave(folder *self, int request)
{
    if (!somebody_waits(request)) {
        unlink(file_in(self, "claimed"));
        tidy(self);
    }
    close(request);
}

/* name=value, separated, as a dict; NULL with an exception. */
static PyObject *
words_get(const char *text, size_t length)
{
    PyObject *words = PyDict_New();
    for (const char *at = text, *end = text + length; words != NULL && at < end;) {
        const char *stop = memchr(at, SEPARATOR, (size_t)(end - at));
        const char *equals = stop == NULL ? NULL : memchr(at, '=', (size_t)(stop - at));
        if (equals == NULL) {
            break;
        }
        PyObject *name = PyUnicode_DecodeFSDefaultAndSize(at, equals - at);
        PyObject *value = PyUnicode_DecodeFSDefaultAndSize(equals + 1, stop - equals - 1);
        if (name == NULL || value == NULL || PyDict_SetItem(words, name, value) < 0) {
            Py_CLEAR(words);
        }
        Py_XDECREF(name);
        Py_XDECREF(value);
        at = stop + 1;
    }
    return words;
}

/* --- the answer ----------------------------------------------------------------------------------------------------------------- */

typedef struct answer {
    char text[TEXT_MAX];
    size_t length;
} answer;

static void
answer_put(answer *self, const char *name, const char *value)
{
    const int n = snprintf(self->text + self->length, sizeof self->text - self->length, "%s=%.*s%c",
                           name, 8192, value, SEPARATOR);
    if (n > 0 && (size_t)n < sizeof self->text - self->length) {
        self->length += (size_t)n;
    }
}

/* A str or an int. Not by PyObject_Str, which looks for signals: the exception of a handler of the program would be ours. */
static void
answer_put_object(answer *self, const char *name, PyObject *value)
{
    if (value != NULL && PyLong_Check(value)) {
        char digits[32];
        snprintf(digits, sizeof digits, "%llu", PyLong_AsUnsignedLongLong(value));
        answer_put(self, name, digits);
    } else if (value != NULL && PyUnicode_Check(value)) {
        PyObject *bytes = PyUnicode_EncodeFSDefault(value);
        if (bytes != NULL) {
            answer_put(self, name, PyBytes_AS_STRING(bytes));
        }
        Py_XDECREF(bytes);
    }
    PyErr_Clear();
}

static void
answer_put_item(answer *self, PyObject *dict, const char *name)
{
    answer_put_object(self, name, PyDict_GetItemString(dict, name)); /* borrowed */
}

/* What str() would give, of one of ours. Borrowed, or NULL. */
static PyObject *
exception_text(PyObject *value)
{
    PyObject *args =
        PyExceptionInstance_Check(value) ? ((PyBaseExceptionObject *)value)->args : NULL;
    return args != NULL && PyTuple_Check(args) && PyTuple_GET_SIZE(args) > 0
               ? PyTuple_GET_ITEM(args, 0)
               : NULL;
}

/* What the exception that is set means, which goes. */
static void
answer_put_error(answer *self, PyObject *module)
{
    const ext_errors *errors = &ext_state_get(module)->errors;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    const char *kind = "failed";
    PyObject *text = NULL;
    if (PyErr_GivenExceptionMatches(type, errors->capture_exists)) {
        kind = "exists";
    } else if (PyErr_GivenExceptionMatches(type, errors->unsupported)) {
        kind = "unsupported";
    } else if (PyErr_GivenExceptionMatches(type, PyExc_OSError)) {
        PyObject *number = PyObject_GetAttrString(value, "errno");
        kind = "unwritable";
        text = number != NULL && PyLong_Check(number)
                   ? PyUnicode_FromString(strerror((int)PyLong_AsLong(number)))
                   : NULL;
        PyErr_Clear();
        Py_XDECREF(number);
    }
    answer_put(self, "kind", kind);
    answer_put_object(self, "text", text != NULL ? text : exception_text(value));
    Py_XDECREF(text);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
}

static void
answer_write(const answer *self, folder *where)
{
    char final[sizeof where->name];
    strcpy(final, file_in(where, "answer"));
    const char *name = file_in(where, "answer.new");
    const int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        return; /* the command has gone and taken the folder with it */
    }
    const ssize_t written = write(fd, self->text, self->length);
    close(fd);
    if (written != (ssize_t)self->length || rename(name, final) < 0) {
        unlink(name);
    }
}

/* --- what is asked for ---------------------------------------------------------------------------------------------------------- */

static const char *
word(PyObject *words, const char *name)
{
    PyObject *value = PyDict_GetItemString(words, name); /* borrowed */
    const char *text = value == NULL || !PyUnicode_Check(value) ? NULL : PyUnicode_AsUTF8(value);
    PyErr_Clear();
    return text == NULL ? "" : text;
}

/* An object with a name, which is what making a module asks of its specification. */
static PyObject *
spec_new(const char *name)
{
    PyObject *spec = PyModule_New(name);
    PyObject *text = PyUnicode_FromString(name);
    if (spec != NULL && (text == NULL || PyObject_SetAttrString(spec, "name", text) < 0)) {
        Py_CLEAR(spec);
    }
    Py_XDECREF(text);
    return spec;
}

/* The program's, or one that it does not see: a module object is but a view of what the interpreter keeps. Importing would run code in
   Python. */
static PyObject *
atexit_get(void)
{
    PyObject *modules = PyImport_GetModuleDict();                    /* borrowed */
    PyObject *there = PyDict_GetItemString(modules, "atexit");       /* borrowed */
    PyObject *import_system = PyDict_GetItemString(modules, "_imp"); /* borrowed */
    if (there != NULL || import_system == NULL) {
        return Py_XNewRef(there);
    }
    PyObject *spec = spec_new("atexit");
    PyObject *module =
        spec == NULL ? NULL : PyObject_CallMethod(import_system, "create_builtin", "O", spec);
    PyObject *done =
        module == NULL ? NULL : PyObject_CallMethod(import_system, "exec_builtin", "O", module);
    if (done == NULL) {
        Py_CLEAR(module);
    }
    Py_XDECREF(done);
    Py_XDECREF(spec);
    return module;
}

/* As for a program that `run` has started: what is alive at its end is measured before the interpreter takes everything down. */
static void
exit_handler_register(PyObject *module)
{
    static int registered;
    if (registered) {
        return;
    }
    PyObject *atexit = atexit_get();
    PyObject *handler = PyObject_GetAttrString(module, "main_returned");
    PyObject *done = atexit == NULL || handler == NULL
                         ? NULL
                         : PyObject_CallMethod(atexit, "register", "O", handler);
    registered = done != NULL;
    PyErr_Clear();
    Py_XDECREF(done);
    Py_XDECREF(handler);
    Py_XDECREF(atexit);
}

static int
option_put(PyObject *options, const char *name, PyObject *value)
{
    const int rc = value == NULL ? -1 : PyDict_SetItemString(options, name, value);
    Py_XDECREF(value);
    return rc;
}

/* The arguments of start(): those of the numbers that the request has a word for. NULL with an exception. */
static PyObject *
start_options(PyObject *words, PyObject *blocks)
{
    static const char *const numbers[] = {
        "force",     "events",           "native_traces",    "async_parents", "sample_bytes",
        "box_bytes", "max_overhead_ppm", "max_memory_bytes", "max_size_bytes"};
    PyObject *argv = PySys_GetObject("orig_argv"); /* borrowed */
    PyObject *options = PyDict_New();
    int rc = options == NULL ? -1 : 0;
    for (size_t i = 0; rc == 0 && i < sizeof numbers / sizeof *numbers; i++) {
        const char *text = word(words, numbers[i]);
        rc = *text == 0 ? 0 : option_put(options, numbers[i], PyLong_FromString(text, NULL, 10));
    }
    rc = rc < 0 ? rc : option_put(options, "argv", argv != NULL ? Py_NewRef(argv) : PyList_New(0));
    rc = rc < 0 ? rc : option_put(options, "attached", Py_NewRef(blocks));
    if (rc == 0) {
        const double duration_s = PyOS_string_to_double(word(words, "duration_s"), NULL, NULL);
        rc = PyErr_Occurred() ? -1
                              : option_put(options, "duration_s", PyFloat_FromDouble(duration_s));
    }
    if (rc < 0) {
        Py_CLEAR(options);
    }
    return options;
}

static PyObject *
blocks_count(void)
{
    PyObject *count = PySys_GetObject("getallocatedblocks"); /* borrowed */
    return count == NULL ? PyLong_FromLong(0) : PyObject_CallNoArgs(count);
}

static void
begin(PyObject *module, PyObject *words, answer *out)
{
    PyObject *path = PyDict_GetItemString(words, "path"); /* borrowed */
    PyObject *start = PyObject_GetAttrString(module, "start");
    PyObject *blocks = blocks_count();
    PyObject *options = blocks == NULL ? NULL : start_options(words, blocks);
    PyObject *args = path == NULL ? NULL : PyTuple_Pack(1, path);
    PyObject *done = NULL;
    if (start != NULL && options != NULL && args != NULL) {
        exit_handler_register(module);
        done = PyObject_Call(start, args, options);
    }
    if (done != NULL) {
        answer_put(out, "kind", "done");
        answer_put_object(out, "blocks", blocks);
    } else if (PyErr_Occurred()) {
        answer_put_error(out, module);
    }
    Py_XDECREF(done);
    Py_XDECREF(args);
    Py_XDECREF(options);
    Py_XDECREF(blocks);
    Py_XDECREF(start);
}

static void
act(PyObject *module, PyObject *words, answer *out)
{
    if (strcmp(word(words, "action"), "detach") == 0 && pmt__record_active()) {
        pmt__record_flush(0); /* so that the figures are of now */
    }
    PyObject *status = PyObject_CallMethod(module, "status", NULL);
    if (status == NULL) {
        answer_put_error(out, module);
        return;
    }
    const int recorded = PyDict_GetItemString(status, "recording") == Py_True;
    const int attached = PyDict_GetItemString(status, "attached") == Py_True;
    if (strcmp(word(words, "action"), "attach") == 0) {
        if (recorded) {
            answer_put(out, "kind", "recorded");
            answer_put_object(out, "text", PyDict_GetItemString(status, "path"));
        } else {
            begin(module, words, out);
        }
    } else if (!recorded) {
        answer_put(out, "kind", "not recorded");
    } else if (!attached) {
        answer_put(out, "kind", "not attached");
        answer_put_object(out, "text", PyDict_GetItemString(status, "path"));
    } else {
        PyObject *done = PyObject_CallMethod(module, "stop", NULL);
        answer_put(out, "kind", done != NULL ? "done" : "failed");
        answer_put_item(out, status, "path");
        answer_put_item(out, status, "live_bytes");
        answer_put_item(out, status, "peak_bytes");
        Py_XDECREF(done);
    }
    PyErr_Clear();
    Py_DECREF(status);
}

PyObject *
ext_attend(PyObject *module, PyObject *path)
{
    PyObject *bytes;
    if (!PyUnicode_FSConverter(path, &bytes)) {
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    answer *out = pmt__pages_map(sizeof *out);
    folder where = {.path = PyBytes_AS_STRING(bytes)};
    if (out != NULL && strlen(where.path) < sizeof where.name - 16) {
        int request = -1;
        const ssize_t length = claim(&where, out->text, &request);
        if (length == NOTHING) {
            tidy(&where);
        } else if (length >= 0) {
            PyObject *words = words_get(out->text, (size_t)length);
            if (words == NULL) {
                answer_put_error(out, module);
            } else {
                act(module, words, out);
            }
            answer_write(out, &where);
            leave(&where, request);
            Py_XDECREF(words);
        }
    }
    if (out != NULL) {
        pmt__pages_unmap(out, sizeof *out);
    }
    PyErr_Clear();
    Py_DECREF(bytes);
    Py_RETURN_NONE;
}

/* --- entries -------------------------------------------------------------------------------------------------------------------- */

PyMODINIT_FUNC PyInit__core(void);

char pymemtrace_attend_names[64][64]; /* written from outside */

/* The module is made once and stays; it is in no place where the program could find it. NULL with an exception. */
static PyObject *
module_get(void)
{
    static PyObject *module;
    if (module != NULL) {
        return module;
    }
    PyObject *spec = spec_new("pymemtrace._core");
    PyModuleDef *definition = (PyModuleDef *)PyInit__core(); /* borrowed: it is static */
    PyObject *fresh =
        spec == NULL || definition == NULL ? NULL : PyModule_FromDefAndSpec(definition, spec);
    if (fresh != NULL && PyModule_ExecDef(fresh, definition) < 0) {
        Py_CLEAR(fresh);
    }
    Py_XDECREF(spec);
    return module = fresh;
}

int
pymemtrace_attend(void *path)
{
    const int before = errno;
    const int collects =
        PyGC_Disable(); /* finalizers are code in Python, where signals are seen to */
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *module = module_get();
    PyObject *text = module == NULL ? NULL : PyUnicode_DecodeFSDefault(path);
    if (text != NULL) {
        Py_DECREF(ext_attend(module, text));
        Py_DECREF(text);
    }
    PyErr_Clear();
    PyErr_Restore(type, value, traceback);
    if (collects) {
        PyGC_Enable();
    }
    errno = before;
    return 0;
}

void *
pymemtrace_attend_thread(void *path)
{
    if (Py_IsInitialized()) {
        const PyGILState_STATE state = PyGILState_Ensure();
        pymemtrace_attend(path);
        PyGILState_Release(state);
    }
    return NULL;
}
