/* From the library's values to Python's. */
#ifndef PMT_EXT_VALUES_H
#define PMT_EXT_VALUES_H

#include <Python.h>

#include "pymemtrace/reader.h"

/* Sets dict[key] and takes the value over, also when it fails. A NULL value is an exception that is
   already set. Returns 0 or -1. */
int values_put(PyObject *dict, const char *key, PyObject *value);
int values_put_u64(PyObject *dict, const char *key, uint64_t value);
int values_put_seconds(PyObject *dict, const char *key, uint64_t ns);
/* dict[key], and if it is an estimate, its limits as dict[key + "_low"] and dict[key + "_high"]. */
typedef struct {
    const char *key;
    uint64_t value;
    uint64_t sure; /* of it; variance: of the rest (pmt_interval) */
    double variance;
} values_estimate;
int values_put_estimate(PyObject *dict, const values_estimate *estimate, int is_estimate);
/* Bytes and blocks; spread: NULL if they are no estimates. */
int values_put_pair(PyObject *dict, const char *bytes_key, uint64_t bytes, const char *blocks_key,
                    uint64_t blocks, const pmt_spread *spread);
/* What is not known where there are only samples: then None. */
int values_put_known(PyObject *dict, const char *key, uint64_t value, int is_known);
/* Appends and takes the value over. */
int values_append(PyObject *list, PyObject *value);

/* All of these return a new reference, or NULL with an exception. */
PyObject *values_text(pmt_string text);     /* surrogates pass, other invalid bytes are replaced */
PyObject *values_instant(uint64_t unix_ns); /* ISO 8601 with zone */
PyObject *values_fact(const pmt_fact *fact);

PyObject *values_window(uint64_t start_ns, uint64_t end_ns); /* dict: start_s, end_s */

/* Frames as the dicts of json.md ("site"), each made once per call of a method. */
typedef struct {
    const pmt_reader *reader; /* borrowed */
    PyObject **frames;        /* owned, elements too; NULL until asked for */
    PyObject *none;           /* owned: of the stack without frames */
} values_sites;

int values_sites_init(values_sites *self, const pmt_reader *reader);
void values_sites_dispose(values_sites *self);
PyObject *values_site(values_sites *self, uint32_t frame);  /* UINT32_MAX: the root */
PyObject *values_stack(values_sites *self, uint32_t stack); /* list, the innermost first */

#endif
