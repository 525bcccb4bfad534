/* The current thread state on CPython 3.12 and later: a thread-local variable of the interpreter that is not exported.

   Its getter is a call through two tables, several times per event. So the variable's distance from the thread pointer is
   looked up once: the thread-local block of each loaded object is searched for the pointer that is there while we hold the
   GIL and gone while we do not. A variable in a block that was set up at program start has the same distance in every
   thread; anything else falls back to the getter. */
#ifndef PMT_CPYTHON_CURRENT_STATE_H
#define PMT_CPYTHON_CURRENT_STATE_H

#include <link.h>
#include <stdint.h>

#define PMT_STATIC_TLS_MAX 65536 /* blocks set up at start lie directly below the thread pointer */

static int64_t pmt__state_offset; /* from the thread pointer; 0 = use the getter */

static inline PyThreadState *
pmt__state_get_slow(void)
{
#if PY_VERSION_HEX >= 0x030D0000
    return PyThreadState_GetUnchecked();
#else
    return _PyThreadState_UncheckedGet();
#endif
}

static inline __attribute__((always_inline)) PyThreadState *
pmt__current_state(void)
{
#if defined(__x86_64__)
    int64_t offset = pmt__state_offset;
    if (__builtin_expect(offset != 0, 1)) {
        PyThreadState *state;
        __asm__("movq %%fs:(%1), %0" : "=r"(state) : "r"(offset) : "memory");
        return state;
    }
#endif
    return pmt__state_get_slow();
}

#if defined(__x86_64__)
typedef struct pmt__state_search {
    uintptr_t thread_pointer;
    const PyThreadState *state;
    int64_t found[16];
    int count;
} pmt__state_search;

static int
pmt__state_search_object(struct dl_phdr_info *info, size_t size, void *arg)
{
    pmt__state_search *search = arg;
    if (size < offsetof(struct dl_phdr_info, dlpi_tls_data) + sizeof info->dlpi_tls_data
        || info->dlpi_tls_data == NULL) {
        return 0;
    }
    size_t bytes = 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type == PT_TLS) {
            bytes = info->dlpi_phdr[i].p_memsz;
        }
    }
    uintptr_t start = ((uintptr_t)info->dlpi_tls_data + 7) & ~(uintptr_t)7;
    uintptr_t end = (uintptr_t)info->dlpi_tls_data + bytes;
    if (start > search->thread_pointer || search->thread_pointer - start > PMT_STATIC_TLS_MAX) {
        return 0;
    }
    for (uintptr_t at = start; at + sizeof(void *) <= end; at += sizeof(void *)) {
        if (*(const PyThreadState *const *)at == search->state && search->count < 16) {
            search->found[search->count++] = (int64_t)at - (int64_t)search->thread_pointer;
        }
    }
    return 0;
}
#endif

/* Finds the variable; needs the GIL and gives it up for a moment. Always succeeds: the getter is the fallback. */
static int
pmt__current_state_prepare(PyThreadState *state)
{
#if defined(__x86_64__)
    if (pmt__state_offset != 0) {
        return 0;
    }
    pmt__state_search search = {.state = state};
    __asm__("movq %%fs:0, %0" : "=r"(search.thread_pointer));
    dl_iterate_phdr(pmt__state_search_object, &search);
    int64_t offset = 0;
    int candidates = 0;
    PyThreadState *saved = PyEval_SaveThread();
    for (int i = 0; i < search.count; i++) {
        if (*(PyThreadState *const *)(search.thread_pointer + (uintptr_t)search.found[i]) == NULL) {
            offset = search.found[i];
            candidates++;
        }
    }
    PyEval_RestoreThread(saved);
    if (candidates == 1
        && *(PyThreadState *const *)(search.thread_pointer + (uintptr_t)offset) == state) {
        pmt__state_offset = offset;
    }
#else
    (void)state;
#endif
    return 0;
}

#endif
