/* Making Aggregate objects. */
#ifndef PMT_EXT_AGGREGATE_H
#define PMT_EXT_AGGREGATE_H

#include <Python.h>

#include "pymemtrace/reader.h"

/* Seconds from the start, or None or NULL, which change nothing. -1 with an exception set, which calls it `name`. */
int ext_get_time(PyObject *value, const char *name, int *has, uint64_t *ns);

typedef struct ext_patterns {
    PyObject *bytes;    /* owned: list of bytes */
    const char **texts; /* owned; elements borrowed from bytes */
    size_t count;
} ext_patterns;

/* A query as Python gives it. */
typedef struct ext_query {
    pmt_query query; /* refers to what follows */
    ext_patterns includes;
    ext_patterns excludes;
    PyObject *thread_bytes; /* owned, or NULL */
    PyObject *thread;       /* borrowed from the arguments, or NULL; so are the next two */
    PyObject *include;
    PyObject *exclude;
    int flag;
} ext_query;

/* Takes start_s, end_s, thread, include, exclude; with has_view also view, which else is peak; and a flag of this
   name, whose default is that of self->flag before the call, or NULL for none. -1 with an exception set. Dispose it in
   any case. */
int ext_query_parse(ext_query *self, PyObject *args, PyObject *kwargs, int has_view, char *flag);
void ext_query_dispose(ext_query *self);

extern PyType_Spec ext_aggregate_spec;

/* The body of Reader.aggregate: reader_object keeps `reader` alive. New reference or NULL. */
PyObject *ext_aggregate_new(PyTypeObject *type, PyObject *reader_object, const pmt_reader *reader,
                            PyObject *args, PyObject *kwargs);
/* The body of Combined.aggregate: combined_object keeps the readers alive. */
PyObject *ext_aggregate_combine(PyTypeObject *type, PyObject *combined_object,
                                const pmt_reader *const *readers, size_t count, int with_inherited,
                                PyObject *args, PyObject *kwargs);

#endif
