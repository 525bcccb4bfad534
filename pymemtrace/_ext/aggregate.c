/* Aggregate: a view of a capture. */
#include "aggregate.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "analyze/combine.h"
#include "analyze/lines.h"
#include "analyze/tree.h"
#include "render/render.h"
#include "state.h"
#include "values.h"

typedef struct {
    PyObject_HEAD
    PyObject *reader_object; /* owned: Reader or Combined, whose captures the aggregate refers to */
    const pmt_reader *reader; /* borrowed from the aggregate: its names */
    pmt_aggregate *aggregate; /* owned */
    PyObject *view;           /* owned: str */
    PyObject *notes;          /* owned: list of str, what the filters took away */
} aggregate_object;

static const char *const view_names[] = {"", "peak", "leaks", "total", "temporary"};

/* --- the query ------------------------------------------------------------------------------- */

static int
get_view(const char *name, pmt_view *view)
{
    for (int i = PMT_VIEW_PEAK; i <= PMT_VIEW_TEMPORARY; i++) {
        if (strcmp(name, view_names[i]) == 0) {
            *view = (pmt_view)i;
            return 0;
        }
    }
    PyErr_Format(PyExc_ValueError, "view must be peak, leaks, total or temporary, not '%.50s'",
                 name);
    return -1;
}

int
ext_get_time(PyObject *value, const char *name, int *has, uint64_t *ns)
{
    if (value == NULL || value == Py_None) {
        return 0;
    }
    double seconds = PyFloat_AsDouble(value);
    if (seconds == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    if (isnan(seconds)) {
        PyErr_Format(PyExc_ValueError, "%s must be a number of seconds", name);
        return -1;
    }
    *has = 1;
    *ns = seconds <= 0.0 ? 0 : seconds >= 1e10 ? (uint64_t)1e19 : (uint64_t)(seconds * 1e9 + 0.5);
    return 0;
}

/* A text as bytes in the form that captures have it, without NUL. */
static PyObject *
encode(PyObject *text, const char *name)
{
    if (!PyUnicode_Check(text)) {
        PyErr_Format(PyExc_TypeError, "%s must be str, not %.100s", name, Py_TYPE(text)->tp_name);
        return NULL;
    }
    PyObject *bytes = PyUnicode_AsEncodedString(text, "utf-8", "surrogatepass");
    if (bytes != NULL && strlen(PyBytes_AS_STRING(bytes)) != (size_t)PyBytes_GET_SIZE(bytes)) {
        PyErr_Format(PyExc_ValueError, "%s must not contain a null character", name);
        Py_CLEAR(bytes);
    }
    return bytes;
}

static int
patterns_init(ext_patterns *self, PyObject *sequence, const char *name)
{
    self->bytes = PyList_New(0);
    if (self->bytes == NULL || sequence == NULL || sequence == Py_None) {
        return self->bytes == NULL ? -1 : 0;
    }
    if (PyUnicode_Check(sequence)) {
        PyErr_Format(PyExc_TypeError, "%s must be a sequence of patterns, not one", name);
        return -1;
    }
    PyObject *items = PySequence_Tuple(sequence);
    if (items == NULL) {
        return -1;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(items);
    self->texts = PyMem_Calloc((size_t)count + 1, sizeof *self->texts);
    if (self->texts == NULL) {
        PyErr_NoMemory();
    }
    for (Py_ssize_t i = 0; self->texts != NULL && i < count; i++) {
        PyObject *bytes = encode(PyTuple_GET_ITEM(items, i), name);
        if (values_append(self->bytes, bytes) < 0) {
            break;
        }
        self->texts[i] = PyBytes_AS_STRING(bytes);
        self->count++;
    }
    Py_DECREF(items);
    return self->count == (size_t)count ? 0 : -1;
}

static void
patterns_dispose(ext_patterns *self)
{
    Py_CLEAR(self->bytes);
    PyMem_Free(self->texts);
    self->texts = NULL;
}

/* One sentence per filter, for the reports. */
static int
add_note(PyObject *notes, const char *format, PyObject *value)
{
    if (value == NULL || value == Py_None) {
        return 0;
    }
    if (!PyUnicode_Check(value)) {
        PyObject *empty = PyUnicode_FromString(", ");
        PyObject *joined = empty == NULL ? NULL : PyUnicode_Join(empty, value);
        Py_XDECREF(empty);
        if (joined == NULL) {
            return -1;
        }
        int result = PyUnicode_GET_LENGTH(joined) == 0
                         ? 0
                         : values_append(notes, PyUnicode_FromFormat(format, joined));
        Py_DECREF(joined);
        return result;
    }
    return values_append(notes, PyUnicode_FromFormat(format, value));
}

/* What an aggregate is made of. */
typedef struct {
    const pmt_reader *const *readers; /* borrowed */
    size_t count;
    int combines;
    unsigned flags; /* PMT_COMBINE_* */
} sources;

/* What the page says of its time window, if it has one. */
static int
add_window_note(PyObject *notes, const pmt_aggregate *aggregate)
{
    uint64_t start_ns, end_ns;
    if (!pmt_aggregate_window(aggregate, &start_ns, &end_ns)) {
        return 0;
    }
    const char *whose = pmt_aggregate_capture_count(aggregate) > 1 ? " of each process" : "";
    char text[128];
    snprintf(text, sizeof text, "Only the time from %.3f s to %.3f s, in whole flushes%s.",
             (double)start_ns / 1e9, (double)end_ns / 1e9, whose);
    return values_append(notes, PyUnicode_FromString(text));
}

static aggregate_object *
make(PyTypeObject *type, PyObject *reader_object, const sources *from, const pmt_query *query)
{
    aggregate_object *self = (aggregate_object *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->reader_object = Py_NewRef(reader_object);
    self->view = PyUnicode_FromString(view_names[query->view]);
    self->notes = PyList_New(0);
    if (self->view == NULL || self->notes == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    pmt_error err = PMT_ERROR_INIT;
    int result;
    Py_BEGIN_ALLOW_THREADS
    result = from->combines ? pmt_aggregate_combine(&self->aggregate, from->readers, from->count,
                                                    query, from->flags, &err)
                            : pmt_aggregate_create(&self->aggregate, from->readers[0], query, &err);
    Py_END_ALLOW_THREADS
    if (result < 0) {
        ext_raise(type, &err);
        Py_DECREF(self);
        return NULL;
    }
    self->reader = pmt_aggregate_names(self->aggregate);
    return self;
}

int
ext_query_parse(ext_query *self, PyObject *args, PyObject *kwargs, int has_view, char *flag)
{
    static char view_key[] = "view";
    static char start_key[] = "start_s";
    static char end_key[] = "end_s";
    static char thread_key[] = "thread";
    static char include_key[] = "include";
    static char exclude_key[] = "exclude";
    char *keywords[] = {view_key,    start_key,   end_key, thread_key,
                        include_key, exclude_key, flag,    NULL};
    const char *view = "peak";
    PyObject *start = NULL;
    PyObject *end = NULL;
    *self = (ext_query){.query = {.view = PMT_VIEW_PEAK}, .flag = self->flag};
    int parsed;
    if (has_view) {
        const char *format = flag == NULL ? "|s$OOOOO:aggregate" : "|s$OOOOOp:aggregate";
        parsed =
            PyArg_ParseTupleAndKeywords(args, kwargs, format, keywords, &view, &start, &end,
                                        &self->thread, &self->include, &self->exclude, &self->flag);
    } else {
        const char *format = flag == NULL ? "|$OOOOO:stats" : "|$OOOOOp:stats";
        parsed =
            PyArg_ParseTupleAndKeywords(args, kwargs, format, keywords + 1, &start, &end,
                                        &self->thread, &self->include, &self->exclude, &self->flag);
    }
    pmt_query *query = &self->query;
    if (!parsed || get_view(view, &query->view) < 0
        || ext_get_time(start, "start_s", &query->has_start, &query->start_ns) < 0
        || ext_get_time(end, "end_s", &query->has_end, &query->end_ns) < 0
        || patterns_init(&self->includes, self->include, "include") < 0
        || patterns_init(&self->excludes, self->exclude, "exclude") < 0) {
        return -1;
    }
    if (self->thread != NULL && self->thread != Py_None) {
        self->thread_bytes = encode(self->thread, "thread");
        if (self->thread_bytes == NULL) {
            return -1;
        }
        query->thread = PyBytes_AS_STRING(self->thread_bytes);
    }
    query->include = self->includes.texts;
    query->include_count = self->includes.count;
    query->exclude = self->excludes.texts;
    query->exclude_count = self->excludes.count;
    return 0;
}

void
ext_query_dispose(ext_query *self)
{
    patterns_dispose(&self->includes);
    patterns_dispose(&self->excludes);
    Py_CLEAR(self->thread_bytes);
}

/* Sentences about what the query takes away and what the figures mean. */
static int
add_notes(aggregate_object *self, const ext_query *query, const sources *from)
{
    if (add_window_note(self->notes, self->aggregate) < 0
        || add_note(self->notes, "Only thread %U.", query->thread) < 0
        || add_note(self->notes, "Only stacks with a frame that matches %U.", query->include) < 0
        || add_note(self->notes, "Without stacks whose innermost frame matches %U.", query->exclude)
               < 0) {
        return -1;
    }
    if (!from->combines || from->count < 2) {
        return 0;
    }
    return values_append(
        self->notes,
        PyUnicode_FromFormat("%zu processes. The peak is the sum of each process' own peak: they "
                             "are not simultaneous; the time line shows the sum of the heaps.",
                             from->count));
}

static PyObject *
finish(aggregate_object *self, ext_query *query, const sources *from)
{
    if (self != NULL && add_notes(self, query, from) < 0) {
        Py_CLEAR(self);
    }
    ext_query_dispose(query);
    return (PyObject *)self;
}

PyObject *
ext_aggregate_new(PyTypeObject *type, PyObject *reader_object, const pmt_reader *reader,
                  PyObject *args, PyObject *kwargs)
{
    static char inherited_key[] = "with_inherited";
    ext_query query = {.flag = 1};
    const sources from = {.readers = &reader, .count = 1};
    aggregate_object *self = NULL;
    if (ext_query_parse(&query, args, kwargs, 1, inherited_key) == 0) {
        query.query.exclude_epoch = query.flag ? 0 : pmt_reader_inherited_epoch(reader);
        self = make(type, reader_object, &from, &query.query);
    }
    return finish(self, &query, &from);
}

PyObject *
ext_aggregate_combine(PyTypeObject *type, PyObject *combined_object,
                      const pmt_reader *const *readers, size_t count, int with_inherited,
                      PyObject *args, PyObject *kwargs)
{
    static char process_key[] = "by_process";
    ext_query query = {.flag = 0};
    sources from = {.readers = readers, .count = count, .combines = 1};
    aggregate_object *self = NULL;
    if (ext_query_parse(&query, args, kwargs, 1, process_key) == 0) {
        from.flags = (with_inherited ? PMT_COMBINE_WITH_INHERITED : 0u)
                     | (query.flag ? PMT_COMBINE_BY_PROCESS : 0u);
        self = make(type, combined_object, &from, &query.query);
    }
    return finish(self, &query, &from);
}

static void
aggregate_dealloc(PyObject *object)
{
    aggregate_object *self = (aggregate_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    pmt_aggregate_destroy(self->aggregate);
    Py_XDECREF(self->view);
    Py_XDECREF(self->notes);
    Py_XDECREF(self->reader_object);
    type->tp_free(object);
    Py_DECREF(type);
}

/* --- rows ------------------------------------------------------------------------------------ */

/* Numbers of one row, one for each capture. */
static PyObject *
make_numbers(const uint64_t *numbers, size_t count)
{
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list != NULL && i < count; i++) {
        PyObject *number = PyLong_FromUnsignedLongLong(numbers[i]);
        if (number == NULL) {
            Py_CLEAR(list);
        } else {
            PyList_SET_ITEM(list, (Py_ssize_t)i, number);
        }
    }
    return list;
}

/* numbers: capture_count for each row, those of this one at `at`; or NULL. */
static int
put_by_capture(PyObject *dict, const uint64_t *numbers, size_t capture_count, size_t at)
{
    return numbers == NULL ? 0
                           : values_put(dict, "by_capture",
                                        make_numbers(&numbers[at * capture_count], capture_count));
}

static PyObject *
make_row(values_sites *sites, const pmt_row *row, uint64_t total_bytes)
{
    PyObject *dict = PyDict_New();
    if (dict == NULL) {
        return NULL;
    }
    const pmt_value *value = &row->value;
    const pmt_spreads *spreads = row->spreads;
    double share = total_bytes == 0 ? 0.0 : (double)value->bytes / (double)total_bytes;
    if (values_put(dict, "site", values_site(sites, row->frame)) < 0
        || values_put(dict, "stack", values_stack(sites, row->stack)) < 0
        || values_put_pair(dict, "bytes", value->bytes, "blocks", value->blocks,
                           spreads == NULL ? NULL : &spreads->view)
               < 0
        || values_put(dict, "share", PyFloat_FromDouble(share)) < 0
        || values_put_pair(dict, "allocated_bytes", value->allocated_bytes, "allocations",
                           value->allocations, spreads == NULL ? NULL : &spreads->allocated)
               < 0
        || (spreads != NULL && values_put_u64(dict, "samples", spreads->view.samples) < 0)) {
        Py_DECREF(dict);
        return NULL;
    }
    return dict;
}

typedef enum {
    ROWS_STACKS, /* of pmt_aggregate_stacks */
    ROWS_SITES,  /* of pmt_aggregate_sites */
    ROWS_NATIVE  /* likewise, native */
} rows_kind;

/* The numbers by capture of these rows: for the caller to free. NULL without an exception: it is of one capture. */
static uint64_t *
rows_by_capture(aggregate_object *self, const pmt_row *rows, size_t count, rows_kind kind)
{
    if (self->aggregate->combination == NULL) {
        return NULL;
    }
    size_t captures = pmt_aggregate_capture_count(self->aggregate);
    uint64_t *numbers = PyMem_Calloc(count * captures + 1, sizeof *numbers);
    if (numbers == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    if (kind == ROWS_STACKS) {
        pmt_aggregate_stacks_by_capture(self->aggregate, rows, count, numbers);
        return numbers;
    }
    pmt_error err = PMT_ERROR_INIT;
    if (pmt_aggregate_sites_by_capture(self->aggregate, kind == ROWS_NATIVE, rows, count, numbers,
                                       &err)
        < 0) {
        ext_raise(Py_TYPE(self), &err);
        PyMem_Free(numbers);
        return NULL;
    }
    return numbers;
}

static PyObject *
make_rows(aggregate_object *self, const pmt_row *rows, size_t count, Py_ssize_t limit,
          rows_kind kind)
{
    if (limit >= 0 && (size_t)limit < count) {
        count = (size_t)limit;
    }
    size_t captures = pmt_aggregate_capture_count(self->aggregate);
    uint64_t *by_capture = rows_by_capture(self, rows, count, kind);
    values_sites sites;
    if (PyErr_Occurred() || values_sites_init(&sites, self->reader) < 0) {
        PyMem_Free(by_capture);
        return NULL;
    }
    pmt_value total;
    pmt_aggregate_total(self->aggregate, &total);
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < count; i++) {
        PyObject *dict = make_row(&sites, &rows[i], total.bytes);
        if (dict != NULL && put_by_capture(dict, by_capture, captures, i) < 0) {
            Py_CLEAR(dict);
        }
        if (values_append(list, dict) < 0) {
            Py_CLEAR(list);
        }
    }
    values_sites_dispose(&sites);
    PyMem_Free(by_capture);
    return list;
}

/* -1: no limit. */
static int
get_limit(PyObject *args, PyObject *kwargs, const char *format, Py_ssize_t *limit, int *native)
{
    static char limit_key[] = "limit";
    static char native_key[] = "native";
    char *keywords[] = {limit_key, native == NULL ? NULL : native_key, NULL};
    PyObject *value = Py_None;
    *limit = -1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, format, keywords, &value, native)) {
        return -1;
    }
    if (value != Py_None) {
        *limit = PyNumber_AsSsize_t(value, PyExc_OverflowError);
        if (*limit == -1 && PyErr_Occurred()) {
            return -1;
        }
        if (*limit < 0) {
            PyErr_SetString(PyExc_ValueError, "limit must not be negative");
            return -1;
        }
    }
    return 0;
}

static PyObject *
aggregate_sites(PyObject *object, PyObject *args, PyObject *kwargs)
{
    aggregate_object *self = (aggregate_object *)object;
    Py_ssize_t limit;
    int native = 0;
    if (get_limit(args, kwargs, "|O$p:sites", &limit, &native) < 0) {
        return NULL;
    }
    pmt_error err = PMT_ERROR_INIT;
    pmt_row *rows;
    size_t count;
    if (pmt_aggregate_sites(self->aggregate, native, &rows, &count, &err) < 0) {
        return ext_raise(Py_TYPE(object), &err);
    }
    PyObject *list = make_rows(self, rows, count, limit, native ? ROWS_NATIVE : ROWS_SITES);
    pmt_rows_release(self->aggregate, rows);
    return list;
}

static PyObject *
aggregate_stacks(PyObject *object, PyObject *args, PyObject *kwargs)
{
    aggregate_object *self = (aggregate_object *)object;
    Py_ssize_t limit;
    if (get_limit(args, kwargs, "|O:stacks", &limit, NULL) < 0) {
        return NULL;
    }
    const pmt_row *rows;
    size_t count = pmt_aggregate_stacks(self->aggregate, &rows);
    return make_rows(self, rows, count, limit, ROWS_STACKS);
}

/* --- lines ----------------------------------------------------------------------------------- */

static PyObject *
make_value(const pmt_value *value, uint64_t total_bytes)
{
    PyObject *dict = PyDict_New();
    double share = total_bytes == 0 ? 0.0 : (double)value->bytes / (double)total_bytes;
    if (dict != NULL
        && (values_put_u64(dict, "bytes", value->bytes) < 0
            || values_put_u64(dict, "blocks", value->blocks) < 0
            || values_put(dict, "share", PyFloat_FromDouble(share)) < 0
            || values_put_u64(dict, "allocated_bytes", value->allocated_bytes) < 0
            || values_put_u64(dict, "allocations", value->allocations) < 0
            || values_put_u64(dict, "temporary_bytes", value->temporary_bytes) < 0
            || values_put_u64(dict, "temporaries", value->temporaries) < 0)) {
        Py_CLEAR(dict);
    }
    return dict;
}

static PyObject *
make_lines(const aggregate_object *self, const pmt__line *lines, size_t count)
{
    values_sites sites;
    if (values_sites_init(&sites, self->reader) < 0) {
        return NULL;
    }
    pmt_value total;
    pmt_aggregate_total(self->aggregate, &total);
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < count; i++) {
        PyObject *dict = PyDict_New();
        if (dict != NULL
            && (values_put(dict, "site", values_site(&sites, lines[i].frame)) < 0
                || values_put(dict, "own", make_value(&lines[i].own, total.bytes)) < 0
                || values_put(dict, "total", make_value(&lines[i].total, total.bytes)) < 0)) {
            Py_CLEAR(dict);
        }
        if (values_append(list, dict) < 0) {
            Py_CLEAR(list);
        }
    }
    values_sites_dispose(&sites);
    return list;
}

static const struct {
    const char *name;
    size_t number;
} line_orders[] = {
    {"bytes", offsetof(pmt_value, bytes)},
    {"blocks", offsetof(pmt_value, blocks)},
    {"allocated_bytes", offsetof(pmt_value, allocated_bytes)},
    {"allocations", offsetof(pmt_value, allocations)},
    {"temporary_bytes", offsetof(pmt_value, temporary_bytes)},
    {"temporaries", offsetof(pmt_value, temporaries)},
};

static PyObject *
aggregate_lines(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static char limit_key[] = "limit";
    static char by_key[] = "by";
    static char total_key[] = "total";
    static char *keywords[] = {limit_key, by_key, total_key, NULL};
    aggregate_object *self = (aggregate_object *)object;
    Py_ssize_t limit;
    const char *by = "bytes";
    int by_total = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "n|$sp:lines", keywords, &limit, &by,
                                     &by_total)) {
        return NULL;
    }
    size_t number = SIZE_MAX;
    for (size_t i = 0; i < sizeof line_orders / sizeof *line_orders; i++) {
        number = strcmp(by, line_orders[i].name) == 0 ? line_orders[i].number : number;
    }
    if (limit < 0 || number == SIZE_MAX) {
        return PyErr_Format(PyExc_ValueError,
                            limit < 0 ? "limit must not be negative" : "no order '%.50s'", by);
    }
    pmt_error err = PMT_ERROR_INIT;
    pmt__line *lines;
    size_t count;
    int result;
    Py_BEGIN_ALLOW_THREADS
    result = pmt__lines_make(&lines, &count, self->aggregate, number, by_total != 0, &err);
    Py_END_ALLOW_THREADS
    if (result < 0) {
        return ext_raise(Py_TYPE(object), &err);
    }
    PyObject *list = make_lines(self, lines, (size_t)limit < count ? (size_t)limit : count);
    pmt__release(self->reader->allocator, lines);
    return list;
}

/* --- tree ------------------------------------------------------------------------------------ */

static PyObject *
make_node(values_sites *sites, const pmt__tree *tree, size_t at)
{
    const pmt__tree_node *node = &tree->nodes.data[at];
    const pmt_spread *spread = tree->is_estimate ? &tree->spreads.data[node->spread] : NULL;
    uint64_t total_bytes = tree->nodes.data[0].bytes;
    PyObject *dict = PyDict_New();
    if (dict == NULL) {
        return NULL;
    }
    double share = total_bytes == 0 ? 0.0 : (double)node->bytes / (double)total_bytes;
    if (values_put(dict, "site", values_site(sites, node->frame)) < 0
        || values_put_pair(dict, "bytes", node->bytes, "blocks", node->blocks, spread) < 0
        || (spread != NULL && values_put_u64(dict, "samples", spread->samples) < 0)
        || values_put(dict, "share", PyFloat_FromDouble(share)) < 0
        || values_put(dict, "children", PyList_New(0)) < 0) {
        Py_DECREF(dict);
        return NULL;
    }
    return dict;
}

/* Parents come before their children, and siblings in order: so one pass builds it, whatever its
   depth. */
static PyObject *
make_tree(const pmt__tree *tree, const pmt_reader *reader, const uint64_t *by_capture,
          size_t captures)
{
    size_t count = tree->nodes.len;
    PyObject **lists = PyMem_Calloc(count, sizeof *lists); /* borrowed: each node's children */
    if (lists == NULL) {
        return PyErr_NoMemory();
    }
    values_sites sites;
    PyObject *root = NULL;
    if (values_sites_init(&sites, reader) < 0) {
        PyMem_Free(lists);
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        const pmt__tree_node *node = &tree->nodes.data[i];
        PyObject *dict = make_node(&sites, tree, i);
        if (dict != NULL && put_by_capture(dict, by_capture, captures, i) < 0) {
            Py_CLEAR(dict);
        }
        lists[i] = dict == NULL ? NULL : PyDict_GetItemString(dict, "children");
        if (i == 0) {
            root = dict;
        } else if (values_append(lists[node->parent], dict) < 0) {
            Py_CLEAR(root);
        }
        if (root == NULL) {
            break;
        }
    }
    values_sites_dispose(&sites);
    PyMem_Free(lists);
    return root;
}

/* The tree as dicts, its nodes with their numbers by capture if it is of several. */
static PyObject *
convert_tree(aggregate_object *self, const pmt__tree *tree, int inverted)
{
    if (self->aggregate->combination == NULL) {
        return make_tree(tree, self->reader, NULL, 0);
    }
    size_t captures = pmt_aggregate_capture_count(self->aggregate);
    uint64_t *numbers = PyMem_Calloc(tree->nodes.len * captures, sizeof *numbers);
    if (numbers == NULL) {
        return PyErr_NoMemory();
    }
    pmt_error err = PMT_ERROR_INIT;
    int result;
    Py_BEGIN_ALLOW_THREADS
    result = pmt__tree_by_capture(tree, self->aggregate, inverted != 0, numbers, &err);
    Py_END_ALLOW_THREADS
    PyObject *root = result < 0 ? ext_raise(Py_TYPE(self), &err)
                                : make_tree(tree, self->reader, numbers, captures);
    PyMem_Free(numbers);
    return root;
}

static PyObject *
aggregate_tree(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static char inverted_key[] = "inverted";
    static char depth_key[] = "max_depth";
    static char share_key[] = "min_share";
    static char *keywords[] = {inverted_key, depth_key, share_key, NULL};
    aggregate_object *self = (aggregate_object *)object;
    int inverted = 0;
    int max_depth = 0;
    double min_share = 0.0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$pid:tree", keywords, &inverted, &max_depth,
                                     &min_share)) {
        return NULL;
    }
    if (max_depth < 0 || !(min_share >= 0.0 && min_share <= 1.0)) {
        PyErr_SetString(PyExc_ValueError,
                        "max_depth must not be negative and min_share must be from 0 to 1");
        return NULL;
    }
    pmt__tree_limits limits = {inverted != 0, (uint32_t)max_depth, min_share};
    pmt_error err = PMT_ERROR_INIT;
    pmt__tree tree;
    int result;
    Py_BEGIN_ALLOW_THREADS
    result = pmt__tree_init(&tree, self->aggregate, &limits, &err);
    Py_END_ALLOW_THREADS
    PyObject *root =
        result < 0 ? ext_raise(Py_TYPE(object), &err) : convert_tree(self, &tree, inverted);
    pmt__tree_dispose(&tree);
    return root;
}

/* --- other formats --------------------------------------------------------------------------- */

typedef int (*renderer)(pmt__text_buffer *out, const pmt_aggregate *aggregate, bool inverted,
                        pmt_error *err);

static int
render_pprof(pmt__text_buffer *out, const pmt_aggregate *aggregate, bool inverted, pmt_error *err)
{
    (void)inverted; /* pprof turns stacks over itself */
    return pmt__render_pprof(out, aggregate, err);
}

static const struct {
    const char *name;
    renderer render;
} renderers[] = {
    {"pprof", render_pprof},
    {"speedscope", pmt__render_speedscope},
    {"collapsed", pmt__render_collapsed},
    {"csv", pmt__render_csv},
};

static PyObject *
aggregate_export(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static char kind_key[] = "kind";
    static char inverted_key[] = "inverted";
    static char paths_key[] = "full_paths";
    static char *keywords[] = {kind_key, inverted_key, paths_key, NULL};
    aggregate_object *self = (aggregate_object *)object;
    const char *kind;
    int inverted = 0;
    int full_paths = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s|$pp:export", keywords, &kind, &inverted,
                                     &full_paths)) {
        return NULL;
    }
    renderer render = NULL;
    for (size_t i = 0; i < sizeof renderers / sizeof *renderers; i++) {
        if (strcmp(renderers[i].name, kind) == 0) {
            render = renderers[i].render;
        }
    }
    if (full_paths && render == pmt__render_collapsed) {
        render = pmt__render_collapsed_paths; /* the others have them anyway */
    }
    if (render == NULL) {
        return PyErr_Format(PyExc_ValueError,
                            "kind must be pprof, speedscope, collapsed or csv, not '%.50s'", kind);
    }
    pmt_error err = PMT_ERROR_INIT;
    pmt__text_buffer text;
    pmt__text_init(&text, pmt_allocator_default());
    int result;
    Py_BEGIN_ALLOW_THREADS
    result = render(&text, self->aggregate, inverted != 0, &err);
    Py_END_ALLOW_THREADS
    PyObject *bytes = result < 0 ? ext_raise(Py_TYPE(object), &err)
                                 : PyBytes_FromStringAndSize(text.data, (Py_ssize_t)text.len);
    pmt__text_dispose(&text);
    return bytes;
}

/* object.name(argument), or object.name() for NULL. The name is interned: CPython's method cache keeps
   up to 4096 names alive by their address, and a new string for each call would fill it. */
static PyObject *
call_method(PyObject *object, const char *name, PyObject *argument)
{
    PyObject *interned = PyUnicode_InternFromString(name);
    if (interned == NULL) {
        return NULL;
    }
    PyObject *result = PyObject_CallMethodObjArgs(object, interned, argument, NULL);
    Py_DECREF(interned);
    return result;
}

/* The part of the report's header that is text about the capture, as JSON in UTF-8. */
static PyObject *
make_head(aggregate_object *self, PyObject *title, int inverted)
{
    PyObject *head = PyDict_New();
    PyObject *info = call_method(self->reader_object, "info", NULL);
    PyObject *captures = NULL; /* owned: of several captures, info() is their list */
    PyObject *json = NULL;
    PyObject *text = NULL;
    pmt_capture first;
    if (info != NULL) {
        captures = PyList_Check(info) ? Py_NewRef(info) : Py_BuildValue("[O]", info);
    }
    if (head == NULL || captures == NULL) {
        goto done;
    }
    pmt_reader_capture(self->reader, &first);
    if (values_put(head, "title", Py_NewRef(title)) < 0
        || values_put(head, "captures", Py_NewRef(captures)) < 0
        || values_put(head, "view", Py_NewRef(self->view)) < 0
        || values_put(head, "inverted", PyBool_FromLong(inverted)) < 0
        || values_put(head, "t_start", values_instant(first.started_unix_ns)) < 0
        || values_put(head, "notes", Py_NewRef(self->notes)) < 0) {
        goto done;
    }
    json = PyImport_ImportModule("json");
    text = json == NULL ? NULL : call_method(json, "dumps", head);
done:
    Py_XDECREF(head);
    Py_XDECREF(info);
    Py_XDECREF(captures);
    Py_XDECREF(json);
    return text;
}

static PyObject *
aggregate_flame(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static char inverted_key[] = "inverted";
    static char title_key[] = "title";
    static char *keywords[] = {inverted_key, title_key, NULL};
    aggregate_object *self = (aggregate_object *)object;
    int inverted = 0;
    PyObject *title = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$pU:flame", keywords, &inverted, &title)) {
        return NULL;
    }
    PyObject *empty = PyUnicode_FromString("");
    PyObject *head =
        empty == NULL ? NULL : make_head(self, title == NULL ? empty : title, inverted);
    Py_XDECREF(empty);
    if (head == NULL) {
        return NULL;
    }
    pmt_error err = PMT_ERROR_INIT;
    pmt__text_buffer text;
    pmt__text_init(&text, pmt_allocator_default());
    Py_ssize_t size;
    const char *json = PyUnicode_AsUTF8AndSize(head, &size); /* ASCII: json.dumps escapes */
    PyObject *bytes = NULL;
    if (json != NULL) {
        int result;
        Py_BEGIN_ALLOW_THREADS
        result = pmt__render_flame(&text, self->aggregate, (pmt_string){json, (size_t)size}, &err);
        Py_END_ALLOW_THREADS
        bytes = result < 0 ? ext_raise(Py_TYPE(object), &err)
                           : PyBytes_FromStringAndSize(text.data, (Py_ssize_t)text.len);
    }
    Py_DECREF(head);
    pmt__text_dispose(&text);
    return bytes;
}

/* --- type ------------------------------------------------------------------------------------ */

static PyObject *
aggregate_view(PyObject *object, void *closure)
{
    (void)closure;
    return Py_NewRef(((aggregate_object *)object)->view);
}

/* closure: which number of pmt_value. */
static PyObject *
aggregate_number(PyObject *object, void *closure)
{
    pmt_value total;
    pmt_aggregate_total(((aggregate_object *)object)->aggregate, &total);
    uint64_t value;
    memcpy(&value, (const char *)&total + (uintptr_t)closure, sizeof value);
    return PyLong_FromUnsignedLongLong(value);
}

/* The totals, and how sure they are. */
static PyObject *
aggregate_totals(PyObject *object, void *closure)
{
    (void)closure;
    const pmt_aggregate *aggregate = ((aggregate_object *)object)->aggregate;
    int is_estimate = pmt_aggregate_is_estimate(aggregate);
    pmt_value total;
    pmt_spreads spreads;
    pmt_aggregate_total(aggregate, &total);
    pmt_aggregate_total_spreads(aggregate, &spreads);
    PyObject *dict = PyDict_New();
    if (dict != NULL
        && (values_put_pair(dict, "bytes", total.bytes, "blocks", total.blocks,
                            is_estimate ? &spreads.view : NULL)
                < 0
            || values_put_pair(dict, "allocated_bytes", total.allocated_bytes, "allocations",
                               total.allocations, is_estimate ? &spreads.allocated : NULL)
                   < 0
            || (is_estimate && values_put_u64(dict, "samples", spreads.view.samples) < 0))) {
        Py_CLEAR(dict);
    }
    return dict;
}

static PyObject *
aggregate_by_capture(PyObject *object, void *closure)
{
    (void)closure;
    const pmt_aggregate *aggregate = ((aggregate_object *)object)->aggregate;
    size_t captures = pmt_aggregate_capture_count(aggregate);
    uint64_t *numbers = PyMem_Calloc(captures, sizeof *numbers);
    if (numbers == NULL) {
        return PyErr_NoMemory();
    }
    pmt_aggregate_bytes_by_capture(aggregate, numbers);
    PyObject *list = make_numbers(numbers, captures);
    PyMem_Free(numbers);
    return list;
}

static PyObject *
aggregate_window(PyObject *object, void *closure)
{
    (void)closure;
    uint64_t start_ns, end_ns;
    pmt_aggregate_window(((aggregate_object *)object)->aggregate, &start_ns, &end_ns);
    return values_window(start_ns, end_ns);
}

static PyGetSetDef aggregate_getset[] = {
    {"by_capture", aggregate_by_capture, NULL, "bytes of the view by capture, in their order",
     NULL},
    {"view", aggregate_view, NULL, "peak, leaks, total or temporary", NULL},
    {"window", aggregate_window, NULL, "start_s and end_s of the time that was used", NULL},
    {"bytes", aggregate_number, NULL, "bytes of the view", (void *)offsetof(pmt_value, bytes)},
    {"blocks", aggregate_number, NULL, "blocks of the view", (void *)offsetof(pmt_value, blocks)},
    {"allocated_bytes", aggregate_number, NULL, "bytes allocated in the time window",
     (void *)offsetof(pmt_value, allocated_bytes)},
    {"allocations", aggregate_number, NULL, "allocations in the time window",
     (void *)offsetof(pmt_value, allocations)},
    {"totals", aggregate_totals, NULL,
     "bytes, blocks, allocated_bytes, allocations; of samples also their limits, and samples",
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

#define METHOD(name) ((PyCFunction)(void (*)(void))(name))

static PyMethodDef aggregate_methods[] = {
    {"sites", METHOD(aggregate_sites), METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("sites($self, limit=None, *, native=False)\n--\n\nRows merged by the line that is "
               "blamed (native: by innermost frame), the heaviest "
               "first.")},
    {"stacks", METHOD(aggregate_stacks), METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("stacks($self, limit=None)\n--\n\nOne row per distinct stack, the heaviest first.")},
    {"lines", METHOD(aggregate_lines), METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("lines($self, limit, *, by='bytes', total=False)\n--\n\nThe first lines by a number "
               "of theirs: own, what a line allocated itself, and total, what was allocated below "
               "it.")},
    {"tree", METHOD(aggregate_tree), METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("tree($self, *, inverted=False, max_depth=0, min_share=0.0)\n--\n\nThe stacks as "
               "nested dicts; max_depth 0 means no limit.")},
    {"flame", METHOD(aggregate_flame), METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("flame($self, *, inverted=False, title='')\n--\n\nThe container of "
               "docs/flame-data.md, before compression.")},
    {"export", METHOD(aggregate_export), METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("export($self, kind, *, inverted=False, full_paths=False)\n--\n\nThe stacks as "
               "pprof (before compression), speedscope, collapsed or csv.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot aggregate_slots[] = {
    {Py_tp_doc, (void *)(uintptr_t)"A view of a capture: values per stack, summed over what the "
                                   "filters let through."},
    {Py_tp_dealloc, (void *)(uintptr_t)aggregate_dealloc},
    {Py_tp_methods, aggregate_methods},
    {Py_tp_getset, aggregate_getset},
    {0, NULL},
};

PyType_Spec ext_aggregate_spec = {
    .name = "pymemtrace._core.Aggregate",
    .basicsize = (int)sizeof(aggregate_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = aggregate_slots,
};
