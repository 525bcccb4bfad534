#include "record/mixed.h"

#include <string.h>

#include "platform/platform.h"
#include "pymemtrace/error.h"

#define RULE_BITS 16
#define RULES_MAX (3u << (RULE_BITS - 2)) /* then they start again */
#define PLACES_MAX (1u << 20)
#define OBJECTS_MAX 4096
#define FIRST_PLACE_HASH 4096u

/* How the caller of a frame that stands at pc is found, and which place it is. Written once, the key last. */
typedef struct pmt__native_rule {
    uint64_t key; /* atomic; 0: empty */
    pmt__unwind_rule unwind;
    uint32_t place; /* | RULE_SYSTEM */
} pmt__native_rule;

#define RULE_SYSTEM 0x80000000u /* the code is of the interpreter, the C library or ours */
_Static_assert(sizeof(pmt__native_rule) == 32, "two in a cache line");

pmt__natives pmt__natives_now;
#define N pmt__natives_now

/* --- places ------------------------------------------------------------------------------------------------------------- */

static uint32_t
place_key(uint32_t object, uint64_t offset)
{
    return (uint32_t)(((uint64_t)object << 48 ^ offset) * PMT_MIX >> 32);
}

static void
place_insert(uint32_t *ids, uint32_t mask, uint32_t id)
{
    uint32_t at = place_key(N.places[id].object, N.places[id].offset) & mask;
    while (ids[at] != 0) {
        at = (at + 1) & mask;
    }
    ids[at] = id;
}

static int
place_hash_grow(void)
{
    uint32_t mask = N.place_hash_mask * 2 + 1;
    uint32_t *ids = pmt__pages_map((size_t)(mask + 1) * sizeof *ids);
    if (ids == NULL) {
        return -1;
    }
    for (uint32_t id = 1; id < N.place_count; id++) {
        place_insert(ids, mask, id);
    }
    pmt__pages_unmap(N.place_hash, (size_t)(N.place_hash_mask + 1) * sizeof *ids);
    N.place_hash = ids;
    N.place_hash_mask = mask;
    return 0;
}

/* A number, or 0: no room. */
static uint32_t
place_get(uint32_t object, uint64_t offset)
{
    uint32_t mask = N.place_hash_mask;
    for (uint32_t at = place_key(object, offset) & mask; N.place_hash[at] != 0;
         at = (at + 1) & mask) {
        const pmt__native_place *place = &N.places[N.place_hash[at]];
        if (place->object == object && place->offset == offset) {
            return N.place_hash[at];
        }
    }
    if (N.place_count >= PLACES_MAX || (N.place_count * 2 > mask && place_hash_grow() < 0)) {
        return 0;
    }
    uint32_t id = N.place_count++;
    N.places[id] = (pmt__native_place){offset, object, 0};
    place_insert(N.place_hash, N.place_hash_mask, id);
    return id;
}

/* --- objects ------------------------------------------------------------------------------------------------------------ */

/* A path is bytes, names are texts. What is no UTF-8 becomes surrogates, as Python has it. */
static uint32_t
path_intern(const char *path)
{
    enum {
        PATH_LENGTH = 4096
    };
    static uint32_t points[PATH_LENGTH]; /* protected by the tables */
    size_t n = 0;
    for (const uint8_t *at = (const uint8_t *)path; *at != 0 && n < PATH_LENGTH; n++) {
        int more = *at >= 0xf0 && *at < 0xf5 ? 3 : *at >= 0xe0 ? 2 : *at >= 0xc2 ? 1 : 0;
        uint32_t point = *at < 0x80 ? *at : *at & (0x3fu >> more);
        int good = *at < 0x80 || (more > 0 && *at < 0xf5);
        for (int i = 1; good && i <= more; i++) {
            good = (at[i] & 0xc0) == 0x80;
            point = point << 6 | (at[i] & 0x3f);
        }
        points[n] = good ? point : 0xdc00u + *at;
        at += good ? more + 1 : 1;
    }
    pmt__text text = {points, n, 4};
    return pmt__string_intern_nopy(&text);
}

static const char *
base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

static int
starts_with(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

/* Whose code it is. What lies below the first Python frame is left out while it belongs to nobody but these. Greenlets copy their part
   of the C stack away and back; below the frames of a running one lies what happens to lie there. */
static void
object_class(pmt__native_object *out, const pmt__object *found)
{
    const char *name = base_name(found->path);
    uint64_t extension = (uint64_t)(uintptr_t)&object_class;
    int is_extension =
        extension >= found->start && extension < found->end && starts_with(name, "_core.");
    int is_library = N.library >= found->start && N.library < found->end;
    out->is_own = (uint8_t)(is_extension || is_library);
    out->is_base = (uint8_t)starts_with(name, "_greenlet");
    out->is_system = out->is_own || out->is_base || starts_with(name, "python")
                     || starts_with(name, "libpython") || starts_with(name, "libc.so")
                     || starts_with(name, "libc-") || starts_with(name, "libpthread")
                     || starts_with(name, "ld-linux") || starts_with(name, "ld-musl");
}

static int
object_is(const pmt__native_object *object, uint32_t path, const pmt__object *found)
{
    return object->path == path && object->build_id_size == found->build_id_size
           && memcmp(object->build_id, found->build_id, found->build_id_size) == 0;
}

/* The index of the object around an address, 0: none that is known, or no room. */
static uint32_t
object_get(uint64_t pc)
{
    for (uint32_t i = 1; i < N.object_count; i++) {
        if (pc >= N.objects[i].start && pc < N.objects[i].end) {
            return i;
        }
    }
    pmt__object found;
    if (pmt__object_find(pc, &found) < 0) {
        return 0;
    }
    uint32_t path = path_intern(found.path);
    if (path == 0) {
        return 0;
    }
    found.build_id_size = found.build_id_size > PMT_BUILD_ID_MAX ? 0 : found.build_id_size;
    uint32_t i = 1;
    while (i < N.object_count
           && !(N.objects[i].start == 0 && object_is(&N.objects[i], path, &found))) {
        i++;
    }
    if (i == N.object_count) {
        if (N.object_count == OBJECTS_MAX) {
            return 0;
        }
        N.object_count++;
    }
    pmt__native_object *object = &N.objects[i];
    object->start = found.start;
    object->end = found.end;
    object->bias = found.bias;
    object->path = path;
    object->build_id_size = (uint8_t)found.build_id_size;
    if (found.build_id_size > 0) {
        memcpy(object->build_id, found.build_id, found.build_id_size);
    }
    object_class(object, &found);
    return i;
}

/* --- rules -------------------------------------------------------------------------------------------------------------- */

/* A return address is not the place of an interruption. */
PMT_INLINE uint64_t
rule_key(uint64_t pc, int is_return)
{
    return pc << 1 | (uint64_t)is_return;
}

PMT_INLINE pmt__native_rule *
rule_find(uint64_t key)
{
    uint32_t mask = (1u << RULE_BITS) - 1;
    for (uint32_t at = (uint32_t)(key * PMT_MIX >> (64 - RULE_BITS));; at = (at + 1) & mask) {
        pmt__native_rule *rule = &N.rules[at];
        uint64_t have = __atomic_load_n(&rule->key, __ATOMIC_ACQUIRE);
        if (PMT_LIKELY(have == key) || have == 0) {
            return rule;
        }
    }
}

uint32_t
pmt__native_place_plain_nopy(uint64_t pc, int *is_system)
{
    uint32_t object = object_get(pc);
    const pmt__native_object *it = &N.objects[object];
    *is_system = object != 0 && it->is_system;
    if (object == 0) {
        return PMT_PLACE_LOST;
    }
    if (it->is_own) {
        return 0;
    }
    uint32_t place = place_get(object, pc - it->bias);
    return PMT_PLACE_NATIVE | (place != 0 ? place : place_get(object, 0));
}

void
pmt__native_rule_plain_nopy(uint64_t pc, int is_return, pmt__unwind_rule *out)
{
    pmt__unwind_rule_find(pc, is_return, out);
    if (N.objects[object_get(pc)].is_base) {
        out->cfa = PMT_UNWIND_END;
    }
}

/* With the tables held. NULL: there are as many as there can be. */
static PMT_NOINLINE const pmt__native_rule *
rule_make(pmt__native_rule *rule, uint64_t pc, int is_return)
{
    if (N.rule_count >= RULES_MAX) {
        return NULL;
    }
    pmt__native_rule_plain_nopy(pc, is_return, &rule->unwind);
    int is_system;
    rule->place = pmt__native_place_plain_nopy(pc, &is_system);
    rule->place |= is_system ? RULE_SYSTEM : 0;
    N.rule_count++;
    __atomic_store_n(&rule->key, rule_key(pc, is_return), __ATOMIC_RELEASE);
    return rule;
}

/* Reads words of a stack that the compiler knows other things of. */
#define PMT_STACK_READER __attribute__((no_sanitize_address, no_sanitize_thread))

/* --- what may be read ----------------------------------------------------------------------------------------------------- */

#define PROBE_MAX ((uint64_t)64 << 20) /* bytes of stack */

static int
probe(uint64_t from, uint64_t to, uint64_t page)
{
    if (to - from > PROBE_MAX) {
        return 0;
    }
    for (uint64_t at = from & ~(page - 1); at < to; at += page) {
        if (!pmt__readable((const void *)(uintptr_t)at)) {
            return 0;
        }
    }
    return 1;
}

/* The range that the stack pointer is in; one of a stack that was not met before begins with its page. */
static pmt__stack_range *
range_of(pmt__mixed *m, uint64_t sp)
{
    const uint64_t page = N.page;
    for (uint32_t i = 0; i < PMT_STACK_RANGES; i++) {
        pmt__stack_range *range = &m->ranges[(m->range + i) % PMT_STACK_RANGES];
        if (PMT_LIKELY(sp >= range->low && sp < range->high)) {
            m->range = (m->range + i) % PMT_STACK_RANGES;
            return range;
        }
    }
    pmt__stack_range *newest = &m->ranges[m->range];
    if (sp < newest->low && probe(sp, newest->low, page)) { /* it has grown */
        newest->low = sp & ~(page - 1);
        return newest;
    }
    m->range = (m->range + 1) % PMT_STACK_RANGES;
    newest = &m->ranges[m->range];
    newest->low = sp & ~(page - 1);
    newest->high = newest->low + page;
    return newest;
}

static int
range_extend(pmt__stack_range *range, uint64_t address)
{
    const uint64_t page = N.page;
    uint64_t end = (address + sizeof(uint64_t) + page - 1) & ~(page - 1);
    if (address < range->low || !probe(range->high, end, page)) {
        return 0;
    }
    range->high = end;
    return 1;
}

PMT_STACK_READER PMT_INLINE int
word_at(pmt__stack_range *range, uint64_t address, uint64_t *out)
{
    if (PMT_UNLIKELY(address < range->low || address > range->high - sizeof *out
                     || address % sizeof *out != 0)
        && (address % sizeof *out != 0 || !range_extend(range, address))) {
        return 0;
    }
    *out = *(const uint64_t *)(uintptr_t)address;
    return 1;
}

/* --- the walk --------------------------------------------------------------------------------------------------------------- */

/* Is what is kept of frames `at` … 0 still so? Frame `at` itself is. */
PMT_STACK_READER PMT_INLINE int
unmoved(const pmt__mixed *m, int32_t at)
{
    for (; at > 0; at--) {
        const pmt__native_word *returns = &m->returns[at];
        if (PMT_UNLIKELY(*(const uint64_t *)(uintptr_t)returns->at != returns->word)) {
            return 0;
        }
        if (PMT_UNLIKELY(m->has_more[at])) {
            const pmt__native_frame *frame = &m->native[at], *caller = frame - 1;
            if (frame->cfa_at != 0
                && *(const uint64_t *)(uintptr_t)frame->cfa_at != frame->cfa_word) {
                return 0;
            }
            if (frame->bp_at != 0 && caller->needs_bp
                && *(const uint64_t *)(uintptr_t)frame->bp_at != caller->bp) {
                return 0;
            }
        }
    }
    return 1;
}

/* From a frame to its caller. 0: the walk ends here. */
PMT_STACK_READER PMT_INLINE int
step(const pmt__native_rule *rule, pmt__stack_range *range, pmt__native_frame *f,
     pmt__unwind_regs *regs)
{
    const pmt__unwind_rule *u = &rule->unwind;
    uint64_t sp = regs->sp, bp = regs->bp, ra_from;
    f->cfa_at = f->bp_at = 0;
    f->uses_bp = u->bp == PMT_UNWIND_BP_AT_BP;
    switch (u->cfa) {
    case PMT_UNWIND_SP:
        f->cfa = sp + (uint64_t)(int64_t)u->cfa_offset;
        break;
    case PMT_UNWIND_BP:
        f->cfa = bp + (uint64_t)(int64_t)u->cfa_offset;
        f->uses_bp = 1;
        break;
    case PMT_UNWIND_DEREF_BP:
    case PMT_UNWIND_DEREF_SP:
    case PMT_UNWIND_SIGNAL:
        f->uses_bp |= u->cfa == PMT_UNWIND_DEREF_BP;
        f->cfa_at = (u->cfa == PMT_UNWIND_DEREF_BP ? bp : sp) + (uint64_t)(int64_t)u->cfa_offset;
        if (!word_at(range, f->cfa_at, &f->cfa_word)) {
            return 0;
        }
        f->cfa = f->cfa_word + (uint64_t)(int64_t)u->cfa_add;
        break;
    default:
        return 0;
    }
    ra_from = u->cfa == PMT_UNWIND_SIGNAL ? sp : f->cfa;
    f->ra_at = ra_from + (uint64_t)(int64_t)u->ra_offset;
    if (f->cfa <= sp || !word_at(range, f->ra_at, &regs->pc)) {
        return 0;
    }
    if (u->bp != PMT_UNWIND_BP_SAME) {
        f->bp_at = (u->bp == PMT_UNWIND_BP_AT_CFA  ? f->cfa
                    : u->bp == PMT_UNWIND_BP_AT_BP ? bp
                                                   : sp)
                   + (uint64_t)(int64_t)u->bp_offset;
        if (!word_at(range, f->bp_at, &regs->bp)) {
            return 0;
        }
    }
    regs->sp = f->cfa;
    return 1;
}

/* Puts the new frames, top first, on top of those that stayed. */
static void
fresh_adopt(pmt__mixed *m, int32_t kept, int32_t count)
{
    if (kept + count > PMT_NATIVE_DEPTH) { /* too deep: the ones at the root go */
        kept = 0;
        m->broken = 1;
    }
    for (int32_t i = 0; i < count; i++) {
        pmt__native_frame *frame = &m->native[kept + i];
        *frame = m->fresh[count - 1 - i];
        const pmt__native_frame *caller = kept + i > 0 ? frame - 1 : NULL;
        frame->needs_bp =
            frame->uses_bp || (frame->bp_at == 0 && caller != NULL && caller->needs_bp);
        if (caller != NULL) {
            m->returns[kept + i] = (pmt__native_word){frame->ra_at, caller->pc};
            m->has_more[kept + i] = frame->cfa_at != 0 || (frame->bp_at != 0 && caller->needs_bp);
        }
    }
    m->native_kept = kept;
    m->native_count = kept + count;
    int32_t trim = kept < m->trim ? kept : m->trim;
    while (trim < m->native_count && m->native[trim].is_system) {
        trim++;
    }
    m->trim = trim;
}

PMT_STACK_READER int
pmt__mixed_walk_nopy(pmt__mixed *m, const pmt__unwind_regs *from, int tables)
{
    if (PMT_UNLIKELY(m->generation != __atomic_load_n(&N.generation, __ATOMIC_ACQUIRE))) {
        m->generation = __atomic_load_n(&N.generation, __ATOMIC_ACQUIRE);
        m->native_count = m->trim = 0;
        m->broken = 0;
    }
    pmt__unwind_regs regs = *from;
    pmt__stack_range *range = range_of(m, regs.sp);
    int32_t at = m->native_count - 1, count = 0;
    int is_return = 0;
    uint32_t broken = 0;
    for (;;) {
        while (at >= 0 && m->native[at].sp < regs.sp) {
            at--;
        }
        if (at >= 0) {
            const pmt__native_frame *known = &m->native[at];
            if (known->sp == regs.sp && known->pc == regs.pc
                && (known->bp == regs.bp || !known->needs_bp)) {
                if (PMT_LIKELY(unmoved(m, at))) {
                    fresh_adopt(m, at + 1, count);
                    return 0;
                }
                at--;
            }
        }
        pmt__native_rule *slot = rule_find(rule_key(regs.pc, is_return));
        const pmt__native_rule *rule = slot;
        if (PMT_UNLIKELY(__atomic_load_n(&slot->key, __ATOMIC_RELAXED) == 0)) {
            if (!tables) {
                m->missing = regs.pc;
                m->missing_is_return = (uint32_t)is_return;
                return -1;
            }
            rule = rule_make(slot, regs.pc, is_return);
        }
        if (rule == NULL || count == PMT_NATIVE_DEPTH) {
            broken = 1;
            break;
        }
        pmt__native_frame *frame = &m->fresh[count++];
        frame->pc = regs.pc;
        frame->sp = frame->cfa = regs.sp;
        frame->bp = regs.bp;
        frame->place = rule->place & ~RULE_SYSTEM;
        frame->is_system = (uint8_t)(rule->place >> 31);
        is_return = !rule->unwind.signal;
        if (!step(rule, range, frame, &regs) || regs.pc == 0) {
            broken = rule->unwind.cfa != PMT_UNWIND_END && regs.pc != 0;
            break;
        }
    }
    m->broken = broken;
    fresh_adopt(m, 0, count);
    return 0;
}

void
pmt__mixed_missing_nopy(pmt__mixed *m)
{
    pmt__native_rule *slot = rule_find(rule_key(m->missing, (int)m->missing_is_return));
    if (slot->key == 0) {
        rule_make(slot, m->missing, (int)m->missing_is_return);
    }
    m->missing = 0;
}

/* --- life ----------------------------------------------------------------------------------------------------------------- */

pmt__mixed *
pmt__mixed_new(void)
{
    return pmt__pages_map_sparse(sizeof(pmt__mixed));
}

void
pmt__mixed_clear(pmt__mixed *m)
{
    m->native_count = m->python_count = m->count = m->known = m->trim = m->asked = 0;
    m->broken = 0;
    m->missing = 0;
    memset(m->ranges, 0, sizeof m->ranges);
    memset(m->known_places, 0, sizeof m->known_places);
}

int
pmt__natives_create(const void *library)
{
    if (!pmt__unwind_supported()) {
        return PMT_ERR_UNSUPPORTED;
    }
    uint32_t generation = N.generation;
    memset(&N, 0, sizeof N);
    N.rules = pmt__pages_map_sparse(sizeof *N.rules << RULE_BITS);
    N.places = pmt__pages_map_sparse(sizeof *N.places * PLACES_MAX);
    N.objects = pmt__pages_map_sparse(sizeof *N.objects * OBJECTS_MAX);
    N.place_hash = pmt__pages_map(sizeof *N.place_hash * FIRST_PLACE_HASH);
    N.place_hash_mask = FIRST_PLACE_HASH - 1;
    N.place_count = N.object_count = N.objects_flushed = 1;
    static const pmt__text lost = {PMT_UNKNOWN_NATIVE, sizeof PMT_UNKNOWN_NATIVE - 1, 1};
    N.lost_name = pmt__string_intern_nopy(&lost);
    N.generation = generation + 1;
    N.page = pmt__page_size();
    N.library = (uint64_t)(uintptr_t)library;
    if (N.rules == NULL || N.places == NULL || N.objects == NULL || N.place_hash == NULL
        || N.lost_name == 0) {
        pmt__natives_dispose();
        return PMT_ERR_NOMEM;
    }
    N.on = 1;
    pmt__t.mixed = 1;
    return 0;
}

void
pmt__natives_dispose(void)
{
    uint32_t generation = N.generation;
    pmt__pages_unmap(N.rules, sizeof *N.rules << RULE_BITS);
    pmt__pages_unmap(N.places, sizeof *N.places * PLACES_MAX);
    pmt__pages_unmap(N.objects, sizeof *N.objects * OBJECTS_MAX);
    pmt__pages_unmap(N.place_hash, sizeof *N.place_hash * (N.place_hash_mask + 1));
    memset(&N, 0, sizeof N);
    N.generation = generation;
}

static void
rules_drop(void)
{
    pmt__pages_discard(N.rules, sizeof *N.rules << RULE_BITS);
    N.rule_count = 0;
    __atomic_fetch_add(&N.generation, 1, __ATOMIC_RELEASE);
}

void
pmt__natives_forget_nopy(void)
{
    if (N.on) {
        for (uint32_t i = 1; i < N.object_count; i++) {
            N.objects[i].start = N.objects[i].end = 0;
        }
        rules_drop();
    }
}

void
pmt__natives_tidy_nopy(void)
{
    if (N.on && N.rule_count >= RULES_MAX) {
        rules_drop();
    }
}

void
pmt__natives_forked_nopy(void)
{
    N.objects_flushed = 1;
}

uint64_t
pmt__natives_bytes(void)
{
    return !N.on ? 0
                 : (uint64_t)N.rule_count * sizeof *N.rules
                       + (uint64_t)N.place_count * sizeof *N.places
                       + (uint64_t)N.object_count * sizeof *N.objects
                       + ((uint64_t)N.place_hash_mask + 1) * sizeof *N.place_hash;
}
