#include "head.h"

#include "base/memory.h"
#include "format/decode.h"
#include "platform/platform.h"

#define FACTS_MAX ((size_t)1 << 20)

/* The payload of PROC, where it is of a usual size. New reference, or NULL without an exception. */
static PyObject *
facts_read(const pmt__source *source, uint64_t offset)
{
    uint8_t header[PMT_CHUNK_HEADER_SIZE];
    size_t done;
    if (pmt__source_read(source, header, sizeof header, offset, &done, NULL) < 0
        || done < sizeof header || pmt__chunk_stored_size(header) == 0
        || pmt__chunk_stored_size(header) > FACTS_MAX) {
        return NULL;
    }
    PyObject *result = NULL;
    pmt__chunk_reader chunks;
    pmt__chunk chunk;
    pmt__chunk_reader_init(&chunks, source, offset, pmt_allocator_default());
    if (pmt__chunk_next(&chunks, &chunk, NULL) == 1 && memcmp(chunk.kind, "PROC", 4) == 0
        && chunk.size <= FACTS_MAX) {
        result = PyBytes_FromStringAndSize((const char *)chunk.payload, (Py_ssize_t)chunk.size);
        PyErr_Clear();
    }
    pmt__chunk_reader_dispose(&chunks);
    return result;
}

PyObject *
ext_read_head(PyObject *module, PyObject *descriptor)
{
    (void)module;
    int fd = PyObject_AsFileDescriptor(descriptor);
    if (fd < 0) {
        return NULL;
    }
    pmt__source source = {.fd = fd};
    pmt__header header;
    pmt__slot slot = {.seq = 0};
    bool found = false;
    if (pmt__source_refresh(&source, NULL) < 0 || pmt__header_read(&header, &source, NULL) < 0
        || pmt__slot_read(&slot, &found, &source, NULL) < 0 || !found) {
        Py_RETURN_NONE;
    }
    bool is_box = header.region_bytes != 0;
    PyObject *facts = NULL;
    /* the region that counts, or the other one, which holds the same facts */
    for (uint64_t other = 0; other < 2 && facts == NULL; other++) {
        pmt__source region = source;
        facts = facts_read(&region, pmt__source_enter(&region, &header, slot.flips + other));
    }
    if (facts == NULL) {
        Py_RETURN_NONE;
    }
    return Py_BuildValue("IIKKKNN", slot.status, slot.reason, (unsigned long long)slot.cut_unix_ns,
                         (unsigned long long)slot.cuts, (unsigned long long)slot.live_bytes,
                         PyBool_FromLong(is_box), facts);
}
