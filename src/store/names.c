#include "store/names.h"

#include <string.h>

static bool
starts_with(pmt_string text, const char *prefix)
{
    size_t n = strlen(prefix);
    return text.len >= n && memcmp(text.text, prefix, n) == 0;
}

/* The length of the directory with its slash if it contains the file, else 0. */
static size_t
prefix_length(pmt_string file, pmt_string directory)
{
    size_t n = directory.len;
    while (n > 0 && directory.text[n - 1] == '/') {
        n--;
    }
    if (directory.len == 0 || n >= file.len || file.text[n] != '/'
        || memcmp(file.text, directory.text, n) != 0) {
        return 0;
    }
    return n + 1;
}

pmt_string
pmt__last_part(pmt_string path)
{
    size_t start = path.len;
    while (start > 0 && path.text[start - 1] != '/') {
        start--;
    }
    return (pmt_string){path.text + start, path.len - start};
}

void
pmt__module_name(pmt__text_buffer *out, pmt_string file, const pmt_string *sys_path,
                 size_t sys_path_count, pmt_string cwd)
{
    static const char frozen[] = "<frozen ";
    if (starts_with(file, frozen) && file.text[file.len - 1] == '>') {
        pmt__text_put(out, file.text + sizeof frozen - 1, file.len - sizeof frozen);
        return;
    }
    if (file.len == 0 || file.text[0] == '<') {
        return;
    }
    size_t start = 0;
    for (size_t i = 0; i < sys_path_count; i++) {
        size_t n = prefix_length(file, sys_path[i].len == 0 ? cwd : sys_path[i]);
        start = n > start ? n : start;
    }
    if (start == 0 && file.text[0] == '/') {
        start = (size_t)(pmt__last_part(file).text - file.text);
    }
    while (start + 2 <= file.len && memcmp(file.text + start, "./", 2) == 0) {
        start += 2; /* of a relative path */
    }
    size_t end = file.len;
    for (size_t i = end; i > start && file.text[i - 1] != '/'; i--) {
        if (file.text[i - 1] == '.') {
            end = i - 1; /* in the end, the first dot of the last part: x.cpython-311.so */
        }
    }
    static const char init[] = "/__init__";
    size_t init_length = sizeof init - 1;
    if (end - start > init_length
        && memcmp(file.text + end - init_length, init, init_length) == 0) {
        end -= init_length;
    }
    for (size_t i = start; i < end; i++) {
        pmt__text_put_char(out, file.text[i] == '/' ? '.' : file.text[i]);
    }
}

static bool
is_module(pmt_string module, const char *name)
{
    size_t n = strlen(name);
    return starts_with(module, name) && (module.len == n || module.text[n] == '.');
}

unsigned
pmt__frame_flags(pmt_string file, pmt_string module)
{
    if (is_module(module, "importlib") || is_module(module, "zipimport")
        || starts_with(file, "<frozen importlib")) {
        return PMT_FRAME_IS_IMPORT;
    }
    if (starts_with(file, "<frozen ") || is_module(module, "runpy")
        || is_module(module, "pymemtrace")) {
        return PMT_FRAME_IS_INTERPRETER;
    }
    return 0;
}

bool
pmt__is_launcher(pmt_string file)
{
    static const char end[] = "/pymemtrace/_launch.py";
    size_t n = sizeof end - 1;
    return file.len >= n && memcmp(file.text + file.len - n, end, n) == 0;
}

static bool
equals(pmt_string a, pmt_string b)
{
    return a.len == b.len && memcmp(a.text, b.text, a.len) == 0;
}

bool
pmt__is_interpreter(pmt_string object, pmt_string executable)
{
    static const char library[] = "libpython";
    static const char program[] = "python";
    pmt_string name = pmt__last_part(object);
    if (starts_with(name, library) || (object.len != 0 && equals(object, executable))) {
        return true;
    }
    /* python, python3, python3.13t: what links to it may be called otherwise */
    if (!starts_with(name, program)) {
        return false;
    }
    for (size_t i = sizeof program - 1; i < name.len; i++) {
        char c = name.text[i];
        bool version = (c >= '0' && c <= '9') || c == '.' || c == 't' || c == 'd';
        if (!version) {
            return false;
        }
    }
    return true;
}
