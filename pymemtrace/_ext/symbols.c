#define PY_SSIZE_T_CLEAN /* sizes of bytes are Py_ssize_t */
#include "symbols.h"

#include "state.h"
#include "values.h"

/* --- what there is to look up ------------------------------------------------------------------ */

/* The places of one object: (path, build id, offsets), appended to the list and found again by the path. */
static PyObject *
offsets_of(PyObject *list, PyObject *known, const pmt_place *place)
{
    PyObject *path = PyBytes_FromStringAndSize(place->object.text, (Py_ssize_t)place->object.len);
    if (path == NULL) {
        return NULL;
    }
    PyObject *offsets = PyDict_GetItemWithError(known, path); /* borrowed */
    if (offsets == NULL && !PyErr_Occurred()) {
        offsets = PyList_New(0);
        PyObject *entry = offsets == NULL
                              ? NULL
                              : Py_BuildValue("(Oy#O)", path, place->build_id,
                                              (Py_ssize_t)place->build_id_size, offsets);
        if (entry == NULL || PyList_Append(list, entry) < 0
            || PyDict_SetItem(known, path, offsets) < 0) {
            Py_XDECREF(offsets);
            offsets = NULL;
        } else {
            Py_DECREF(offsets); /* the dictionary has it */
        }
        Py_XDECREF(entry);
    }
    Py_DECREF(path);
    return offsets;
}

PyObject *
ext_unresolved(const pmt_reader *reader)
{
    PyObject *list = PyList_New(0);
    PyObject *known = PyDict_New();
    int result = list == NULL || known == NULL ? -1 : 0;
    size_t count = pmt_reader_unresolved_count(reader);
    for (size_t i = 0; result == 0 && i < count; i++) {
        pmt_place place = pmt_reader_unresolved(reader, i);
        if (place.build_id == NULL) {
            place.build_id = (const uint8_t *)""; /* y# makes None of NULL */
        }
        PyObject *offsets = offsets_of(list, known, &place); /* borrowed */
        result = offsets == NULL
                     ? -1
                     : values_append(offsets, PyLong_FromUnsignedLongLong(place.offset));
    }
    Py_XDECREF(known);
    if (result < 0) {
        Py_CLEAR(list);
    }
    return list;
}

/* --- what was found ---------------------------------------------------------------------------- */

/* Borrowed from the object; 0 or -1. */
static int
text_of(PyObject *object, pmt_string *out)
{
    if (!PyBytes_Check(object)) {
        PyErr_Format(PyExc_TypeError, "bytes are needed, not %.100s", Py_TYPE(object)->tp_name);
        return -1;
    }
    *out = (pmt_string){PyBytes_AS_STRING(object), (size_t)PyBytes_GET_SIZE(object)};
    return 0;
}

static int
put_frame(pmt_symbols *symbols, PyObject *frame)
{
    PyObject *function;
    PyObject *file;
    long long line;
    pmt_string function_text;
    pmt_string file_text;
    if (!PyArg_ParseTuple(frame, "OOL", &function, &file, &line)
        || text_of(function, &function_text) < 0 || text_of(file, &file_text) < 0) {
        return -1;
    }
    pmt_symbols_put_frame(symbols, function_text, file_text, line);
    return 0;
}

static int
put_place(pmt_symbols *symbols, PyObject *place)
{
    PyObject *object;
    PyObject *offset;
    PyObject *frames;
    pmt_string path;
    if (!PyArg_ParseTuple(place, "OO!O!", &object, &PyLong_Type, &offset, &PyList_Type, &frames)
        || text_of(object, &path) < 0) {
        return -1;
    }
    unsigned long long number = PyLong_AsUnsignedLongLong(offset);
    if (PyErr_Occurred()) {
        return -1;
    }
    pmt_symbols_put_place(symbols, path, number);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(frames); i++) {
        if (put_frame(symbols, PyList_GET_ITEM(frames, i)) < 0) {
            return -1;
        }
    }
    return 0;
}

PyObject *
ext_encode_symbols(PyObject *module, PyObject *places)
{
    if (!PyList_Check(places)) {
        PyErr_SetString(PyExc_TypeError, "a list of places is needed");
        return NULL;
    }
    pmt_error err = PMT_ERROR_INIT;
    pmt_symbols *symbols;
    int result = pmt_symbols_create(&symbols, NULL, &err);
    for (Py_ssize_t i = 0; result == 0 && i < PyList_GET_SIZE(places); i++) {
        if (put_place(symbols, PyList_GET_ITEM(places, i)) < 0) {
            pmt_symbols_destroy(symbols);
            return NULL;
        }
    }
    const void *bytes = NULL;
    size_t size = 0;
    if (result == 0) {
        result = pmt_symbols_bytes(symbols, &bytes, &size, &err);
    }
    PyObject *encoded = result < 0 ? ext_errors_raise(&ext_state_get(module)->errors, &err)
                                   : PyBytes_FromStringAndSize(bytes, (Py_ssize_t)size);
    pmt_symbols_destroy(symbols);
    return encoded;
}

PyObject *
ext_append_symbols(const pmt_reader *reader, PyObject *path, PyObject *bytes)
{
    pmt_string symbols;
    PyObject *file;
    if (text_of(bytes, &symbols) < 0 || !PyUnicode_FSConverter(path, &file)) {
        return NULL;
    }
    pmt_error err = PMT_ERROR_INIT;
    int result;
    Py_BEGIN_ALLOW_THREADS
    result = pmt_symbols_append(reader, PyBytes_AS_STRING(file), symbols.text, symbols.len, &err);
    Py_END_ALLOW_THREADS
    Py_DECREF(file);
    if (result == PMT_ERR_NOMEM) {
        return PyErr_NoMemory();
    }
    return PyBool_FromLong(result == PMT_OK);
}
