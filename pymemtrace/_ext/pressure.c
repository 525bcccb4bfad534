#include "pressure.h"

#include "store/pressure.h"
#include "values.h"

/* Numbers that are given as they are, None where they are not known, or where there is no limit. */
static const struct {
    const char *name;
    int which;
} figures[] = {
    {"cgroup_bytes", PMT_PRESSURE_USAGE},
    {"cgroup_limit_bytes", PMT_PRESSURE_LIMIT},
    {"cgroup_high_bytes", PMT_PRESSURE_HIGH},
    {"cgroup_oom", PMT_PRESSURE_OOMS},
    {"cgroup_oom_kills", PMT_PRESSURE_OOM_KILLS},
    {"cgroup_limit_hits", PMT_PRESSURE_LIMIT_HITS},
    {"cgroup_high_hits", PMT_PRESSURE_HIGH_HITS},
    {"cgroup_anon_bytes", PMT_PRESSURE_ANON},
    {"cgroup_file_bytes", PMT_PRESSURE_FILE},
    {"cgroup_inactive_file_bytes", PMT_PRESSURE_INACTIVE_FILE},
    {"cgroup_kernel_bytes", PMT_PRESSURE_KERNEL},
    {"cgroup_shmem_bytes", PMT_PRESSURE_SHMEM},
    {"psi_some_us", PMT_PRESSURE_SOME_US},
    {"psi_full_us", PMT_PRESSURE_FULL_US},
    {"host_available_bytes", PMT_PRESSURE_HOST_AVAILABLE},
    {"host_bytes", PMT_PRESSURE_HOST},
    {"host_swap_free_bytes", PMT_PRESSURE_HOST_SWAP_FREE},
    {"swap_bytes", PMT_PRESSURE_SWAP},
    {"peak_rss_bytes", PMT_PRESSURE_PEAK_RSS},
    {"max_cgroup_bytes", PMT_PRESSURE_MAX_USAGE},
};

/* Kept as hundredths of a per cent. */
static const struct {
    const char *name;
    int which;
} shares[] = {
    {"psi_some_avg10", PMT_PRESSURE_SOME_AVG10},
    {"psi_full_avg10", PMT_PRESSURE_FULL_AVG10},
    {"max_psi_some_avg10", PMT_PRESSURE_MAX_SOME_AVG10},
};

static PyObject *
stalls_of(uint64_t which)
{
    return which == 1   ? PyUnicode_FromString("cgroup")
           : which == 2 ? PyUnicode_FromString("host")
                        : Py_NewRef(Py_None);
}

static PyObject *
score_of(uint64_t value)
{
    return value == PMT_PRESSURE_UNKNOWN ? Py_NewRef(Py_None)
                                         : PyLong_FromLongLong(pmt__unzigzag(value));
}

static PyObject *
make_pressure(const pmt__pressure_walk *walk)
{
    PyObject *dict = PyDict_New();
    const uint64_t *value = walk->value;
    uint64_t working_set = pmt__pressure_working_set(walk);
    int result = dict == NULL ? -1 : values_put_u64(dict, "t_ns", walk->t_ns);
    for (size_t i = 0; result == 0 && i < sizeof figures / sizeof *figures; i++) {
        uint64_t figure = value[figures[i].which];
        result = values_put_known(dict, figures[i].name, figure, figure < PMT_PRESSURE_NONE);
    }
    for (size_t i = 0; result == 0 && i < sizeof shares / sizeof *shares; i++) {
        uint64_t share = value[shares[i].which];
        result =
            values_put(dict, shares[i].name,
                       share == PMT_PRESSURE_UNKNOWN ? Py_NewRef(Py_None)
                                                     : PyFloat_FromDouble((double)share / 100.0));
    }
    if (result < 0
        || values_put_known(dict, "cgroup_working_set_bytes", working_set,
                            working_set != PMT_PRESSURE_UNKNOWN)
               < 0
        || values_put(dict, "psi_of", stalls_of(value[PMT_PRESSURE_STALLS_OF])) < 0
        || values_put(dict, "oom_score_adj", score_of(value[PMT_PRESSURE_OOM_SCORE_ADJ])) < 0) {
        Py_CLEAR(dict);
    }
    return dict;
}

PyObject *
ext_pressure(const pmt_reader *reader, PyObject *args, PyObject *kwargs)
{
    static char last_key[] = "last";
    static char *keywords[] = {last_key, NULL};
    PyObject *last = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$O:pressure", keywords, &last)) {
        return NULL;
    }
    size_t count = pmt__reader_pressure_count(reader), skip = 0;
    if (last != Py_None) {
        size_t wanted = PyLong_AsSize_t(last);
        if (wanted == (size_t)-1 && PyErr_Occurred()) {
            return NULL;
        }
        skip = wanted < count ? count - wanted : 0;
    }
    PyObject *list = PyList_New(0);
    pmt__pressure_walk walk;
    pmt__pressure_walk_init(&walk, reader);
    while (list != NULL && pmt__pressure_walk_next(&walk)) {
        if (walk.at > skip && values_append(list, make_pressure(&walk)) < 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}
