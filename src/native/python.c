/* A Python that a recorded process has executed: records itself from the moment on in which it is about to run its program.

   Nothing may be changed that the program could notice: its command line, its flags, its path, its environment. So the
   interpreter starts as it always does, and tells us by an audit event that it is ready, when `site` has been imported and
   sys.argv and sys.path are as they will be. An audit hook can be set before the interpreter exists. We know none of its headers
   here, only names of its public interface, looked up at run time: the library must not depend on a version.

   What is executed then is pymemtrace/_child.py, in a namespace of its own. If anything fails, the process goes on unrecorded. */
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "native/exec.h"

static struct {
    const char *words;
    long parent, generation;
    bool done;
} follow;

enum {
    FILE_INPUT = 257 /* Py_file_input */
};

/* Objects are passed through, so their type does not matter. */
static struct {
    int (*add_hook)(int (*)(const char *, void *, void *), void *);
    void (*allocator_get)(int, void *);
    void (*allocator_set)(int, void *);
    void *(*dict_new)(void);
    int (*dict_set)(void *, const char *, void *);
    void *(*decode)(const char *);
    void *(*from_long)(long);
    void *(*builtins)(void);
    void *(*run)(const char *, int, void *, void *, void *);
    void (*error_clear)(void);
    void (*release)(void *);
} py;

static bool
interface_find(void)
{
    static const struct {
        const char *name;
        void *place;
    } wanted[] = {
        {"PySys_AddAuditHook", &py.add_hook},
        {"PyMem_GetAllocator", &py.allocator_get},
        {"PyMem_SetAllocator", &py.allocator_set},
        {"PyDict_New", &py.dict_new},
        {"PyDict_SetItemString", &py.dict_set},
        {"PyUnicode_DecodeFSDefault", &py.decode},
        {"PyLong_FromLong", &py.from_long},
        {"PyEval_GetBuiltins", &py.builtins},
        {"PyRun_StringFlags", &py.run},
        {"PyErr_Clear", &py.error_clear},
        {"Py_DecRef", &py.release},
    };
    bool all = true;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        void *address = dlsym(RTLD_DEFAULT, wanted[i].name);
        memcpy(wanted[i].place, &address, sizeof address);
        all &= address != NULL;
    }
    return all;
}

static void
put(void *namespace, const char *name, void *value)
{
    if (value == NULL || py.dict_set(namespace, name, value) < 0) {
        py.error_clear();
    }
    if (value != NULL) {
        py.release(value);
    }
}

/* The loader reads what was compiled before, so a child does not compile it anew. */
static const char bootstrap[] =
    "import sys\n"
    "try:\n"
    "    words = dict(word.split('=', 1) for word in words.split('\\x1f') if word)\n"
    "    loader = sys.modules['_frozen_importlib_external'].SourceFileLoader\n"
    "    name = 'pymemtrace._child'\n"
    "    code = loader(name, words['package'] + '/_child.py').get_code(name)\n"
    "    namespace = {'__name__': name}\n"
    "    exec(code, namespace)\n"
    "    namespace['record'](words, parent, generation)\n"
    "except BaseException:\n"
    "    pass\n";

static void
record(void)
{
    void *namespace = py.dict_new();
    if (namespace == NULL) {
        py.error_clear();
        return;
    }
    if (py.dict_set(namespace, "__builtins__", py.builtins()) < 0) {
        py.error_clear();
    }
    put(namespace, "words", py.decode(follow.words));
    put(namespace, "parent", py.from_long(follow.parent));
    put(namespace, "generation", py.from_long(follow.generation));
    void *result = py.run(bootstrap, FILE_INPUT, namespace, namespace, NULL);
    if (result == NULL) {
        py.error_clear();
    } else {
        py.release(result);
    }
    py.release(namespace);
}

/* The events with which the interpreter says that it will now run -c, -m, a file, and so on. */
static int
on_event(const char *event, void *args, void *unused)
{
    (void)args;
    (void)unused;
    if (__builtin_expect(follow.done, 1) || strncmp(event, "cpython.run_", 12) != 0) {
        return 0;
    }
    follow.done = true;
    record();
    return 0;
}

/* --- setting the hook ----------------------------------------------------------------------------------------------------------------

   What an audit hook takes before the interpreter exists comes from its raw allocator as it is then, and goes back to it as it is
   at the end. Under -X dev or PYTHONMALLOC=debug those are two different ones, and the interpreter aborts over it. So while the hook is
   set, an allocator of ours gives it a block that both find in order: it has the marks of the debug allocator around it, and to free()
   it is one of those that are never given back. */

typedef struct allocator { /* PyMemAllocatorEx */
    void *ctx;
    void *(*malloc)(void *, size_t);
    void *(*calloc)(void *, size_t, size_t);
    void *(*realloc)(void *, void *, size_t);
    void (*free)(void *, void *);
} allocator;

static void *
marked_malloc(void *ctx, size_t size)
{
    enum {
        WORD = sizeof(size_t),
        MARK = 0xfd
    };
    (void)ctx;
    unsigned char *block = pmt__preload_early(size + 4 * WORD);
    if (block == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < WORD; i++) { /* the size, its highest byte first */
        block[i] = (unsigned char)(size >> 8 * (WORD - 1 - i));
    }
    block[WORD] = 'r';
    memset(block + WORD + 1, MARK, WORD - 1);
    memset(block + 2 * WORD + size, MARK, WORD);
    return block + 2 * WORD;
}

static void
hook_set(void)
{
    enum {
        RAW = 0 /* PYMEM_DOMAIN_RAW */
    };
    allocator before;
    py.allocator_get(RAW, &before);
    allocator ours = before;
    ours.malloc = marked_malloc;
    py.allocator_set(RAW, &ours);
    py.add_hook(on_event, NULL);
    py.allocator_set(RAW, &before);
}

void
pmt__preload_python_follow(const char *words, long parent, long generation)
{
    follow.words = words;
    follow.parent = parent;
    follow.generation = generation;
    if (interface_find()) {
        hook_set();
    }
}
