#include "where.h"

#include <errno.h>

#include "aggregate.h"
#include "analyze/where.h"
#include "platform/platform.h"
#include "values.h"

static PyObject *
make_parts(const pmt__where *where)
{
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < where->part_count; i++) {
        const pmt__part *part = &where->parts[i];
        PyObject *dict = PyDict_New();
        if (dict == NULL || values_put(dict, "name", PyUnicode_FromString(part->name)) < 0
            || values_put_u64(dict, "bytes", part->bytes) < 0
            || values_put(dict, "detail", PyUnicode_FromString(part->detail)) < 0) {
            Py_CLEAR(dict);
        }
        if (values_append(list, dict) < 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

static PyObject *
make_advice(const pmt__where *where)
{
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < where->advice_count; i++) {
        if (values_append(list, PyUnicode_FromString(where->advice[i])) < 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

static PyObject *
make_where(const pmt__where *where, uint64_t at_unix_ns)
{
    PyObject *dict = PyDict_New();
    if (dict == NULL || values_put(dict, "at", values_instant(at_unix_ns)) < 0
        || values_put_seconds(dict, "at_s", where->t_ns) < 0
        || values_put_seconds(dict, "took_s", where->took_ns) < 0
        || values_put_u64(dict, "rss_bytes", where->rss_bytes) < 0
        || values_put_u64(dict, "swap_bytes", where->swap_bytes) < 0
        || values_put_u64(dict, "requested_bytes", where->requested_bytes) < 0
        || values_put_u64(dict, "unattributed_bytes", where->unattributed_bytes) < 0
        || values_put(dict, "parts", make_parts(where)) < 0
        || values_put(dict, "dominating", PyUnicode_FromString(where->dominating)) < 0
        || values_put(dict, "advice", make_advice(where)) < 0
        || values_put(dict, "from_outside", PyBool_FromLong(where->from_outside)) < 0) {
        Py_CLEAR(dict);
    }
    return dict;
}

PyObject *
ext_where(const ext_state *state, const pmt_reader *reader, PyObject *args, PyObject *kwargs)
{
    static char at_key[] = "at_s";
    static char *keywords[] = {at_key, NULL};
    PyObject *at = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:where", keywords, &at)) {
        return NULL;
    }
    int has = 0;
    uint64_t ns = 0;
    if (ext_get_time(at, at_key, &has, &ns) < 0) {
        return NULL;
    }
    pmt__where where;
    pmt_error err = PMT_ERROR_INIT;
    int rc = pmt__where_at(&where, reader, has, ns, &err);
    if (rc == PMT_ERR_STATE) { /* none was measured */
        Py_RETURN_NONE;
    }
    if (rc < 0) {
        return ext_errors_raise(&state->errors, &err);
    }
    pmt_capture capture;
    pmt_reader_capture(reader, &capture);
    return make_where(&where, capture.started_unix_ns + where.t_ns);
}

static PyObject *
make_part_sizes(const pmt__where *where)
{
    PyObject *dict = PyDict_New();
    for (size_t i = 0; dict != NULL && i < where->part_count; i++) {
        if (values_put_u64(dict, where->parts[i].name, where->parts[i].bytes) < 0) {
            Py_CLEAR(dict);
        }
    }
    return dict;
}

static PyObject *
make_moment(const pmt__where *where)
{
    PyObject *dict = PyDict_New();
    if (dict == NULL || values_put_seconds(dict, "t_s", where->t_ns) < 0
        || values_put_seconds(dict, "took_s", where->took_ns) < 0
        || values_put_u64(dict, "rss_bytes", where->rss_bytes) < 0
        || values_put_u64(dict, "requested_bytes", where->requested_bytes) < 0
        || values_put_u64(dict, "unattributed_bytes", where->unattributed_bytes) < 0
        || values_put(dict, "parts", make_part_sizes(where)) < 0) {
        Py_CLEAR(dict);
    }
    return dict;
}

PyObject *
ext_where_timeline(const pmt_reader *reader)
{
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < pmt__where_count(reader); i++) {
        pmt__where where;
        pmt__where_moment(&where, reader, i);
        if (values_append(list, make_moment(&where)) < 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

PyObject *
ext_where_process(PyObject *module, PyObject *pid)
{
    (void)module;
    unsigned long long number = PyLong_AsUnsignedLongLong(pid);
    if (PyErr_Occurred()) {
        return NULL;
    }
    pmt__where where;
    pmt_error err = PMT_ERROR_INIT;
    if (pmt__where_process(&where, number, &err) < 0) {
        errno = err.sys_errno;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return make_where(&where, pmt__clock_unix_ns());
}
