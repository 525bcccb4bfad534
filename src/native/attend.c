/* A library of its own: a thread that runs a line of Python in a process that runs already.

   A thread of the process was on its way into a system call when it was made to call pmt_attend (pymemtrace/_attach/divert.py). It must get
   away at once, without waiting for the GIL, so the work is for a thread of our own, which waits for it as any thread does. */
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

__attribute__((visibility("default"))) void pmt_attend(const char *code);

static void *
attend(void *code)
{
    int (*is_initialized)(void);
    int (*ensure)(void);
    int (*run)(const char *);
    void (*release)(int);
    const struct {
        const char *name;
        void *place;
    } wanted[] = {
        {"Py_IsInitialized", &is_initialized},
        {"PyGILState_Ensure", &ensure},
        {"PyRun_SimpleString", &run},
        {"PyGILState_Release", &release},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        void *address = dlsym(RTLD_DEFAULT, wanted[i].name);
        if (address == NULL) {
            return NULL;
        }
        memcpy(wanted[i].place, &address, sizeof address);
    }
    if (is_initialized()) {
        const int state = ensure();
        run(code);
        release(state);
    }
    return NULL;
}

void
pmt_attend(const char *code)
{
    sigset_t all, before;
    pthread_attr_t detached;
    pthread_t thread;
    void *argument;
    memcpy(&argument, &code, sizeof argument);
    sigfillset(&all);
    if (pthread_attr_init(&detached) != 0) {
        return;
    }
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the program's */
    pthread_create(&thread, &detached, attend, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&detached);
}
