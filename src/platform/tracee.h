/* Another process, held for a moment: ptrace(2) without a debugger.

   Nothing is ever changed but by one step that is whole or not at all: a write of bytes that nobody reads yet, a word that makes
   them count, or all registers of a thread at once. No breakpoint is set and nothing runs while the process is held. So it
   does not matter when the caller is killed: the kernel lets the threads go on, from where they were. What must be done by several
   steps has an order in which each is right by itself (cli/_pending.py), and is done in a process of its own: whoever kills the
   command does not kill that one. */
#ifndef PMT_PLATFORM_TRACEE_H
#define PMT_PLATFORM_TRACEE_H

#include <stddef.h>
#include <stdint.h>

typedef struct pmt__exchange {
    uint64_t address;
    const void *expected; /* what must be there; NULL: anything */
    const void *bytes;    /* what is put there; NULL: nothing */
    size_t size;
} pmt__exchange;

enum {
    PMT_EXCHANGE_MAX = 16 /* parts */
};

/* A thread that waits in a system call, as /proc/PID/task/TID/syscall describes it. */
typedef struct pmt__waiting {
    uint64_t thread;
    uint64_t number, stack, next; /* of the call; stack pointer and instruction behind it */
} pmt__waiting;

enum {
    PMT_TRACEE_OTHER = 1 /* something was not as expected, and nothing was changed */
};

/* Stops every thread of the process, compares all that is expected, makes the changes and lets go. First come those that expect
   something: they may be in memory that the process itself cannot write, and nobody may be reading it yet. The others
   follow in their order, by one system call. held_ns: for how long the process stood still. 0, PMT_TRACEE_OTHER, or a negative errno: -EPERM (no right, or somebody else traces it), -ESRCH,
   -ETIMEDOUT (a thread could not be stopped within the time; nothing was changed) … */
int pmt__tracee_exchange(uint64_t pid, const pmt__exchange *parts, size_t count,
                         uint64_t timeout_ns, uint64_t *held_ns);

/* The same with one thread only, which goes on at `to` if it still waits in this call. There, and two bytes before for the case
   that the kernel restarts the call, must be code that saves every register and goes back in the end: to the instruction
   behind the call, or to the call (two bytes before that one). It finds that instruction in rcx and the argument in r11, which
   a system call changes anyway. */
int pmt__tracee_divert(uint64_t pid, const pmt__waiting *waiting, uint64_t to, uint64_t argument,
                       const pmt__exchange *parts, size_t count, uint64_t timeout_ns,
                       uint64_t *held_ns);

#endif
