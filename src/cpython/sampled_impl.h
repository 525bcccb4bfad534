/* The allocator hooks of a sampled recording (record/sample.h). A part of hooks_impl.h.

   What is on the way of every allocation is a countdown; what is on the way of a small object's free is nothing at all: obj and mem
   keep the interpreter's own free. That works because a small object that is a sample is asked for with 513 bytes (*promoted*): pymalloc
   passes such a request on to raw, and later its free as well, and there we are. Whether it does is asked at the start; under a debug allocator
   or PYTHONMALLOC=malloc it does not, and obj and mem look into the filter at every free, as raw does.

   Every block is counted down once, where it comes from: small ones in obj and mem, all others in the lowest place that we have,
   which is the C library's malloc where the native layer is on, else raw. What passes obj, mem and raw on the way there leaves its
   domain with the thread: a sample is of the outermost one.

   Nobody frees a code object through a hook of ours, so its type's destructor is: an address of a code object may be kept. */

#define SAMPLED_PASS(name, domain)                                \
    static PMT_NOINLINE void *name##_pass(void *ctx, size_t size) \
    {                                                             \
        if ((int)sampled_##name == (int)PYMEM_DOMAIN_RAW          \
            && me.passing != 0) { /* it is not the first */       \
            return original[sampled_##name].malloc(ctx, size);    \
        }                                                         \
        me.passing = (domain);                                    \
        void *block = original[sampled_##name].malloc(ctx, size); \
        me.passing = 0;                                           \
        return block;                                             \
    }
enum {
    sampled_obj = PYMEM_DOMAIN_OBJ,
    sampled_mem = PYMEM_DOMAIN_MEM,
    sampled_raw = PYMEM_DOMAIN_RAW
};
SAMPLED_PASS(obj, PMT_DOMAIN_OBJ)
SAMPLED_PASS(mem, PMT_DOMAIN_MEM)
SAMPLED_PASS(raw, PMT_DOMAIN_RAW)

#define SAMPLED_PROBED (1u << 8) /* the lowest place has seen the free, */
#define SAMPLED_PASSED (1u << 9) /* or the allocation that was to find that out */

/* Larger requests of obj and mem come by the lowest place: 512, less under a debug allocator, which adds to them;
   0 where all requests do, SIZE_MAX where none does. */
static size_t sampled_small_max;

static int
    sampled_promotes; /* a request of 513 bytes in obj and mem comes by the lowest place, and so does its free */

/* --- where a sample comes from ------------------------------------------------------------------------------------------------- */

/* The node of a stack, of which nothing is kept: all frames are walked. With the tables. */
static uint32_t
sampled_node_nopy(PMT_FRAME *top)
{
    uint32_t node = top == NULL ? PMT_NODE_ROOT : pmt__stack_naive(top);
    return node == PMT_NODE_ROOT ? PMT_NODE_NO_STACK : node;
}

/* state: NULL, or that of the calling thread. With the tables. */
static uint32_t
sampled_cohort_nopy(PyThreadState *state, uint64_t size, uint32_t domain, pmt__thread **thread)
{
    *thread = NULL;
    PMT_FRAME *top = NULL;
    if (state != NULL) {
        *thread = pmt__thread_get_nopy(state, state->id, state->thread_id, pmt__thread_native_id());
        top = PMT_CURRENT_FRAME(state);
    } else {
        pmt__lane *lane = pmt__lane_own();
        *thread = lane == NULL ? NULL : pmt__lane_thread_nopy(lane, NULL, 0, 0);
    }
    if (top == NULL) {
        pmt__t.counters[PMT_COUNTER_NO_STACK]++;
    }
    return pmt__cohort_get_nopy(sampled_node_nopy(top),
                                size <= PMT_SIZE_EXACT_MAX ? (uint32_t)size : PMT_SIZE_LARGE,
                                domain, *thread == NULL ? 0 : (*thread)->id);
}

static void
sampled_note_nopy(PyThreadState *state, void *block, uint64_t size, uint32_t domain, uint64_t mean)
{
    int32_t slot = pmt__sample_find(block);
    if (slot >= 0) { /* its free was not seen */
        pmt__sample missed = pmt__sample_take_nopy(slot);
        pmt__sample_died_nopy(&missed);
    }
    pmt__thread *thread;
    uint32_t cohort = sampled_cohort_nopy(state, size, domain, &thread);
    pmt__sample_born_nopy(block, size, cohort, mean);
    if (state != NULL && me.own != state) {
        me.own = state;
        pmt__sample_watch_nopy(state);
    }
    if (thread != NULL && thread->name == 0 && !thread->name_asked && state != NULL) {
        thread->name_asked = 1;
        pmt__attention_set(PMT_ATTENTION_NAME);
    }
}

/* A block is a sample. */
static PMT_NOINLINE void
sampled_born_nopy(void *block, uint64_t size, uint32_t domain, uint64_t mean)
{
    if (recording_off() || pmt__lanes_closed) {
        return;
    }
    if (have_gil_nopy()) {
        PyThreadState *state = PMT_CURRENT_STATE();
        if (foreign_nopy(state) || pmt__enter_nopy() == PMT_GATE_CLOSED) {
            return;
        }
        sampled_note_nopy(state, block, size, domain, mean);
        pmt__leave_nopy();
        if (__atomic_load_n(&pmt__t.attention, __ATOMIC_RELAXED) & PMT_ATTENTION_NAME) {
            thread_name_nopy(state);
        }
        return;
    }
    if (pmt__tables_acquire_event() < 0) {
        return;
    }
    if (!recording_off()) {
        PyThreadState *state = me.own;
        if (state != NULL && !pmt__state_is_alive(state)) {
            state = NULL;
        }
        sampled_note_nopy(state, block, size, domain, mean);
        pmt__t.counters[PMT_COUNTER_NO_GIL]++;
    }
    pmt__tables_release();
}

/* Takes a block out of the table that is about to be freed or to move. 0: it is none of the table's. */
static PMT_NOINLINE int
sampled_take_nopy(void *block, pmt__sample *out)
{
    if (pmt__sample_find(block) < 0) {
        return 0;
    }
    if (PMT_UNLIKELY(me.probing)) {
        me.probed |= SAMPLED_PROBED;
        return 0;
    }
    if (recording_off() || pmt__lanes_closed) {
        return 0;
    }
    bool gil = have_gil_nopy();
    if (gil ? pmt__enter_nopy() == PMT_GATE_CLOSED : pmt__tables_acquire_event() < 0) {
        return 0;
    }
    int found = 0;
    int32_t slot = recording_off() ? -1 : pmt__sample_find(block);
    if (slot >= 0) {
        *out = pmt__sample_take_nopy(slot);
        found = 1;
    }
    if (gil) {
        pmt__leave_nopy();
    } else {
        pmt__tables_release();
    }
    return found;
}

/* What was taken out is gone; or, if `back`, is there again. */
static PMT_NOINLINE void
sampled_settle_nopy(const void *block, const pmt__sample *sample, int back)
{
    bool gil = have_gil_nopy();
    if (gil ? pmt__enter_nopy() == PMT_GATE_CLOSED : pmt__tables_acquire_event() < 0) {
        return;
    }
    if (recording_off()) {
        /* nothing to be told */
    } else if (back) {
        pmt__sample_put_nopy(block, sample);
    } else if (sample->cohort == 0) {
        watched_died_nopy(block);
    } else {
        pmt__sample_died_nopy(sample);
    }
    if (gil) {
        pmt__leave_nopy();
    } else {
        pmt__tables_release();
    }
}

static PMT_NOINLINE void
sampled_freed_nopy(void *block)
{
    pmt__sample sample;
    if (sampled_take_nopy(block, &sample)) {
        sampled_settle_nopy(block, &sample, 0);
    }
}

PMT_INLINE void
sampled_freeing_nopy(void *block)
{
    if (PMT_UNLIKELY(pmt__sample_maybe(block))) {
        sampled_freed_nopy(block);
    }
}

/* --- the countdown ---------------------------------------------------------------------------------------------------------------- */

/* Is an allocation of this size to be looked at? */
PMT_INLINE bool
sampled_counts(size_t size)
{
    if (PMT_UNLIKELY(size >= __atomic_load_n(&pmt__sampling_now.always, __ATOMIC_RELAXED))) {
        return true;
    }
    pmt__sample_left -= (int64_t)size;
    return PMT_UNLIKELY(pmt__sample_left < 0);
}

static PMT_NOINLINE void *
sampled_small(int python_domain, uint32_t domain, size_t size)
{
    const PyMemAllocatorEx *to = &original[python_domain];
    if (PMT_UNLIKELY(me.probing)) {
        me.probed |= 1u << python_domain;
        return to->malloc(to->ctx, size);
    }
    uint64_t mean;
    if (!pmt__sample_due(size, &mean) || me.nested) {
        return to->malloc(to->ctx, size);
    }
    int64_t left = pmt__sample_left;
    me.nested++;
    bool promoted = sampled_promotes && size <= PMT_SIZE_EXACT_MAX;
    void *block = to->malloc(to->ctx, promoted ? PMT_SIZE_EXACT_MAX + 1 : size);
    me.nested--;
    pmt__sample_left = left;
    if (block != NULL) {
        sampled_born_nopy(block, size, domain, mean);
    }
    return block;
}

/* A block came from the lowest place and is to be looked at. */
static PMT_NOINLINE void
sampled_lowest_nopy(void *block, size_t size, uint32_t lowest)
{
    uint64_t mean;
    if (PMT_UNLIKELY(me.probing)) {
        me.probed |= SAMPLED_PASSED;
        return;
    }
    if (pmt__sample_due(size, &mean) && !me.nested && block != NULL) {
        sampled_born_nopy(block, size, me.passing != 0 ? me.passing : lowest, mean);
    }
}

/* Whatever it passes on its way is done here, at once. */
static PMT_NOINLINE void *
sampled_calloc(const PyMemAllocatorEx *to, uint32_t domain, size_t count, size_t each)
{
    size_t size = count * each; /* where that overflows, there will be no block */
    uint64_t mean = 0;
    if (me.nested) {
        return to->calloc(to->ctx, count, each);
    }
    bool due = size != 0 && sampled_counts(size) && pmt__sample_due(size, &mean);
    int64_t left = pmt__sample_left;
    me.nested++;
    void *block = due && sampled_promotes && size <= PMT_SIZE_EXACT_MAX
                      ? to->calloc(to->ctx, 1, PMT_SIZE_EXACT_MAX + 1)
                      : to->calloc(to->ctx, count, each);
    me.nested--;
    pmt__sample_left = left;
    if (due && block != NULL) {
        sampled_born_nopy(block, size, domain, mean);
    }
    return block;
}

/* A realloc of an outer domain, which counts the new block, has come to the old one. */
static PMT_NOINLINE void *
sampled_realloc_nested(const PyMemAllocatorEx *to, void *old, size_t size)
{
    pmt__sample sample;
    int had = old != NULL && pmt__sample_maybe(old) && sampled_take_nopy(old, &sample);
    void *block = to->realloc(to->ctx, old, size);
    if (had) {
        sampled_settle_nopy(old, &sample, block == NULL);
    }
    return block;
}

/* deeper: where the old block is a sample, raw's realloc is going to be asked, which takes it out of the table. */
static PMT_NOINLINE void *
sampled_realloc(const PyMemAllocatorEx *to, uint32_t domain, void *old, size_t size, bool deeper)
{
    uint64_t mean = 0;
    if (me.nested) {
        return sampled_realloc_nested(to, old, size);
    }
    bool due = size != 0 && sampled_counts(size) && pmt__sample_due(size, &mean);
    pmt__sample sample;
    int had = !deeper && old != NULL && pmt__sample_maybe(old) && sampled_take_nopy(old, &sample);
    bool promoted = due && sampled_promotes && domain != PMT_DOMAIN_RAW
                    && domain != PMT_DOMAIN_MALLOC && size <= PMT_SIZE_EXACT_MAX;
    int64_t left = pmt__sample_left;
    me.nested++;
    void *block = to->realloc(to->ctx, old, promoted ? PMT_SIZE_EXACT_MAX + 1 : size);
    me.nested--;
    pmt__sample_left = left;
    if (had) {
        sampled_settle_nopy(old, &sample, block == NULL);
    }
    if (due && block != NULL) {
        sampled_born_nopy(block, size, domain, mean);
    }
    return block;
}

/* Is it an allocation with no point in it, and not within another? Then it is counted. */
PMT_INLINE bool
sampled_quiet(size_t size)
{
    if (me.nested || size == 0
        || size >= __atomic_load_n(&pmt__sampling_now.always, __ATOMIC_RELAXED)
        || pmt__sample_left < (int64_t)size) {
        return false;
    }
    pmt__sample_left -= (int64_t)size;
    return true;
}

/* What the call passes on its way down has been counted. */
#define SAMPLED_NESTED(call)          \
    int64_t left_ = pmt__sample_left; \
    me.nested = 1;                    \
    void *block_ = call;              \
    me.nested = 0;                    \
    pmt__sample_left = left_;         \
    return block_

#define SAMPLED_HOOKS(name, python_domain, domain)                                \
    static void *sampled_##name##_malloc(void *ctx, size_t size)                  \
    {                                                                             \
        if (PMT_UNLIKELY(size > sampled_small_max)) {                             \
            return name##_pass(ctx, size);                                        \
        }                                                                         \
        pmt__sample_left -= (int64_t)size;                                        \
        if (PMT_UNLIKELY(pmt__sample_left < 0)) {                                 \
            return sampled_small(python_domain, domain, size);                    \
        }                                                                         \
        return original[python_domain].malloc(ctx, size);                         \
    }                                                                             \
    static void *sampled_##name##_calloc(void *ctx, size_t count, size_t size)    \
    {                                                                             \
        if (PMT_UNLIKELY(!sampled_quiet(count * size))) {                         \
            return sampled_calloc(&original[python_domain], domain, count, size); \
        }                                                                         \
        SAMPLED_NESTED(original[python_domain].calloc(ctx, count, size));         \
    }                                                                             \
    static void *sampled_##name##_realloc(void *ctx, void *old, size_t size)      \
    {                                                                             \
        if (PMT_UNLIKELY(!sampled_promotes || !sampled_quiet(size))) {            \
            return sampled_realloc(&original[python_domain], domain, old, size,   \
                                   sampled_promotes != 0);                        \
        }                                                                         \
        SAMPLED_NESTED(original[python_domain].realloc(ctx, old, size));          \
    }                                                                             \
    static void filtered_##name##_free(void *ctx, void *block)                    \
    {                                                                             \
        if (block != NULL) {                                                      \
            sampled_freeing_nopy(block);                                          \
        }                                                                         \
        original[python_domain].free(ctx, block);                                 \
    }
SAMPLED_HOOKS(obj, PYMEM_DOMAIN_OBJ, PMT_DOMAIN_OBJ)
SAMPLED_HOOKS(mem, PYMEM_DOMAIN_MEM, PMT_DOMAIN_MEM)

/* raw as the lowest place: without the native layer */
static void *
sampled_raw_malloc(void *ctx, size_t size)
{
    if (!sampled_counts(size)) {
        return original[PYMEM_DOMAIN_RAW].malloc(ctx, size);
    }
    void *block = original[PYMEM_DOMAIN_RAW].malloc(ctx, size);
    sampled_lowest_nopy(block, size, PMT_DOMAIN_RAW);
    return block;
}

static void *
sampled_raw_calloc(void *ctx, size_t count, size_t size)
{
    (void)ctx;
    return sampled_calloc(&original[PYMEM_DOMAIN_RAW], PMT_DOMAIN_RAW, count, size);
}

static void *
sampled_raw_realloc(void *ctx, void *old, size_t size)
{
    (void)ctx;
    return sampled_realloc(&original[PYMEM_DOMAIN_RAW], PMT_DOMAIN_RAW, old, size, false);
}

static void
sampled_raw_free(void *ctx, void *block)
{
    if (block != NULL) {
        sampled_freeing_nopy(block);
    }
    original[PYMEM_DOMAIN_RAW].free(ctx, block);
}

/* --- the C library's allocator (native_table.h) ---------------------------------------------------------------------------------- */

static void
sampled_native_allocated(void *block, size_t size)
{
    if (sampled_counts(size) && !native_recurses()) {
        sampled_lowest_nopy(block, size, PMT_DOMAIN_MALLOC);
    }
}

static void
sampled_native_freeing(void *block)
{
    if (PMT_UNLIKELY(pmt__sample_maybe(block)) && !native_recurses()) {
        sampled_freed_nopy(block);
    }
}

static void *
sampled_native_reallocate(void *(*real)(void *, size_t), void *old, size_t size)
{
    PyMemAllocatorEx to = {.realloc = native_call};
    memcpy(&to.ctx, &real, sizeof real);
    if (pmt__lanes_closed || native_recurses()) {
        return real(old, size);
    }
    return sampled_realloc(&to, PMT_DOMAIN_MALLOC, old, size, false);
}

static const pmt__native_table sampled_native_table = {
    .version = PMT_NATIVE_TABLE_VERSION,
    .allocated = sampled_native_allocated,
    .freeing = sampled_native_freeing,
    .reallocate = sampled_native_reallocate,
    .mapped = native_mapped,
    .unmapping = native_unmapping,
    .remapped = native_remapped,
    .unloaded = native_unloaded,
};

const pmt__native_table *
pmt__cpython_sampled_native_table(void)
{
    return &sampled_native_table;
}

/* --- code objects ------------------------------------------------------------------------------------------------------------------------ */

static destructor code_dealloc; /* the interpreter's own, as long as ours is in its place */

/* Before its address can be another's. */
static void
sampled_code_dealloc(PyObject *code)
{
    if (!recording_off() && have_gil_nopy() && !foreign_nopy(PMT_CURRENT_STATE())
        && pmt__enter_nopy() != PMT_GATE_CLOSED) {
        pmt__code_died_nopy(code);
        pmt__leave_nopy();
    }
    code_dealloc(code);
}

static void
sampled_code_watch(void)
{
    if (PyCode_Type.tp_dealloc != sampled_code_dealloc) {
        code_dealloc = PyCode_Type.tp_dealloc;
        PyCode_Type.tp_dealloc = sampled_code_dealloc;
    }
}

static void
sampled_code_unwatch(void)
{
    if (PyCode_Type.tp_dealloc == sampled_code_dealloc) {
        PyCode_Type.tp_dealloc = code_dealloc;
    }
}

/* --- where the hooks go --------------------------------------------------------------------------------------------------------------- */

static const PyMemAllocatorEx sampled_hooks[3] = {
    [PYMEM_DOMAIN_RAW] = {NULL, sampled_raw_malloc, sampled_raw_calloc, sampled_raw_realloc,
                          sampled_raw_free},
    [PYMEM_DOMAIN_MEM] = {NULL, sampled_mem_malloc, sampled_mem_calloc, sampled_mem_realloc,
                          filtered_mem_free},
    [PYMEM_DOMAIN_OBJ] = {NULL, sampled_obj_malloc, sampled_obj_calloc, sampled_obj_realloc,
                          filtered_obj_free},
};

static bool
sampled_is_ours(PyMemAllocatorDomain domain, const PyMemAllocatorEx *top)
{
    return top->malloc == sampled_hooks[domain].malloc
           || (domain == PYMEM_DOMAIN_RAW && top->malloc == raw_pass);
}

/* full_raw: raw's hook of a recording of everything, which stays on for ever. */
static void
sampled_hook(PyMemAllocatorDomain domain, bool native, void *(*full_raw)(void *, size_t))
{
    PyMemAllocatorEx top;
    PyMem_GetAllocator(domain, &top);
    if (!sampled_is_ours(domain, &top) && !(domain == PYMEM_DOMAIN_RAW && top.malloc == full_raw)) {
        original[domain] = top;
    }
    PyMemAllocatorEx ours = sampled_hooks[domain];
    ours.ctx = original[domain].ctx;
    if (domain == PYMEM_DOMAIN_RAW && native) {
        ours.malloc = raw_pass;
    } else if (domain != PYMEM_DOMAIN_RAW && sampled_promotes) {
        ours.free = original[domain].free;
    }
    PyMem_SetAllocator(domain, &ours);
}

/* Does a request of this size come by the lowest place? Before obj has its hook. */
static bool
sampled_passes(size_t size)
{
    int64_t left = pmt__sample_left;
    pmt__sample_left = 0;
    me.probing = 1;
    me.probed = 0;
    void *block = PyObject_Malloc(size);
    me.probing = 0;
    pmt__sample_left = left;
    PyObject_Free(block);
    return (me.probed & SAMPLED_PASSED) != 0;
}

static void
sampled_probe_small(void)
{
    if (!sampled_passes(PMT_SIZE_EXACT_MAX + 1)) { /* obj has an allocator of its own */
        sampled_small_max = SIZE_MAX;
        return;
    }
    size_t low = 0, high = PMT_SIZE_EXACT_MAX + 1; /* low does not, high does */
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (sampled_passes(middle)) {
            high = middle;
        } else {
            low = middle;
        }
    }
    sampled_small_max = low;
}

/* Does the free of a block of 513 bytes come by the lowest place? */
static void
sampled_probe(void)
{
    void *block = PyObject_Malloc(PMT_SIZE_EXACT_MAX + 1);
    if (block == NULL) {
        return;
    }
    pmt__tables_acquire();
    pmt__sample_watch_nopy(block);
    pmt__tables_release();
    me.probing = 1;
    me.probed = 0;
    PyObject_Free(block);
    sampled_promotes = (me.probed & SAMPLED_PROBED) != 0;
    me.probing = 0;
    pmt__tables_acquire();
    int32_t slot = pmt__sample_find(block);
    if (slot >= 0) {
        pmt__sample_take_nopy(slot);
    }
    pmt__tables_release();
}

static bool sampled_native; /* the lowest place is the C library's malloc */

static void
sampled_install(bool native, void *(*full_raw)(void *, size_t))
{
    sampled_native = native;
    sampled_promotes = 0;
    sampled_code_watch();
    sampled_hook(PYMEM_DOMAIN_RAW, native, full_raw);
    sampled_probe();
    sampled_probe_small();
    sampled_hook(PYMEM_DOMAIN_MEM, native, full_raw);
    sampled_hook(PYMEM_DOMAIN_OBJ, native, full_raw);
}

/* Puts back what the program, or another profiler, has taken off. */
static void
sampled_check(void *(*full_raw)(void *, size_t))
{
    for (int domain = 0; domain < 3; domain++) {
        PyMemAllocatorEx top;
        PyMem_GetAllocator((PyMemAllocatorDomain)domain, &top);
        if (sampled_is_ours((PyMemAllocatorDomain)domain, &top)) {
            continue;
        }
        if (domain != PYMEM_DOMAIN_RAW) { /* or is somebody else on top of ours? */
            me.probing = 1;
            me.probed = 0;
            int64_t left = pmt__sample_left;
            pmt__sample_left = 0;
            void *block = domain == PYMEM_DOMAIN_MEM ? PyMem_Malloc(8) : PyObject_Malloc(8);
            pmt__sample_left = left;
            me.probing = 0;
            domain == PYMEM_DOMAIN_MEM ? PyMem_Free(block) : PyObject_Free(block);
            if (me.probed & 1u << domain) {
                continue;
            }
        } else if (top.malloc == full_raw) {
            continue;
        }
        sampled_hook((PyMemAllocatorDomain)domain, sampled_native, full_raw);
        __atomic_fetch_add(&pmt__t.counters[PMT_COUNTER_HOOKS_LOST], 1, __ATOMIC_RELAXED);
    }
}

static void
sampled_uninstall(const PyMemAllocatorEx *full_raw)
{
    sampled_code_unwatch();
    for (int domain = 0; domain < 3; domain++) {
        PyMemAllocatorEx top;
        PyMem_GetAllocator((PyMemAllocatorDomain)domain, &top);
        if (!sampled_is_ours((PyMemAllocatorDomain)domain, &top)) {
            continue;
        }
        PyMemAllocatorEx back = original[domain];
        if (domain == PYMEM_DOMAIN_RAW) {
            back = *full_raw;
            back.ctx = original[domain].ctx;
        }
        PyMem_SetAllocator((PyMemAllocatorDomain)domain, &back);
    }
}
