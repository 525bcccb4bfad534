/* The program has to find the interpreter as `python script.py` leaves it. Three things stand between:
 *
 * Frames. We are called from Python code, so sys._getframe(), traceback.print_stack() and the recorded stacks
 * would all end in frames of the launcher. The thread's current frame is therefore taken away for the time of
 * the program: the evaluation loop links its first frame to whatever is current, and NULL is what it finds
 * when the interpreter runs a script. The frames themselves stay where they are, below on the data stack.
 *
 * Recursion. The launcher's frames have used a few steps of the limit. They are given back.
 *
 * The way out. Were we to return to Python code, a profile function that the program has set would be told of
 * our frames, and a KeyboardInterrupt would have to be raised a second time to make the interpreter die by
 * SIGINT. So this function finishes the process itself, by Py_Exit(), which is also what the interpreter does
 * for SystemExit. Nothing here owns a reference to __main__ or its dict: finalisation must find them as usual.
 *
 * Sources are read by PyRun_FileExFlags() and not by compile(): the interpreter's own function for scripts,
 * with the same treatment of encodings, the same SyntaxErrors, and the file closed before the program runs. */
#include "cpython/run_main.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <marshal.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "format/spec.h"

#if PY_VERSION_HEX < 0x030d0000
#define CURRENT_FRAME(tstate) ((tstate)->cframe->current_frame)
#else
#define CURRENT_FRAME(tstate) ((tstate)->current_frame)
#endif

#if PY_VERSION_HEX < 0x030c0000
#define REMAINING(tstate) ((tstate)->recursion_remaining)
#define LIMIT(tstate) ((tstate)->recursion_limit)
#else
#define REMAINING(tstate) ((tstate)->py_recursion_remaining)
#define LIMIT(tstate) ((tstate)->py_recursion_limit)
#endif

typedef struct {
    void *frame;
    int limit;
    int remaining;
} hidden_frames;

static void
hide_frames(PyThreadState *tstate, hidden_frames *hidden)
{
    hidden->frame = CURRENT_FRAME(tstate);
    CURRENT_FRAME(tstate) = NULL;
    hidden->limit = LIMIT(tstate);
    hidden->remaining = REMAINING(tstate);
    REMAINING(tstate) = LIMIT(tstate);
}

static void
show_frames(PyThreadState *tstate, const hidden_frames *hidden)
{
    CURRENT_FRAME(tstate) = hidden->frame;
    /* the program may have called sys.setrecursionlimit() */
    REMAINING(tstate) = hidden->remaining + (LIMIT(tstate) - hidden->limit);
}

/* The errors of flushing show at finalisation, which flushes again and knows what to do about them. */
static void
flush_stream(const char *name)
{
    PyObject *stream = PySys_GetObject(name); /* borrowed */
    if (stream == NULL || stream == Py_None) {
        return;
    }
    Py_INCREF(stream);
    PyObject *result = PyObject_CallMethod(stream, "flush", NULL);
    if (result == NULL) {
        PyErr_Clear();
    }
    Py_XDECREF(result);
    Py_DECREF(stream);
}

static PyObject *
run_pyc(FILE *file, PyObject *globals)
{
    const long magic = PyMarshal_ReadLongFromFile(file);
    if (magic != PyImport_GetMagicNumber()) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_RuntimeError, "Bad magic number in .pyc file");
        }
        fclose(file);
        return NULL;
    }
    for (int word = 0; word < 3; word++) { /* flags, then time and size or a hash of the source */
        (void)PyMarshal_ReadLongFromFile(file);
    }
    PyObject *code = PyErr_Occurred() ? NULL : PyMarshal_ReadLastObjectFromFile(file);
    fclose(file);
    if (code == NULL || !PyCode_Check(code)) {
        Py_XDECREF(code);
        PyErr_SetString(PyExc_RuntimeError, "Bad code object in .pyc file");
        return NULL;
    }
    PyObject *result = PyEval_EvalCode(code, globals, globals);
    Py_DECREF(code);
    return result;
}

static PyObject *
run_file(PyObject *filename, int fd, int is_pyc, PyObject *globals)
{
    FILE *file = fdopen(fd, "rb");
    if (file == NULL) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    if (is_pyc) {
        return run_pyc(file, globals);
    }
    PyObject *path = PyUnicode_EncodeFSDefault(filename);
    if (path == NULL) {
        fclose(file);
        return NULL;
    }
    PyCompilerFlags flags = _PyCompilerFlags_INIT;
    PyObject *result = PyRun_FileExFlags(file, PyBytes_AS_STRING(path), Py_file_input, globals,
                                         globals, 1, &flags);
    Py_DECREF(path);
    return result;
}

static PyObject *
run_stdin(PyObject *globals)
{
    PyCompilerFlags flags = _PyCompilerFlags_INIT;
    return PyRun_FileExFlags(stdin, "<stdin>", Py_file_input, globals, globals, 0, &flags);
}

/* From 3.13 on, the lines of -c appear in tracebacks: the interpreter gives them to linecache. */
static int
remember_source(PyObject *code, PyObject *source)
{
#if PY_VERSION_HEX >= 0x030d0000
    PyObject *linecache = PyImport_ImportModule("linecache");
    if (linecache == NULL) {
        return -1;
    }
    PyObject *name = PyUnicode_FromString("<string>");
    PyObject *key = PY_VERSION_HEX < 0x030e0000 ? name : code;
    PyObject *result =
        name == NULL ? NULL
                     : PyObject_CallMethod(linecache, "_register_code", "OOO", key, source, name);
    if (result == NULL) {
        PyErr_Clear(); /* a private function: without it the lines are missing, no more */
    }
    Py_XDECREF(result);
    Py_XDECREF(name);
    Py_DECREF(linecache);
#else
    (void)code;
    (void)source;
#endif
    return 0;
}

static PyObject *
run_string(PyObject *source, PyObject *globals)
{
    const char *text = PyUnicode_AsUTF8(source); /* borrowed from source */
    if (text == NULL) {
        PySys_WriteStderr("Unable to decode the command from the command line:\n");
        return NULL;
    }
    PyCompilerFlags flags = _PyCompilerFlags_INIT;
    flags.cf_flags |= PyCF_IGNORE_COOKIE;
    PyObject *code = Py_CompileStringExFlags(text, "<string>", Py_file_input, &flags, -1);
    if (code == NULL) {
        return NULL;
    }
    PyObject *result = NULL;
    if (remember_source(code, source) == 0) {
        result = PyEval_EvalCode(code, globals, globals);
    }
    Py_DECREF(code);
    return result;
}

/* alter_argv: runpy replaces sys.argv[0] by the module's file, as for -m but not for a directory. */
static PyObject *
run_module(const char *name, int alter_argv)
{
    PyObject *runpy = PyImport_ImportModule("runpy");
    if (runpy == NULL) {
        return NULL;
    }
    PyObject *run = PyObject_GetAttrString(runpy, "_run_module_as_main");
    PyObject *result = run == NULL ? NULL : PyObject_CallFunction(run, "si", name, alter_argv);
    Py_XDECREF(run);
    Py_DECREF(runpy);
    return result;
}

/* Keeps an exception that is set. */
static void
flush_streams(void)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    flush_stream("stderr");
    flush_stream("stdout");
    PyErr_Restore(type, value, traceback);
}

/* <pid>.pmt or <pid>-<n>.pmt */
static int
is_child_name(const char *name)
{
    const size_t digits = strspn(name, "0123456789");
    name += digits;
    if (digits != 0 && *name == '-' && isdigit((unsigned char)name[1])) {
        name += 1 + strspn(name + 1, "0123456789");
    }
    return digits != 0 && strcmp(name, ".pmt") == 0;
}

/* How many captures of children there are that were written to since then. */
static int
count_children(const char *base, time_t since)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(base, '/');
    if (slash == NULL || (size_t)(slash - base) + 2 > sizeof folder) {
        return 0;
    }
    memcpy(folder, base, (size_t)(slash - base) + 1);
    folder[slash - base + 1] = '\0';
    const size_t length = strlen(slash + 1);
    DIR *entries = opendir(folder);
    int count = 0;
    for (const struct dirent *entry; entries != NULL && (entry = readdir(entries)) != NULL;) {
        struct stat file;
        count += strncmp(entry->d_name, slash + 1, length) == 0 && entry->d_name[length] == '.'
                 && is_child_name(entry->d_name + length + 1)
                 && fstatat(dirfd(entries), entry->d_name, &file, AT_SYMLINK_NOFOLLOW) == 0
                 && file.st_mtime >= since;
    }
    if (entries != NULL) {
        closedir(entries);
    }
    return count;
}

static void
write_note(const char *note, const char *base, time_t since)
{
    const int children = base == NULL ? 0 : count_children(base, since);
    char more[PATH_MAX + 100] = "";
    if (children > 0) {
        snprintf(more, sizeof more, "pymemtrace: and %d %s: %s.<pid>.pmt\n", children,
                 children == 1 ? "capture of a child" : "captures of children", base);
    }
    const char *const parts[] = {note, more};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        const ssize_t written = write(STDERR_FILENO, parts[i], strlen(parts[i]));
        (void)written; /* a terminal that has gone away is nothing to report */
    }
}

/* The exit status of a SystemExit; `value` may not be an instance yet. Reads its member and not the attribute, which a
 * subclass may compute, and which the interpreter asks for later. */
static int
status_of(PyObject *value)
{
    PyObject *code = value;
    if (value != NULL && PyExceptionInstance_Check(value)) {
        code = ((PySystemExitObject *)value)->code;
    }
    if (code == NULL || code == Py_None) {
        return 0;
    }
    if (!PyLong_Check(code)) {
        return 1;
    }
    const unsigned long status = PyLong_AsUnsignedLongMask(code);
    PyErr_Clear();
    return (int)(status & 0xff);
}

static void
call_returned(pmt_main_returned_py returned, void *context, int interrupted, const char *note,
              const char *base, time_t since)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (type == NULL) {
        returned(context, PMT_MAIN_RETURNED, 0);
    } else if (PyErr_GivenExceptionMatches(type, PyExc_SystemExit)) {
        returned(context, PMT_MAIN_EXITED, status_of(value));
    } else {
        returned(context, PMT_MAIN_RAISED, interrupted ? 128 + SIGINT : 1);
    }
    if (note != NULL && isatty(STDERR_FILENO)) {
        flush_streams();
        write_note(note, base, since);
    }
    PyErr_Restore(type, value, traceback);
}

/* What the interpreter does when a KeyboardInterrupt ends a program (the shell that waits for it can then
 * tell): finalise, and die by the signal. */
static void
exit_by_sigint(void)
{
    (void)Py_FinalizeEx();
    if (PyOS_setsig(SIGINT, SIG_DFL) == SIG_ERR) {
        perror("signal");
    } else {
        kill(getpid(), SIGINT);
    }
    exit(SIGINT + 128);
}

static int
is_interrupt(void)
{
#if PY_VERSION_HEX < 0x030e0000
    return PyErr_Occurred()
           == PyExc_KeyboardInterrupt; /* not its subclasses: so does the interpreter */
#else
    return PyErr_ExceptionMatches(PyExc_KeyboardInterrupt);
#endif
}

/* -i, also when the program itself has asked for it through the environment */
static int
prompt_follows(void)
{
    const char *inspect = getenv("PYTHONINSPECT");
    PyObject *flags = PySys_GetObject("flags"); /* borrowed */
    PyObject *flag = flags == NULL ? NULL : PyObject_GetAttrString(flags, "inspect");
    const int follows =
        (flag != NULL && PyObject_IsTrue(flag) == 1) || (inspect != NULL && *inspect != '\0');
    PyErr_Clear();
    Py_XDECREF(flag);
    return follows;
}

static void
delete_global(PyObject *globals, const char *name)
{
    if (PyDict_DelItemString(globals, name) < 0) {
        PyErr_Clear();
    }
}

typedef enum {
    KIND_FILE,
    KIND_PYC,
    KIND_STDIN,
    KIND_STRING,
    KIND_MODULE,
    KIND_DIRECTORY
} main_kind;

static int
find_kind(main_kind *kind, const char *name, PyObject *what)
{
    static const char *const names[] = {"file", "pyc", "stdin", "string", "module", "directory"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(name, names[i]) == 0 && PyUnicode_Check(what)) {
            *kind = (main_kind)i;
            return 0;
        }
    }
    PyErr_Format(PyExc_ValueError, "run_main: no such kind, or no str to run: %s", name);
    return -1;
}

static PyObject *
run_kind(main_kind kind, PyObject *what, int fd, PyObject *globals)
{
    const char *text;
    switch (kind) {
    case KIND_FILE:
        return run_file(what, fd, 0, globals);
    case KIND_PYC:
        return run_file(what, fd, 1, globals);
    case KIND_STDIN:
        return run_stdin(globals);
    case KIND_STRING:
        return run_string(what, globals);
    case KIND_MODULE:
        text = PyUnicode_AsUTF8(what); /* borrowed from what */
        return text == NULL ? NULL : run_module(text, 1);
    case KIND_DIRECTORY:
        return run_module("__main__", 0);
    }
    Py_UNREACHABLE();
}

int
pmt_run_main_py(const char *kind_name, PyObject *what, int fd, const char *note, const char *base,
                pmt_main_returned_py returned, void *context)
{
    main_kind kind;
    if (find_kind(&kind, kind_name, what) < 0) {
        return -1;
    }
    PyObject *main_module = PyImport_AddModule("__main__"); /* borrowed */
    if (main_module == NULL) {
        return -1;
    }
    PyObject *globals = PyModule_GetDict(main_module); /* borrowed */
    const pid_t pid = getpid();
    const time_t since = time(NULL);
    PyThreadState *tstate = PyThreadState_Get();
    hidden_frames hidden;
    hide_frames(tstate, &hidden);

    PyObject *result = run_kind(kind, what, fd, globals);
    const int failed = result == NULL;
    const int interrupted = failed && is_interrupt();
    Py_XDECREF(result);
    /* a forked child comes by here as well */
    call_returned(returned, context, interrupted, getpid() == pid ? note : NULL, base, since);
    const int is_script = kind == KIND_FILE || kind == KIND_PYC || kind == KIND_STDIN;
    if (is_script) {
        flush_streams();
    }
    if (failed) {
        PyErr_Print(); /* does not return for SystemExit, except under -i */
    }
    if (is_script) { /* these two are there for the time of a script only */
        delete_global(globals, "__file__");
        delete_global(globals, "__cached__");
    }
    if (!prompt_follows()) {
        if (interrupted) {
            exit_by_sigint();
        }
        Py_Exit(failed);
    }
    show_frames(tstate, &hidden);
    return failed;
}
