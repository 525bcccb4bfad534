/* pymemtrace-symbolize: says what the addresses of an executable or library are in its source code.

   usage: pymemtrace-symbolize [--build-id HEX] [--debug-folders A:B:…] [--debug-file FILE] [--dwarf yes|no] OBJECT < ADDRESSES

   A program of its own because debug information is large, varied and at times wrong: what crashes here, or never ends, costs
   the report the lines of one object: with --dwarf no, only our own reader of symbol tables is at work. Whoever starts it sets the
   time limit; pymemtrace/_symbols.py does.

   Standard input: return addresses of the ELF file, hexadecimal, one a line. What is looked up is the byte before.

   Standard output: lines of JSON. First an object:

     {"build_id": "hex or empty", "debug_file": path or null, "has_dwarf": bool}     or
     {"error": "why nothing is resolved"}

   Then for each address [address, [[function, file, line], …]], the innermost frame first, none if nothing is known. Function
   and file are "" and the line is 0 where they are not known; the last frame has a function. Bytes that are no UTF-8 are written as Python's
   surrogateescape has them. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "symbolize/debug_file.h"
#include "symbolize/demangle.h"
#include "symbolize/dwarf.h"
#include "symbolize/object.h"

#define DEBUG_FOLDERS "/usr/lib/debug"
#define FRAMES_MAX 256
#define FILE_MAX 4096
#define MEMORY_LIMIT ((rlim_t)16 << 30) /* of addresses: debug files are mapped */
#define CPU_LIMIT_S 300

enum {
    EXIT_OBJECT = 1,
    EXIT_USAGE = 2
};

typedef struct options {
    const char *build_id;
    const char *folders;
    const char *debug_file;
    const char *path;
    bool dwarf;
} options;

/* --- JSON -------------------------------------------------------------------------------------- */

/* The length of the valid character of UTF-8 at `at`, which ends with a NUL; 0 if there is none. */
static size_t
character_at(const unsigned char *at)
{
    if (at[0] < 0x80) {
        return 1;
    }
    size_t n = at[0] >= 0xf0 ? 4 : at[0] >= 0xe0 ? 3 : 2;
    if (at[0] < 0xc2 || at[0] > 0xf4) {
        return 0;
    }
    for (size_t i = 1; i < n; i++) {
        if ((at[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    bool overlong = (at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xf0 && at[1] < 0x90);
    bool impossible = (at[0] == 0xed && at[1] >= 0xa0) || (at[0] == 0xf4 && at[1] >= 0x90);
    return overlong || impossible ? 0 : n;
}

static void
put_json(const char *text)
{
    putchar_unlocked('"');
    const unsigned char *at = (const unsigned char *)text;
    while (*at != '\0') {
        size_t n = character_at(at);
        if (n == 0) {
            printf("\\udc%02x", *at++);
        } else if (*at < 0x20 || *at == 0x7f || *at == '"' || *at == '\\') {
            printf("\\u%04x", *at++);
        } else {
            fwrite_unlocked(at, 1, n, stdout);
            at += n;
        }
    }
    putchar_unlocked('"');
}

/* --- looking up -------------------------------------------------------------------------------- */

/* Without "." and "x/..": builders put together what compilers then record. */
static void
put_path(const char *path)
{
    char out[FILE_MAX];
    size_t len = strlen(path);
    if (len >= sizeof out) {
        put_json(path);
        return;
    }
    size_t used = 0;
    size_t kept = 0; /* parts in out that ".." can take away */
    const char *at = path;
    if (*at == '/') {
        out[used++] = '/';
    }
    while (*at != '\0') {
        size_t n = strcspn(at, "/");
        if (n == 2 && memcmp(at, "..", 2) == 0 && kept > 0) {
            used--; /* the slash behind the last part */
            while (used > 0 && out[used - 1] != '/') {
                used--;
            }
            kept--;
        } else if (n != 0 && !(n == 1 && at[0] == '.')) {
            memcpy(out + used, at, n);
            used += n;
            out[used++] = '/';
            kept = n == 2 && memcmp(at, "..", 2) == 0 ? 0 : kept + 1;
        }
        at += n;
        at += *at == '/';
    }
    if (used > 1 && out[used - 1] == '/') {
        used--;
    }
    out[used] = '\0';
    put_json(out);
}

static void
put_frame(const pmt__source_frame *frame, const char *function)
{
    char name[PMT_NAME_MAX + 1] = "";
    if (function != NULL) {
        pmt__demangle(name, function);
    }
    putchar_unlocked('[');
    put_json(name);
    putchar_unlocked(',');
    put_path(frame->file == NULL ? "" : frame->file);
    printf(",%d]", frame->line);
}

/* The name of the function that others are inlined into. DWARF does not always have it, at times only the last part of it,
   and in glibc one that is for the library itself: __GI___libc_realloc. */
static const char *
outer_name(const char *dwarf, const char *symbol)
{
    if (dwarf == NULL || symbol == NULL) {
        return dwarf == NULL ? symbol : dwarf;
    }
    bool is_part = pmt__is_mangled(symbol) && !pmt__is_mangled(dwarf);
    return is_part || strncmp(dwarf, "__GI_", 5) == 0 ? symbol : dwarf;
}

static void
put_address(uint64_t address, const pmt__object *object, pmt__dwarf *dwarf,
            const pmt__symbols *symbols)
{
    pmt__source_frame frames[FRAMES_MAX];
    size_t count = 0;
    const char *symbol = NULL;
    if (address != 0 && pmt__object_has(object, address - 1)) {
        symbol = pmt__symbols_find(symbols, address - 1);
        count = dwarf == NULL ? 0 : pmt__dwarf_find(dwarf, address - 1, frames, FRAMES_MAX);
    }
    const char *outer = outer_name(count == 0 ? NULL : frames[count - 1].function, symbol);
    if (count == 0) {
        frames[0] = (pmt__source_frame){NULL, NULL, 0};
        count = outer != NULL;
    }
    printf("[%llu,[", (unsigned long long)address);
    for (size_t i = 0; outer != NULL && i < count; i++) {
        if (i != 0) {
            putchar_unlocked(',');
        }
        put_frame(&frames[i], i == count - 1 ? outer : frames[i].function);
    }
    fputs("]]\n", stdout);
}

/* --- the program ------------------------------------------------------------------------------- */

static int
fail(const char *what)
{
    fputs("{\"error\":", stdout);
    put_json(what);
    fputs("}\n", stdout);
    return EXIT_OBJECT;
}

static void
format_build_id(char out[2 * PMT_BUILD_ID_MAX + 1], const pmt__object *object)
{
    out[0] = '\0';
    for (size_t i = 0; i < object->build_id_size; i++) {
        snprintf(out + 2 * i, 3, "%02x", object->build_id[i]);
    }
}

static int
resolve(const options *it)
{
    pmt__object object;
    const char *failure = pmt__object_open(&object, it->path);
    if (failure != NULL) {
        return fail(failure);
    }
    char build_id[2 * PMT_BUILD_ID_MAX + 1];
    format_build_id(build_id, &object);
    if (it->build_id[0] != '\0' && strcmp(it->build_id, build_id) != 0) {
        return fail("it is another build than the recorded one");
    }
    pmt__object debug = {NULL};
    char *debug_path = NULL;
    if (!object.has_dwarf) {
        debug_path = pmt__debug_file_open(&debug, &object, it->folders, it->debug_file);
    }
    pmt__symbols symbols = {NULL, 0, 0};
    bool known = pmt__symbols_add(&symbols, &object)
                 && (debug_path == NULL || pmt__symbols_add(&symbols, &debug));
    if (!known) {
        return fail("out of memory");
    }
    pmt__symbols_sort(&symbols);
    pmt__dwarf *dwarf = NULL;
    if (it->dwarf && (object.has_dwarf || debug.has_dwarf)) {
        dwarf = pmt__dwarf_open(object.has_dwarf ? it->path : debug_path);
    }
    printf("{\"build_id\":\"%s\",\"has_dwarf\":%s,\"debug_file\":", build_id,
           dwarf == NULL ? "false" : "true");
    if (debug_path == NULL) {
        fputs("null", stdout);
    } else {
        put_json(debug_path);
    }
    fputs("}\n", stdout);
    char line[64];
    while (fgets(line, sizeof line, stdin) != NULL) {
        put_address(strtoull(line, NULL, 16), &object, dwarf, &symbols);
    }
    return fflush(stdout) == 0 ? 0 : EXIT_OBJECT;
    /* libbacktrace has nothing to close; the end of the process gives all back. */
}

static void
limit(int what, rlim_t value)
{
    struct rlimit now;
    if (getrlimit(what, &now) == 0 && (now.rlim_max == RLIM_INFINITY || now.rlim_max > value)) {
        now.rlim_cur = now.rlim_max = value;
        setrlimit(what, &now);
    }
}

int
main(int argc, char **argv)
{
    limit(RLIMIT_CORE, 0); /* a crash is expected at times */
    limit(RLIMIT_CPU, CPU_LIMIT_S);
#ifndef __SANITIZE_ADDRESS__
    limit(RLIMIT_AS, MEMORY_LIMIT);
#endif
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    options it = {"", DEBUG_FOLDERS, NULL, NULL, true};
    int at = 1;
    for (; at + 2 < argc; at += 2) {
        if (strcmp(argv[at], "--build-id") == 0) {
            it.build_id = argv[at + 1];
        } else if (strcmp(argv[at], "--debug-folders") == 0) {
            it.folders = argv[at + 1];
        } else if (strcmp(argv[at], "--debug-file") == 0) {
            it.debug_file = argv[at + 1];
        } else if (strcmp(argv[at], "--dwarf") == 0) {
            it.dwarf = strcmp(argv[at + 1], "no") != 0;
        } else {
            break;
        }
    }
    if (at != argc - 1 || argv[at][0] != '/') {
        fputs("usage: pymemtrace-symbolize [--build-id HEX] [--debug-folders A:B] [--debug-file "
              "FILE] "
              "[--dwarf yes|no] /PATH/OF/OBJECT < ADDRESSES\n",
              stderr);
        return EXIT_USAGE;
    }
    it.path = argv[at];
    return resolve(&it);
}
