/* libiberty's demanglers: one library for C++ and both manglings of Rust, the one that binutils and gdb use. The callback
   functions allocate nothing for the result and limit their recursion. */
#include "symbolize/demangle.h"

#include <string.h>

#include <libiberty/demangle.h>

typedef struct buffer {
    char *text;
    size_t len;
} buffer;

static void
put(const char *text, size_t n, void *context)
{
    buffer *out = context;
    size_t room = PMT_NAME_MAX - out->len;
    n = n < room ? n : room;
    memcpy(out->text + out->len, text, n);
    out->len += n;
}

bool
pmt__is_mangled(const char *name)
{
    return name[0] == '_' && (name[1] == 'Z' || name[1] == 'R');
}

void
pmt__demangle(char out[PMT_NAME_MAX + 1], const char *name)
{
    buffer to = {out, 0};
    /* Rust first: what it mangled until 2021 is a name of C++ too, with a hash at its end. */
    bool done = pmt__is_mangled(name) && rust_demangle_callback(name, DMGL_NO_OPTS, put, &to) != 0;
    if (!done && pmt__is_mangled(name)) {
        to.len = 0;
        done = cplus_demangle_v3_callback(name, DMGL_PARAMS | DMGL_ANSI, put, &to) != 0;
    }
    if (!done) {
        to.len = 0;
        put(name, strlen(name), &to);
    }
    out[to.len] = '\0';
}
