#include "values.h"

#include <stdbool.h>
#include <stdio.h>
#include <time.h>

int
values_put(PyObject *dict, const char *key, PyObject *value)
{
    if (value == NULL) {
        return -1;
    }
    int result = PyDict_SetItemString(dict, key, value);
    Py_DECREF(value);
    return result;
}

int
values_put_u64(PyObject *dict, const char *key, uint64_t value)
{
    return values_put(dict, key, PyLong_FromUnsignedLongLong(value));
}

int
values_put_seconds(PyObject *dict, const char *key, uint64_t ns)
{
    return values_put(dict, key, PyFloat_FromDouble((double)ns / 1e9));
}

static int
put_limit(PyObject *dict, const char *key, const char *ending, uint64_t value)
{
    char name[64];
    snprintf(name, sizeof name, "%s_%s", key, ending);
    return values_put_u64(dict, name, value);
}

int
values_put_estimate(PyObject *dict, const values_estimate *estimate, int is_estimate)
{
    if (values_put_u64(dict, estimate->key, estimate->value) < 0) {
        return -1;
    }
    if (!is_estimate) {
        return 0;
    }
    uint64_t low, high;
    pmt_interval(estimate->value, estimate->sure, estimate->variance, &low, &high);
    return put_limit(dict, estimate->key, "low", low) < 0
               ? -1
               : put_limit(dict, estimate->key, "high", high);
}

int
values_put_pair(PyObject *dict, const char *bytes_key, uint64_t bytes, const char *blocks_key,
                uint64_t blocks, const pmt_spread *spread)
{
    values_estimate of_bytes = {bytes_key, bytes, bytes, 0};
    values_estimate of_blocks = {blocks_key, blocks, blocks, 0};
    if (spread != NULL) {
        of_bytes.sure = spread->sure_bytes;
        of_bytes.variance = spread->bytes2;
        of_blocks.sure = spread->sure_blocks;
        of_blocks.variance = spread->blocks2;
    }
    return values_put_estimate(dict, &of_bytes, spread != NULL) < 0
               ? -1
               : values_put_estimate(dict, &of_blocks, spread != NULL);
}

int
values_put_known(PyObject *dict, const char *key, uint64_t value, int is_known)
{
    return is_known ? values_put_u64(dict, key, value) : values_put(dict, key, Py_NewRef(Py_None));
}

PyObject *
values_window(uint64_t start_ns, uint64_t end_ns)
{
    return Py_BuildValue("{s:d,s:d}", "start_s", (double)start_ns / 1e9, "end_s",
                         (double)end_ns / 1e9);
}

int
values_append(PyObject *list, PyObject *value)
{
    if (value == NULL) {
        return -1;
    }
    int result = PyList_Append(list, value);
    Py_DECREF(value);
    return result;
}

PyObject *
values_text(pmt_string text)
{
    PyObject *result = PyUnicode_DecodeUTF8(text.text, (Py_ssize_t)text.len, "surrogatepass");
    if (result == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        PyErr_Clear();
        result = PyUnicode_DecodeUTF8(text.text, (Py_ssize_t)text.len, "replace");
    }
    return result;
}

PyObject *
values_instant(uint64_t unix_ns)
{
    time_t seconds = (time_t)(unix_ns / 1000000000u);
    struct tm parts;
    if (gmtime_r(&seconds, &parts) == NULL) {
        return PyUnicode_FromString("");
    }
    return PyUnicode_FromFormat("%04d-%02d-%02dT%02d:%02d:%02d.%06u+00:00", parts.tm_year + 1900,
                                parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min,
                                parts.tm_sec, (unsigned)(unix_ns % 1000000000u / 1000u));
}

PyObject *
values_fact(const pmt_fact *fact)
{
    switch (fact->type) {
    case 1:
        return PyLong_FromUnsignedLongLong(fact->number);
    case 2:
        return values_text(fact->text);
    case 3: {
        PyObject *list = PyList_New(0);
        for (size_t i = 0; list != NULL && i < fact->item_count; i++) {
            if (values_append(list, values_text(fact->items[i])) < 0) {
                Py_CLEAR(list);
            }
        }
        return list;
    }
    default:
        return PyLong_FromLongLong(fact->signed_number);
    }
}

/* --- sites ----------------------------------------------------------------------------------- */

int
values_sites_init(values_sites *self, const pmt_reader *reader)
{
    self->reader = reader;
    self->none = NULL;
    self->frames = PyMem_Calloc(pmt_reader_frame_count(reader) + 1, sizeof *self->frames);
    if (self->frames == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

void
values_sites_dispose(values_sites *self)
{
    if (self->frames != NULL) {
        size_t count = pmt_reader_frame_count(self->reader);
        for (size_t i = 0; i < count; i++) {
            Py_XDECREF(self->frames[i]);
        }
        PyMem_Free(self->frames);
        self->frames = NULL;
    }
    Py_CLEAR(self->none);
}

static PyObject *
make_site(const pmt_frame *frame)
{
    PyObject *site = PyDict_New();
    if (site == NULL) {
        return NULL;
    }
    if (values_put(site, "file", values_text(frame->file)) < 0
        || values_put(site, "line", PyLong_FromLongLong(frame->line)) < 0
        || values_put(site, "function", values_text(frame->function)) < 0
        || values_put(site, "module", values_text(frame->module)) < 0) {
        Py_DECREF(site);
        return NULL;
    }
    bool native = frame->kind == PMT_FRAME_NATIVE || frame->kind == PMT_FRAME_INLINED;
    if (native
        && (values_put(site, "kind",
                       PyUnicode_FromString(frame->kind == PMT_FRAME_NATIVE ? "native" : "inlined"))
                < 0
            || values_put(site, "symbol", values_text(frame->function)) < 0
            || values_put(site, "object", values_text(frame->object)) < 0)) {
        Py_DECREF(site);
        return NULL;
    }
    return site;
}

PyObject *
values_site(values_sites *self, uint32_t frame)
{
    PyObject **slot = &self->none;
    pmt_frame content = {{"[root]", 6}, {"", 0}, {"", 0}, 0, PMT_FRAME_SYNTHETIC, 0, {"", 0}};
    if (frame != UINT32_MAX) {
        slot = &self->frames[frame];
        content = pmt_reader_frame(self->reader, frame);
    }
    if (*slot == NULL) {
        *slot = make_site(&content);
    }
    return Py_XNewRef(*slot);
}

PyObject *
values_stack(values_sites *self, uint32_t stack)
{
    PyObject *list = PyList_New(0);
    for (; list != NULL && stack != 0; stack = pmt_reader_stack_parent(self->reader, stack)) {
        uint32_t frame = pmt_reader_stack_frame(self->reader, stack);
        if (values_append(list, values_site(self, frame)) < 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}
