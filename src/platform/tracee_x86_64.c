#include "platform/tracee.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "platform/platform.h"

#define POLL_NS 20000
#define PART_MAX 4096

typedef struct held {
    pid_t thread;
    int stopped;
    int signal; /* with which it stopped, and which it is to have when it goes on; 0: none */
} held;

typedef struct tracee {
    pid_t pid;
    int memory; /* /proc/PID/mem */
    held *threads;
    size_t count, capacity;
    uint64_t until_ns;
} tracee;

static void
pause_shortly(void)
{
    nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
}

static int
is_known(const tracee *self, pid_t thread)
{
    for (size_t i = 0; i < self->count; i++) {
        if (self->threads[i].thread == thread) {
            return 1;
        }
    }
    return 0;
}

/* One that ends cannot be traced any more, and does nothing any more. */
static int
is_ending(const tracee *self, pid_t thread)
{
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/task/%d/stat", (int)self->pid, (int)thread);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    const ssize_t got = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0) {
        close(fd);
    }
    text[got > 0 ? got : 0] = 0;
    const char *name_end = strrchr(text, ')'); /* a space and the state follow */
    return name_end == NULL || strlen(name_end) < 3 || strchr("ZXx", name_end[2]) != NULL;
}

/* 1, 0 if the thread is gone, or a negative errno. */
static int
thread_seize(tracee *self, pid_t thread)
{
    if (self->count == self->capacity) {
        size_t capacity = self->capacity * 2 + 16;
        held *threads = realloc(self->threads, capacity * sizeof *threads);
        if (threads == NULL) {
            return -ENOMEM;
        }
        self->threads = threads;
        self->capacity = capacity;
    }
    if (ptrace(PTRACE_SEIZE, thread, NULL, NULL) < 0) {
        const int why = errno;
        return why == ESRCH || (why == EPERM && is_ending(self, thread)) ? 0 : -why;
    }
    self->threads[self->count++] = (held){.thread = thread};
    if (ptrace(PTRACE_INTERRUPT, thread, NULL, NULL) < 0 && errno != ESRCH) {
        return -errno;
    }
    return 1;
}

/* Seizes the threads that are not yet; how many, or a negative errno. */
static int
threads_seize(tracee *self)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", (int)self->pid);
    DIR *folder = opendir(path);
    if (folder == NULL) {
        return errno == ENOENT ? -ESRCH : -errno;
    }
    int seized = 0;
    for (const struct dirent *entry; seized >= 0 && (entry = readdir(folder)) != NULL;) {
        const pid_t thread = (pid_t)strtol(entry->d_name, NULL, 10);
        if (thread > 0 && !is_known(self, thread)) {
            int rc = thread_seize(self, thread);
            seized = rc < 0 ? rc : seized + rc;
        }
    }
    closedir(folder);
    return seized;
}

static void
thread_forget(tracee *self, size_t at)
{
    self->threads[at] = self->threads[--self->count];
}

/* Until all that are seized stand still or are gone. */
static int
threads_wait(tracee *self)
{
    for (size_t i = 0; i < self->count;) {
        held *it = &self->threads[i];
        int status;
        const pid_t got = it->stopped ? 0 : waitpid(it->thread, &status, __WALL | WNOHANG);
        if (it->stopped) {
            i++;
        } else if (got == it->thread && WIFSTOPPED(status)) {
            it->stopped = 1; /* by our interrupt, or by a signal that was just coming */
            it->signal = status >> 16 == 0 ? WSTOPSIG(status) : 0;
        } else if (got == it->thread || (got < 0 && errno == ECHILD)) {
            thread_forget(self, i);
        } else if (pmt__clock_mono_ns() >= self->until_ns) {
            return -ETIMEDOUT;
        } else {
            pause_shortly();
        }
    }
    return self->count == 0 ? -ESRCH : 0;
}

/* One that has not stopped yet cannot be let go: it is waited for, but not for ever (it may wait for a disk). When this process ends,
   the kernel lets it go. */
static void
threads_release(tracee *self)
{
    const uint64_t patience_ns = 2000000000;
    self->until_ns = pmt__clock_mono_ns() + patience_ns;
    for (size_t i = 0; i < self->count; i++) { /* first those that stand */
        held *it = &self->threads[i];
        if (it->stopped) {
            ptrace(PTRACE_DETACH, it->thread, NULL, it->signal);
            thread_forget(self, i--);
        }
    }
    threads_wait(self);
    for (size_t i = 0; i < self->count; i++) {
        ptrace(PTRACE_DETACH, self->threads[i].thread, NULL, self->threads[i].signal);
    }
}

static int
tracee_open(tracee *self, uint64_t pid, uint64_t timeout_ns)
{
    char path[64];
    memset(self, 0, sizeof *self);
    self->pid = (pid_t)pid;
    self->until_ns = pmt__clock_mono_ns() + timeout_ns;
    snprintf(path, sizeof path, "/proc/%d/mem", (int)pid);
    self->memory = open(path, O_RDWR | O_CLOEXEC);
    return self->memory >= 0 ? 0 : errno == ENOENT ? -ESRCH : -errno;
}

static void
tracee_close(tracee *self)
{
    close(self->memory);
    free(self->threads);
}

static int
part_compare(const tracee *self, const pmt__exchange *part)
{
    uint8_t found[PART_MAX];
    if (part->size > sizeof found) {
        return -EINVAL;
    }
    const ssize_t got = pread(self->memory, found, part->size, (off_t)part->address);
    if (got < 0 || (size_t)got != part->size) {
        return got < 0 ? -errno : -EFAULT;
    }
    return memcmp(found, part->expected, part->size) == 0 ? 0 : PMT_TRACEE_OTHER;
}

/* By one system call, so that there is no moment at which we could be killed in between. */
static int
words_write(const tracee *self, const pmt__exchange *parts, size_t count)
{
    struct iovec from[PMT_EXCHANGE_MAX], to[PMT_EXCHANGE_MAX];
    size_t words = 0, size = 0;
    for (size_t i = 0; i < count; i++) {
        if (parts[i].bytes != NULL && parts[i].expected == NULL) {
            void *bytes, *address = (void *)(uintptr_t)parts[i].address;
            memcpy(&bytes, &parts[i].bytes, sizeof bytes);
            from[words] = (struct iovec){bytes, parts[i].size};
            to[words++] = (struct iovec){address, parts[i].size};
            size += parts[i].size;
        }
    }
    const ssize_t put = words == 0 ? 0 : process_vm_writev(self->pid, from, words, to, words, 0);
    return put < 0 ? -errno : (size_t)put != size ? -EFAULT : 0;
}

static int
exchange(const tracee *self, const pmt__exchange *parts, size_t count)
{
    int rc = count > PMT_EXCHANGE_MAX ? -EINVAL : 0;
    for (size_t i = 0; rc == 0 && i < count; i++) {
        rc = parts[i].expected == NULL ? 0 : part_compare(self, &parts[i]);
    }
    for (size_t i = 0; rc == 0 && i < count; i++) {
        if (parts[i].bytes != NULL && parts[i].expected != NULL) {
            const ssize_t put =
                pwrite(self->memory, parts[i].bytes, parts[i].size, (off_t)parts[i].address);
            rc = put < 0 ? -errno : (size_t)put != parts[i].size ? -EFAULT : 0;
        }
    }
    return rc < 0 || rc == PMT_TRACEE_OTHER ? rc : words_write(self, parts, count);
}

/* What a process of its own is to do. */
typedef struct job {
    uint64_t pid;
    const pmt__exchange *parts;
    size_t count;
    uint64_t timeout_ns;
    const pmt__waiting *waiting; /* NULL: an exchange */
    uint64_t to, argument;
} job;

static int
exchange_all(const job *j, uint64_t *held_ns)
{
    tracee t;
    int rc = tracee_open(&t, j->pid, j->timeout_ns);
    if (rc < 0) {
        return rc;
    }
    const uint64_t from_ns = pmt__clock_mono_ns();
    do { /* until no thread is left that could start another */
        rc = threads_seize(&t);
        const int seized = rc;
        rc = rc < 0 ? rc : threads_wait(&t);
        if (seized == 0) {
            break;
        }
    } while (rc == 0);
    if (rc == 0) {
        rc = exchange(&t, j->parts, j->count);
    }
    threads_release(&t);
    *held_ns = pmt__clock_mono_ns() - from_ns;
    tracee_close(&t);
    return rc;
}

static int
thread_divert(const tracee *self, const pmt__waiting *waiting, uint64_t to, uint64_t argument)
{
    const held *it = &self->threads[0];
    struct user_regs_struct registers;
    if (it->signal != 0) {
        return PMT_TRACEE_OTHER;
    }
    if (ptrace(PTRACE_GETREGS, it->thread, NULL, &registers) < 0) {
        return -errno;
    }
    if (registers.orig_rax != waiting->number || registers.rsp != waiting->stack
        || registers.rip != waiting->next) {
        return PMT_TRACEE_OTHER;
    }
    registers.rip = to;
    registers.rcx = waiting->next;
    registers.r11 = argument;
    return ptrace(PTRACE_SETREGS, it->thread, NULL, &registers) < 0 ? -errno : 0;
}

static int
divert_one(const job *j, uint64_t *held_ns)
{
    tracee t;
    int rc = tracee_open(&t, j->pid, j->timeout_ns);
    if (rc < 0) {
        return rc;
    }
    const uint64_t from_ns = pmt__clock_mono_ns();
    rc = thread_seize(&t, (pid_t)j->waiting->thread);
    rc = rc == 0 ? PMT_TRACEE_OTHER : rc < 0 ? rc : threads_wait(&t);
    rc = rc == 0 ? exchange(&t, j->parts, j->count) : rc;
    rc = rc == 0 ? thread_divert(&t, j->waiting, j->to, j->argument) : rc;
    threads_release(&t);
    *held_ns = pmt__clock_mono_ns() - from_ns;
    tracee_close(&t);
    return rc;
}

/* --- a process of its own ------------------------------------------------------------------------------------------------------- */

typedef struct outcome {
    int rc;
    uint64_t held_ns;
} outcome;

static int
child_read(int fd, pid_t child, uint64_t *held_ns)
{
    outcome o = {.rc = -EINTR};
    ssize_t got;
    do {
        got = read(fd, &o, sizeof o);
    } while (got < 0 && errno == EINTR);
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {
    }
    *held_ns = o.held_ns;
    return got == (ssize_t)sizeof o ? o.rc : -EINTR;
}

/* In a child, in a session of its own: who kills the command, or all that its terminal has started, does not kill what is just
   at work in another process. */
static int
do_apart(const job *j, uint64_t *held_ns)
{
    int ends[2];
    if (pipe(ends) < 0) {
        return -errno;
    }
    const pid_t child = fork();
    if (child == 0) {
        outcome o = {0};
        setsid();
        setpriority(PRIO_PROCESS, 0,
                    -20); /* where it is permitted: another process stands still meanwhile */
        o.rc = j->waiting == NULL ? exchange_all(j, &o.held_ns) : divert_one(j, &o.held_ns);
        signal(SIGPIPE, SIG_IGN);
        _exit(write(ends[1], &o, sizeof o) == (ssize_t)sizeof o ? 0 : 1);
    }
    const int rc = child < 0 ? -errno : 0;
    close(ends[1]);
    const int result = rc < 0 ? rc : child_read(ends[0], child, held_ns);
    close(ends[0]);
    return result;
}

int
pmt__tracee_exchange(uint64_t pid, const pmt__exchange *parts, size_t count, uint64_t timeout_ns,
                     uint64_t *held_ns)
{
    const job j = {.pid = pid, .parts = parts, .count = count, .timeout_ns = timeout_ns};
    return do_apart(&j, held_ns);
}

int
pmt__tracee_divert(uint64_t pid, const pmt__waiting *waiting, uint64_t to, uint64_t argument,
                   const pmt__exchange *parts, size_t count, uint64_t timeout_ns, uint64_t *held_ns)
{
    const job j = {pid, parts, count, timeout_ns, waiting, to, argument};
    return do_apart(&j, held_ns);
}
