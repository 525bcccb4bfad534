/* Runs the program of `pymemtrace run` as the interpreter itself would: no Python frame of ours
 * below `<module>`, whole recursion limit, the interpreter's own way out. */
#ifndef PMT_CPYTHON_RUN_MAIN_H
#define PMT_CPYTHON_RUN_MAIN_H

#include <Python.h>

/* Called once in this process when the program's top level has returned, whichever way, with the
 * interpreter still whole. how: PMT_MAIN_*, with the exit status that goes with it. An exception may not be
 * left set. Called in a forked child that comes by, too. */
typedef void (*pmt_main_returned_py)(void *context, int how, int exit_status);

/* kind, what (a str in each case), fd:
 *   "file"       what: the script's path for `__file__` and tracebacks; fd: open for reading, taken over
 *   "pyc"        the same, for compiled code
 *   "stdin"      what: not looked at; the program comes from the C stream stdin
 *   "string"     what: the source of -c
 *   "module"     what: the name that follows -m
 *   "directory"  what: not looked at; the directory or archive is sys.path[0]
 *
 * sys.modules["__main__"] is the namespace. Does not return when the program has run: the process ends with
 * the program's status, or by SIGINT after a KeyboardInterrupt. It does return, with 0 or 1, under -i or
 * PYTHONINSPECT (the interpreter's prompt comes next), and returns -1 with an exception for wrong arguments.
 * note: written to stderr at the end if stderr is a terminal; NULL for nothing. base: with it goes how many files <base>.<pid>.pmt have
 * been written since the start; may be NULL. The caller holds the GIL. */
int pmt_run_main_py(const char *kind, PyObject *what, int fd, const char *note, const char *base,
                    pmt_main_returned_py returned, void *context);

#endif
