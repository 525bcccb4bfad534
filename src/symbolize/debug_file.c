/* The places are those of gdb: "Separate Debug Files" in its manual. */
#include "symbolize/debug_file.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FOLDERS_MAX 16

static bool
is_of(const pmt__object *self, const pmt__object *object)
{
    if (object->build_id_size != 0) {
        return self->build_id_size == object->build_id_size
               && memcmp(self->build_id, object->build_id, object->build_id_size) == 0;
    }
    return object->debug_link != NULL && pmt__object_crc(self) == object->debug_link_crc;
}

/* Takes over `path`, which may be NULL. */
static char *
try_path(pmt__object *out, const pmt__object *object, char *path)
{
    if (path != NULL && strcmp(path, object->path) != 0 && pmt__object_open(out, path) == NULL) {
        if (is_of(out, object)) {
            return path;
        }
        pmt__object_close(out);
    }
    free(path);
    return NULL;
}

static char *
join(const char *folder, const char *middle, const char *name)
{
    char *path;
    return asprintf(&path, "%s%s%s", folder, middle, name) < 0 ? NULL : path;
}

static char *
try_build_id(pmt__object *out, const pmt__object *object, const char *folder)
{
    if (object->build_id_size < 2) {
        return NULL;
    }
    char name[2 * PMT_BUILD_ID_MAX + 16];
    size_t at = 0;
    for (size_t i = 0; i < object->build_id_size; i++) {
        at += (size_t)snprintf(name + at, sizeof name - at, "%02x%s", object->build_id[i],
                               i == 0 ? "/" : "");
    }
    snprintf(name + at, sizeof name - at, ".debug");
    return try_path(out, object, join(folder, "/.build-id/", name));
}

char *
pmt__debug_file_open(pmt__object *out, const pmt__object *object, const char *folders,
                     const char *given)
{
    if (given != NULL) {
        return try_path(out, object, strdup(given));
    }
    char *copy = strdup(folders);
    char *list[FOLDERS_MAX];
    size_t count = 0;
    char *rest = copy;
    for (char *folder; copy != NULL && (folder = strsep(&rest, ":")) != NULL;) {
        if (folder[0] == '/' && count < FOLDERS_MAX) {
            list[count++] = folder;
        }
    }
    char *found = NULL;
    for (size_t i = 0; i < count && found == NULL; i++) {
        found = try_build_id(out, object, list[i]);
    }
    char real[PATH_MAX];
    if (found == NULL && object->debug_link != NULL && strchr(object->debug_link, '/') == NULL
        && realpath(object->path, real) != NULL) {
        *strrchr(real, '/') = '\0';
        found = try_path(out, object, join(real, "/", object->debug_link));
        if (found == NULL) {
            found = try_path(out, object, join(real, "/.debug/", object->debug_link));
        }
        for (size_t i = 0; i < count && found == NULL; i++) {
            char *folder = join(list[i], real, "/");
            found =
                folder == NULL ? NULL : try_path(out, object, join(folder, "", object->debug_link));
            free(folder);
        }
    }
    free(copy);
    return found;
}
