/* The preloaded library's second half: programs that this process executes, and _exit.

   Children that execute Python are to record themselves, so it must find us in LD_PRELOAD, and what the recorder was told. The environment
   is the wrong place to keep that: programs look at it, replace it (env={}), and hand it on to others who would stumble over
   it. So it is kept here, and put into the environment of exactly those programs that are this interpreter, at the moment of
   the exec; there, the constructor takes it out again before anything of the program runs. Shells and env(1) are given it
   too, or scripts that are run by `sh -c` would be lost: they are not recorded, but carry it to what they execute in turn.
   Every other program gets the environment that it was meant to get.

   After vfork we run in the memory of the parent: so there is no allocation here and no write to anything but the stack, and the
   new environment is made on the stack. Should it not fit there, or the system refuse it as too long, the program gets its
   own.

   _exit ends a process past every exit handler of Python. Workers of multiprocessing end like that, after work that counts, so
   the recorder is told. What goes past us: the C library's calls of itself, such as in system(), popen() and daemon(). */
#include "native/exec.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "record/children_table.h"

#define EXPORT __attribute__((visibility("default")))

#define WORDS "PYMEMTRACE_FOLLOW="
#define PARENT "PYMEMTRACE_PARENT="
#define BEFORE "PYMEMTRACE_LD_PRELOAD="
#define PRELOAD "LD_PRELOAD="
#define DESCRIPTOR "/proc/self/fd/"

enum {
    ENTRIES_MAX = 1000, /* of an environment or a list of arguments that is copied to the stack */
    PRELOAD_MAX = 2048,
    DESCRIPTOR_HIGH = 800
};

extern char **environ;

/* Set before threads or children exist, or with the GIL; read by anybody. */
static struct {
    const pmt__children_table *table; /* NULL in a shell */
    const char *words;                /* "PYMEMTRACE_FOLLOW=…", NULL: nobody is followed */
    const char *library;              /* our own path, in words */
    dev_t device;                     /* of the interpreter */
    ino_t inode;
    uint64_t parent, generation; /* in a shell: as they came */
} here;

/* --- words ------------------------------------------------------------------------------------------------------------------------- */

static const char *
word_find(const char *words, const char *key, size_t *length)
{
    size_t key_length = strlen(key);
    while (*words != '\0') {
        size_t n = strcspn(words, "\x1f");
        if (n > key_length && words[key_length] == '=' && strncmp(words, key, key_length) == 0) {
            *length = n - key_length - 1;
            return words + key_length + 1;
        }
        words += n + (words[n] != '\0');
    }
    return NULL;
}

/* Memory that is the program's neither to count nor to overwrite, as it may the strings of its environment. */
static char *
keep(const char *prefix, const char *text, size_t length)
{
    size_t head = strlen(prefix);
    long pages = syscall(SYS_mmap, NULL, head + length + 1, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == -1) {
        return NULL;
    }
    char *copy = (char *)pages;
    memcpy(copy, prefix, head);
    memcpy(copy + head, text, length);
    return copy;
}

static void
words_keep(const char *words)
{
    size_t library_length, exe_length;
    const char *library = word_find(words, "library", &library_length);
    const char *exe = word_find(words, "interpreter", &exe_length);
    struct stat found;
    char path[PATH_MAX];
    if (library == NULL || exe == NULL || exe_length >= sizeof path) {
        return;
    }
    memcpy(path, exe, exe_length);
    path[exe_length] = '\0';
    here.library = keep("", library, library_length);
    here.words = stat(path, &found) == 0 ? keep(WORDS, words, strlen(words)) : NULL;
    here.device = found.st_dev;
    here.inode = found.st_ino;
}

EXPORT void pymemtrace_preload_children(const pmt__children_table *table, const char *words);
void
pymemtrace_preload_children(const pmt__children_table *table, const char *words)
{
    here.words = NULL;
    if (words != NULL) {
        words_keep(words);
    }
    if (table->version == PMT_CHILDREN_TABLE_VERSION) {
        __atomic_store_n(&here.table, table, __ATOMIC_RELEASE);
    }
}

/* --- the originals ----------------------------------------------------------------------------------------------------------------- */

typedef int spawn_function(pid_t *, const char *, const posix_spawn_file_actions_t *,
                           const posix_spawnattr_t *, char *const[], char *const[]);

static struct {
    int (*execve)(const char *, char *const[], char *const[]);
    int (*execvpe)(const char *, char *const[], char *const[]);
    int (*fexecve)(int, char *const[], char *const[]);
    spawn_function *spawn, *spawnp;
    void (*exit)(int);
} real;

static void
originals_find(void)
{
    static const struct {
        const char *name;
        void *place;
    } wanted[] = {
        {"execve", &real.execve},     {"execvpe", &real.execvpe},     {"fexecve", &real.fexecve},
        {"posix_spawn", &real.spawn}, {"posix_spawnp", &real.spawnp}, {"_exit", &real.exit},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        void *address = dlsym(RTLD_NEXT, wanted[i].name);
        memcpy(wanted[i].place, &address, sizeof address);
    }
}

/* --- which program is it? ------------------------------------------------------------------------------------------------------------ */

typedef enum program {
    OTHER,
    SHELL, /* is not recorded, but what it executes may be */
    PYTHON
} program;

static bool
is_interpreter(const struct stat *file)
{
    return file->st_dev == here.device && file->st_ino == here.inode;
}

/* A shell that will load us: dynamically linked, of our machine, and without other rights than ours. */
static bool
is_shell(int fd, const struct stat *file, const unsigned char *head, size_t size)
{
    static const char *const names[] = {"sh", "dash", "bash", "env"};
    Elf64_Ehdr elf;
    char link[sizeof DESCRIPTOR + 16], path[PATH_MAX];
    if ((file->st_mode & (S_ISUID | S_ISGID)) != 0 || size < sizeof elf) {
        return false;
    }
    memcpy(&elf, head, sizeof elf);
    if (elf.e_ident[EI_CLASS] != ELFCLASS64 || elf.e_machine != EM_X86_64
        || elf.e_phentsize != sizeof(Elf64_Phdr)) {
        return false;
    }
    snprintf(link, sizeof link, DESCRIPTOR "%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    path[n < 0 ? 0 : n] = '\0';
    const char *name = strrchr(path, '/');
    bool known = false;
    for (size_t i = 0; name != NULL && i < sizeof names / sizeof *names; i++) {
        known |= strcmp(name + 1, names[i]) == 0;
    }
    for (int i = 0; known && i < elf.e_phnum; i++) {
        Elf64_Phdr part;
        off_t at = (off_t)(elf.e_phoff + (size_t)i * sizeof part);
        if (pread(fd, &part, sizeof part, at) == (ssize_t)sizeof part && part.p_type == PT_INTERP) {
            return true;
        }
    }
    return false;
}

static program program_of_path(int directory, const char *path, int depth);

/* The interpreter that a script names in its first line, which may be no Python. */
static program
program_of_script(const char *head, size_t size, int depth)
{
    char path[256];
    size_t start = 2;
    while (start < size && (head[start] == ' ' || head[start] == '\t')) {
        start++;
    }
    size_t length = strcspn(head + start, " \t\n");
    if (length == 0 || length >= sizeof path || depth > 4) {
        return OTHER;
    }
    memcpy(path, head + start, length);
    path[length] = '\0';
    return program_of_path(AT_FDCWD, path, depth + 1);
}

static program
program_of_descriptor(int fd, int depth)
{
    struct stat file;
    char head[257];
    if (fstat(fd, &file) != 0 || !S_ISREG(file.st_mode)) {
        return OTHER;
    }
    if (is_interpreter(&file)) {
        return PYTHON;
    }
    ssize_t size = pread(fd, head, sizeof head - 1, 0);
    head[size < 0 ? 0 : size] = '\0';
    if (size > 2 && head[0] == '#' && head[1] == '!') {
        return program_of_script(head, (size_t)size, depth);
    }
    return size > 0 && is_shell(fd, &file, (const unsigned char *)head, (size_t)size) ? SHELL
                                                                                      : OTHER;
}

static program
program_of_path(int directory, const char *path, int depth)
{
    struct stat file;
    if (fstatat(directory, path, &file, 0) != 0 || !S_ISREG(file.st_mode)) {
        return OTHER; /* a pipe must not be opened */
    }
    if (is_interpreter(&file)) {
        return PYTHON;
    }
    int fd = openat(directory, path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) {
        return OTHER;
    }
    program found = program_of_descriptor(fd, depth);
    close(fd);
    return found;
}

/* As execvp finds it: along PATH, if the name has no slash. */
static program
program_of_name(const char *name)
{
    if (strchr(name, '/') != NULL) {
        return program_of_path(AT_FDCWD, name, 0);
    }
    const char *at = getenv("PATH");
    for (at = at == NULL ? "/bin:/usr/bin" : at;; at++) {
        char path[PATH_MAX];
        size_t length = strcspn(at, ":");
        int n = length == 0 ? snprintf(path, sizeof path, "%s", name)
                            : snprintf(path, sizeof path, "%.*s/%s", (int)length, at, name);
        if (n > 0 && (size_t)n < sizeof path && access(path, X_OK) == 0) {
            return program_of_path(AT_FDCWD, path, 0);
        }
        at += length;
        if (*at == '\0') {
            return OTHER;
        }
    }
}

/* --- the environment that it gets -------------------------------------------------------------------------------------------------------- */

typedef struct environment {
    char *entries[ENTRIES_MAX + 5];
    char preload[sizeof PRELOAD + PRELOAD_MAX];
    char before[sizeof BEFORE + PRELOAD_MAX];
    char parent[sizeof PARENT + 48];
    int fd; /* of the library, where its path cannot stand in LD_PRELOAD; -1: none */
} environment;

static long
process_here(void)
{
    const pmt__children_table *table = __atomic_load_n(&here.table, __ATOMIC_ACQUIRE);
    return table == NULL ? 0 : (long)table->process();
}

/* false: it does not fit. itself: the program takes the place of the caller, so descriptors that are opened here reach nobody else. */
static bool
environment_make(environment *self, char *const *given, bool itself)
{
    const char *before = NULL;
    size_t count = 0;
    self->fd = -1;
    for (; given != NULL && *given != NULL; given++) {
        if (strncmp(*given, PRELOAD, sizeof PRELOAD - 1) == 0) {
            before = *given + sizeof PRELOAD - 1;
            continue;
        }
        if (count == ENTRIES_MAX) {
            return false;
        }
        self->entries[count++] = *given;
    }
    char library[PATH_MAX];
    snprintf(library, sizeof library, "%s", here.library);
    if (strpbrk(library, " \t\n:") != NULL) {
        int fd = itself ? open(here.library, O_RDONLY | O_CLOEXEC) : -1;
        self->fd = fd < 0 ? -1 : fcntl(fd, F_DUPFD, DESCRIPTOR_HIGH);
        close(fd);
        if (self->fd < 0) {
            return false;
        }
        snprintf(library, sizeof library, DESCRIPTOR "%d", self->fd);
    }
    uint64_t parent = here.parent, generation = here.generation;
    if (here.table != NULL) {
        here.table->origin(itself && process_here() == getpid(), &parent, &generation);
    }
    int sizes[] = {
        snprintf(self->preload, sizeof self->preload, PRELOAD "%s%s%s", library,
                 before == NULL ? "" : ":", before == NULL ? "" : before),
        snprintf(self->before, sizeof self->before, BEFORE "%s%s", before == NULL ? "-" : "=",
                 before == NULL ? "" : before),
    };
    if ((size_t)sizes[0] >= sizeof self->preload || (size_t)sizes[1] >= sizeof self->before) {
        if (self->fd >= 0) {
            close(self->fd);
        }
        return false;
    }
    snprintf(self->parent, sizeof self->parent, PARENT "%llu.%llu", (unsigned long long)parent,
             (unsigned long long)generation);
    self->entries[count++] = self->preload;
    self->entries[count++] = self->before;
    self->entries[count++] = self->parent;
    self->entries[count++] = (char *)(uintptr_t)here.words;
    self->entries[count] = NULL;
    return true;
}

static bool
follows(void)
{
    return here.words != NULL && (here.table == NULL || process_here() != 0);
}

/* --- exec ---------------------------------------------------------------------------------------------------------------------------- */

typedef enum way {
    BY_PATH,
    BY_NAME,
    BY_DESCRIPTOR
} way;

static int
execute_now(way by, int fd, const char *what, char *const *argv, char *const *envp)
{
    switch (by) {
    case BY_PATH:
        return real.execve != NULL ? real.execve(what, argv, envp)
                                   : (int)syscall(SYS_execve, what, argv, envp);
    case BY_NAME:
        return real.execvpe(what, argv, envp);
    case BY_DESCRIPTOR:
        return real.fexecve(fd, argv, envp);
    }
    return -1;
}

static int __attribute__((noinline))
execute_followed(way by, int fd, const char *what, char *const *argv, char *const *envp)
{
    environment made;
    if (!environment_make(&made, envp, true)) {
        return execute_now(by, fd, what, argv, envp);
    }
    int rc = execute_now(by, fd, what, argv, made.entries);
    int error = errno;
    if (made.fd >= 0) {
        close(made.fd);
    }
    if (error == E2BIG) {
        return execute_now(by, fd, what, argv, envp);
    }
    errno = error;
    return rc;
}

static int
execute(way by, int fd, const char *what, char *const *argv, char *const *envp)
{
    const pmt__children_table *table = __atomic_load_n(&here.table, __ATOMIC_ACQUIRE);
    bool begun = table != NULL && process_here() == getpid() && table->exec_begin();
    program found = !follows()            ? OTHER
                    : by == BY_DESCRIPTOR ? program_of_descriptor(fd, 0)
                    : by == BY_NAME       ? program_of_name(what)
                                          : program_of_path(AT_FDCWD, what, 0);
    int rc = found != OTHER ? execute_followed(by, fd, what, argv, envp)
                            : execute_now(by, fd, what, argv, envp);
    if (begun) {
        int error = errno;
        table->exec_failed();
        errno = error;
    }
    return rc;
}

EXPORT int
execve(const char *path, char *const argv[], char *const envp[])
{
    return execute(BY_PATH, -1, path, argv, envp);
}

EXPORT int
execv(const char *path, char *const argv[])
{
    return execute(BY_PATH, -1, path, argv, environ);
}

EXPORT int
execvp(const char *name, char *const argv[])
{
    return execute(BY_NAME, -1, name, argv, environ);
}

EXPORT int
execvpe(const char *name, char *const argv[], char *const envp[])
{
    return execute(BY_NAME, -1, name, argv, envp);
}

EXPORT int
fexecve(int fd, char *const argv[], char *const envp[])
{
    return execute(BY_DESCRIPTOR, fd, NULL, argv, envp);
}

/* The arguments of the execl family as an array; more than fit are not passed on as fewer. */
#define ARGUMENTS_TAKE(argv, first, last)                       \
    char *argv[ENTRIES_MAX + 1] = {(char *)(uintptr_t)(first)}; \
    va_list last;                                               \
    va_start(last, first);                                      \
    for (size_t count_ = 0; argv[count_] != NULL;) {            \
        if (++count_ == ENTRIES_MAX) {                          \
            va_end(last);                                       \
            errno = E2BIG;                                      \
            return -1;                                          \
        }                                                       \
        argv[count_] = va_arg(last, char *);                    \
    }

EXPORT int
execl(const char *path, const char *first, ...)
{
    ARGUMENTS_TAKE(argv, first, rest)
    va_end(rest);
    return execute(BY_PATH, -1, path, argv, environ);
}

EXPORT int
execlp(const char *name, const char *first, ...)
{
    ARGUMENTS_TAKE(argv, first, rest)
    va_end(rest);
    return execute(BY_NAME, -1, name, argv, environ);
}

EXPORT int
execle(const char *path, const char *first, ...)
{
    ARGUMENTS_TAKE(argv, first, rest)
    char *const *envp = va_arg(rest, char *const *);
    va_end(rest);
    return execute(BY_PATH, -1, path, argv, envp);
}

/* --- posix_spawn: the C library makes the child and executes the program without us ---------------------------------------------------- */

static int
spawn(spawn_function *function, program found, pid_t *pid, const char *what,
      const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes,
      char *const argv[], char *const envp[])
{
    environment made;
    if (found == OTHER || !environment_make(&made, envp, false)) {
        return function(pid, what, actions, attributes, argv, envp);
    }
    int rc = function(pid, what, actions, attributes, argv, made.entries);
    return rc == E2BIG ? function(pid, what, actions, attributes, argv, envp) : rc;
}

EXPORT int
posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
            const posix_spawnattr_t *attributes, char *const argv[], char *const envp[])
{
    program found = follows() ? program_of_path(AT_FDCWD, path, 0) : OTHER;
    return spawn(real.spawn, found, pid, path, actions, attributes, argv, envp);
}

EXPORT int
posix_spawnp(pid_t *pid, const char *name, const posix_spawn_file_actions_t *actions,
             const posix_spawnattr_t *attributes, char *const argv[], char *const envp[])
{
    program found = follows() ? program_of_name(name) : OTHER;
    return spawn(real.spawnp, found, pid, name, actions, attributes, argv, envp);
}

/* --- _exit -------------------------------------------------------------------------------------------------------------------------- */

EXPORT _Noreturn void
_exit(int status)
{
    const pmt__children_table *table = __atomic_load_n(&here.table, __ATOMIC_ACQUIRE);
    if (table != NULL && process_here() == getpid()) {
        table->exiting();
    }
    if (real.exit != NULL) {
        real.exit(status);
    }
    for (;;) {
        syscall(SYS_exit_group, status);
    }
}

EXPORT _Noreturn void
_Exit(int status)
{
    _exit(status);
}

/* --- the start ------------------------------------------------------------------------------------------------------------------------ */

static void
take_out(const char *entry)
{
    char **out = environ;
    for (char **at = environ; *at != NULL; at++) {
        if (*at != entry) {
            *out++ = *at;
        }
    }
    *out = NULL;
}

static const char *
variable_find(const char *name)
{
    for (char **at = environ; at != NULL && *at != NULL; at++) {
        if (strncmp(*at, name, strlen(name)) == 0) {
            return *at;
        }
    }
    return NULL;
}

__attribute__((constructor)) static void
start(void)
{
    originals_find();
    const char *words = variable_find(WORDS);
    const char *parent = variable_find(PARENT);
    if (words == NULL || parent == NULL) {
        return;
    }
    char *end;
    here.parent = strtoull(parent + sizeof PARENT - 1, &end, 10);
    here.generation = *end == '.' ? strtoull(end + 1, NULL, 10) : 0;
    words_keep(words + sizeof WORDS - 1);
    take_out(words);
    take_out(parent);
    struct stat self;
    if (here.words != NULL && stat("/proc/self/exe", &self) == 0 && is_interpreter(&self)) {
        pmt__preload_python_follow(here.words + sizeof WORDS - 1, (long)here.parent,
                                   (long)here.generation);
    }
}
