#include "record/cut.h"

#include <string.h>

#include "base/varint.h"
#include "platform/platform.h"
#include "record/lane.h"
#include "record/mixed.h"
#include "record/sample.h"
#include "record/tables.h"

static pmt__mark marks[PMT_MARKS_PER_CUT]; /* Protected by the tables */
static uint32_t mark_count;                /* Protected by the tables */

void
pmt__cut_init(pmt__cut *cut)
{
    memset(cut, 0, sizeof *cut);
    pmt__buffer *buffers[] = {&cut->rows,      &cut->strings, &cut->codes,  &cut->nodes,
                              &cut->sites,     &cut->threads, &cut->marks,  &cut->site_facts,
                              &cut->lifetimes, &cut->objects, &cut->samples};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) {
        pmt__buffer_init(buffers[i]);
    }
    mark_count = 0;
}

static void
keys_dispose(pmt__cut *cut)
{
    pmt__pages_unmap(cut->keys[0], cut->capacity * sizeof(uint64_t));
    pmt__pages_unmap(cut->keys[1], cut->capacity * sizeof(uint64_t));
    cut->keys[0] = cut->keys[1] = NULL;
    cut->capacity = 0;
}

void
pmt__cut_dispose(pmt__cut *cut)
{
    keys_dispose(cut);
    pmt__buffer *buffers[] = {&cut->rows,      &cut->strings, &cut->codes,  &cut->nodes,
                              &cut->sites,     &cut->threads, &cut->marks,  &cut->site_facts,
                              &cut->lifetimes, &cut->objects, &cut->samples};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) {
        pmt__buffer_dispose(buffers[i]);
    }
}

uint64_t
pmt__mark_nopy(const pmt__text *label)
{
    pmt__lanes_count_nopy(); /* what happened before it */
    uint64_t ended = pmt__t.epoch;
    if (mark_count < PMT_MARKS_PER_CUT) {
        marks[mark_count++] = (pmt__mark){ended, pmt__clock_mono_ns() - pmt__t.start_ns,
                                          pmt__string_intern_nopy(label)};
    }
    pmt__epoch_next_nopy();
    pmt__t.stamp++; /* see pmt__life_note */
    return ended;
}

void
pmt__mark_fork_nopy(uint64_t epoch)
{
    static const pmt__text label = {"fork", 4, 1};
    marks[mark_count++] = (pmt__mark){epoch, 0, pmt__string_intern_nopy(&label)};
}

/* --- taking ------------------------------------------------------------------------------------------------------------ */

enum {
    ROW_MAX = 10 * PMT_VARINT_MAX
}; /* bytes */

static int
rows_reserve(pmt__cut *cut, uint32_t count)
{
    if (count > cut->capacity) {
        keys_dispose(cut);
        uint32_t capacity = count + count / 4 + 1024;
        cut->keys[0] = pmt__pages_map(capacity * sizeof(uint64_t));
        cut->keys[1] = pmt__pages_map(capacity * sizeof(uint64_t));
        cut->capacity = capacity;
        if (cut->keys[0] == NULL || cut->keys[1] == NULL) {
            keys_dispose(cut);
            return -1;
        }
    }
    /* half of them at their usual length; it grows when it must */
    return pmt__buffer_reserve(&cut->rows, (size_t)count * 6 + ROW_MAX) == NULL ? -1 : 0;
}

/* Starts a cohort's next interval and puts what it did in this one into a row. */
static void
row_take(pmt__cut *cut, uint32_t id)
{
    pmt__cohort *cohort = &pmt__t.cohorts[id];
    const pmt__peak *peak = &pmt__t.peaks[0];
    if (pmt__t.epoch != pmt__t.span_epoch) {
        pmt__life_note_slow_nopy(id);
    }
    cohort->site &= ~PMT_COHORT_DIRTY;
    int moved = peak->moved || peak->growing;
    int noted = moved && !peak->growing && peak->notes[id].run == peak->run;
    uint64_t frees = cohort->allocs + pmt__t.live_at_cut[id] - cohort->live;
    int64_t peak_blocks = noted ? (int64_t)peak->notes[id].live - (int64_t)cohort->live : 0;
    uint64_t alloc_bytes = cohort->allocs * cohort->size;

    uint8_t *start = pmt__buffer_reserve(&cut->rows, 1 + ROW_MAX);
    if (start == NULL) {
        return; /* the buffer has failed, and with it this cut */
    }
    uint8_t *at = pmt__varint_put(start + 1, pmt__t.epoch - cohort->epoch);
    at = pmt__varint_put(at, cohort->allocs);
    at = pmt__varint_put(at, frees);
    at = pmt__varint_put(at, cohort->temporaries);
    if (cohort->size & PMT_COHORT_SIZELESS) {
        pmt__large *large = &pmt__t.large[cohort->size & ~PMT_COHORT_SIZELESS];
        alloc_bytes = large->alloc_bytes;
        at = pmt__varint_put(at, large->alloc_bytes);
        at = pmt__varint_put(at, large->alloc_bytes + large->live_bytes_at_cut - large->live_bytes);
        at = pmt__varint_put(at, large->temporary_bytes);
        if (moved) {
            at = pmt__varint_put(at, pmt__zigzag(peak_blocks));
            at = pmt__varint_put(
                at,
                pmt__zigzag(noted ? (int64_t)large->peak_bytes - (int64_t)large->live_bytes : 0));
        }
        large->alloc_bytes = 0;
        large->temporary_bytes = 0;
        large->live_bytes_at_cut = large->live_bytes;
    } else if (moved) {
        at = pmt__varint_put(at, pmt__zigzag(peak_blocks));
    }
    *start = (uint8_t)(at - start - 1);
    cut->keys[0][cut->row_count++] = (uint64_t)cohort->site << 32 | (uint32_t)cut->rows.len;
    cut->rows.len += (size_t)(at - start);

    cut->allocations += cohort->allocs;
    cut->frees += frees;
    cut->allocated_bytes += alloc_bytes;
    cut->blocks_at_peak += peak_blocks;
    cohort->allocs = 0;
    cohort->temporaries = 0;
    pmt__t.live_at_cut[id] = cohort->live;
}

/* Nobody refers to a cohort without live blocks whose epoch is over: its id can stand for another one. */
void
pmt__cohort_recycle_nopy(uint32_t id)
{
    pmt__cohort *cohort = &pmt__t.cohorts[id];
    if (cohort->live != 0 || cohort->epoch == pmt__t.epoch) {
        return;
    }
    pmt__site *site = &pmt__t.sites[cohort->site];
    if (site->cohort == id) {
        site->cohort = 0;
    }
    if (cohort->size & PMT_COHORT_SIZELESS) {
        uint32_t index = cohort->size & ~PMT_COHORT_SIZELESS;
        pmt__t.large[index].live_bytes = pmt__t.large_free;
        pmt__t.large_free = index;
    }
    cohort->site = 0;
    cohort->live = pmt__t.cohort_free;
    pmt__t.cohort_free = id;
}

static void
native_node_put(pmt__cut *cut, uint32_t id, const pmt__node *node)
{
    const pmt__native_place *place = &pmt__natives_now.places[node->place & ~PMT_PLACE_NATIVE];
    int lost = node->place == PMT_PLACE_LOST;
    pmt__buffer_put_varint(&cut->nodes, lost ? PMT_NODE_SYNTHETIC : PMT_NODE_NATIVE);
    pmt__buffer_put_varint(&cut->nodes, id - node->parent);
    if (lost) {
        pmt__buffer_put_varint(&cut->nodes, pmt__natives_now.lost_name);
    } else {
        pmt__buffer_put_varint(&cut->nodes, pmt__natives_now.objects[place->object].path);
        pmt__buffer_put_varint(&cut->nodes, place->offset);
    }
}

/* The objects of the native frames. */
static void
objects_take(pmt__cut *cut)
{
    pmt__natives *natives = &pmt__natives_now;
    cut->object_count = natives->object_count - natives->objects_flushed;
    for (uint32_t i = natives->objects_flushed; i < natives->object_count; i++) {
        const pmt__native_object *object = &natives->objects[i];
        pmt__buffer_put_varint(&cut->objects, object->path);
        pmt__buffer_put_text(&cut->objects, (const char *)object->build_id, object->build_id_size);
    }
    natives->objects_flushed = natives->object_count;
}

static void
nodes_take(pmt__cut *cut)
{
    cut->node_first = pmt__t.node_flushed;
    cut->node_count = pmt__t.node_count - pmt__t.node_flushed;
    for (uint32_t id = pmt__t.node_flushed; id < pmt__t.node_count; id++) {
        const pmt__node *node = &pmt__t.nodes[id];
        if (id < PMT_NODE_FIRST) { /* synthetic: string id = node id */
            pmt__buffer_put_varint(&cut->nodes, PMT_NODE_SYNTHETIC);
            pmt__buffer_put_varint(&cut->nodes, id);
            pmt__buffer_put_varint(&cut->nodes, id);
            continue;
        }
        if (PMT_PLACE_IS_NATIVE(node->place)) {
            native_node_put(cut, id, node);
            continue;
        }
        uint32_t code = pmt__t.code_of[node->place / PMT_PLACE_BLOCK];
        uint64_t offset = (uint64_t)(node->place - pmt__t.codes[code].first) * 2;
        uint8_t *at = pmt__buffer_reserve(&cut->nodes, 4 * PMT_VARINT_MAX);
        if (at == NULL) {
            break;
        }
        at = pmt__varint_put(at, PMT_NODE_PYTHON);
        at = pmt__varint_put(at, id - node->parent);
        at = pmt__varint_put(at, code);
        at = pmt__varint_put(at, offset + 1);
        cut->nodes.len = (size_t)(at - cut->nodes.data);
    }
    pmt__t.node_flushed = pmt__t.node_count;
}

#define SITE_SIZE_BITS 10

/* How sure the estimates of a sampled recording are: what changed, by site. */
static void
samples_take(pmt__cut *cut)
{
    pmt__sampling *sampling = &pmt__sampling_now;
    const pmt__peak *peak = &pmt__t.peaks[0];
    cut->sample_mean = sampling->mean;
    cut->sample_count = sampling->dirty_count;
    int64_t before = 0;
    for (uint32_t i = 0; i < sampling->dirty_count; i++) {
        uint32_t id = sampling->dirty[i];
        pmt__sample_site *site = &sampling->sites[id];
        pmt__sample_sums correction = {0};
        if (cut->peak_moved && !peak->growing && site->run == peak->run) {
            correction = site->at_peak;
            pmt__sample_sums_add(&correction, &site->allocs, -1);
            pmt__sample_sums_add(&correction, &site->frees, 1);
        }
        pmt__buffer_put_zigzag(&cut->samples, (int64_t)id - before);
        pmt__sample_sums_put(&cut->samples, &site->allocs);
        pmt__sample_sums_put(&cut->samples, &site->frees);
        if (cut->peak_moved) {
            pmt__sample_sums_put(&cut->samples, &correction);
        }
        before = id;
        memset(site, 0, sizeof *site);
    }
    sampling->dirty_count = 0;
}

static void
sites_take(pmt__cut *cut)
{
    if (cut->site_facts.len == 0) {
        pmt__buffer_put(&cut->site_facts, "\0", 2); /* ids start at 1 */
    }
    cut->site_first = pmt__t.site_flushed;
    cut->site_count = pmt__t.site_count - pmt__t.site_flushed;
    int64_t before = 0;
    for (uint32_t id = pmt__t.site_flushed; id < pmt__t.site_count; id++) {
        const pmt__site *site = &pmt__t.sites[id];
        uint8_t *at = pmt__buffer_reserve(&cut->sites, 4 * PMT_VARINT_MAX);
        if (at == NULL) {
            break;
        }
        at = pmt__varint_put(at, pmt__zigzag((int64_t)site->node - before));
        at = pmt__varint_put(at, site->size);
        at = pmt__varint_put(at, site->thread >> PMT_THREAD_BITS);
        at = pmt__varint_put(at, site->thread & ((1u << PMT_THREAD_BITS) - 1));
        cut->sites.len = (size_t)(at - cut->sites.data);
        before = site->node;
        uint16_t fact = (uint16_t)(site->size | site->thread >> PMT_THREAD_BITS << SITE_SIZE_BITS);
        pmt__buffer_put(&cut->site_facts, &fact, sizeof fact);
    }
    pmt__t.site_flushed = pmt__t.site_count;
}

static void
threads_take(pmt__cut *cut)
{
    for (pmt__thread *t = pmt__t.threads; t != NULL; t = t->next) {
        if (t->ended == 2) {
            continue;
        }
        pmt__buffer_put_varint(&cut->threads, t->id);
        pmt__buffer_put_varint(&cut->threads, t->native_id);
        pmt__buffer_put_varint(&cut->threads, t->ident);
        pmt__buffer_put_varint(&cut->threads,
                               t->birth_ns > pmt__t.start_ns ? t->birth_ns - pmt__t.start_ns : 0);
        pmt__buffer_put_varint(&cut->threads, t->name);
        pmt__buffer_put_varint(&cut->threads, t->ended != 0);
        pmt__buffer_put_varint(&cut->threads, 0); /* the main interpreter */
        cut->thread_count++;
        if (t->ended == 1) {
            t->ended = 2;
            if (pmt__t.thread == t) {
                pmt__t.thread = NULL;
            }
        }
    }
    pmt__t.threads_changed = 0;
}

/* There is room: see names_reserve. */
static void
body_take(pmt__buffer *body, pmt__buffer *all, size_t *flushed)
{
    if (pmt__t.names_kept) {
        pmt__buffer_put(body, all->data + *flushed, all->len - *flushed);
        *flushed = all->len;
    } else {
        pmt__buffer swap = *body;
        *body = *all;
        *all = swap;
    }
}

static int
names_reserve(pmt__cut *cut)
{
    if (!pmt__t.names_kept) {
        return 0;
    }
    const size_t strings = pmt__t.new_strings.len - pmt__t.string_bytes_flushed;
    const size_t codes = pmt__t.new_codes.len - pmt__t.code_bytes_flushed;
    return pmt__buffer_reserve(&cut->strings, strings) == NULL
                   || pmt__buffer_reserve(&cut->codes, codes) == NULL
               ? -1
               : 0;
}

static void
names_take(pmt__cut *cut)
{
    cut->string_first = pmt__t.string_flushed + 1;
    cut->string_count = pmt__t.string_count - pmt__t.string_flushed;
    cut->code_first = pmt__t.code_flushed;
    cut->code_count = pmt__t.code_count - pmt__t.code_flushed;
    body_take(&cut->strings, &pmt__t.new_strings, &pmt__t.string_bytes_flushed);
    body_take(&cut->codes, &pmt__t.new_codes, &pmt__t.code_bytes_flushed);
    pmt__t.string_flushed = pmt__t.string_count;
    pmt__t.code_flushed = pmt__t.code_count;
}

static void
lifetimes_take(pmt__cut *cut)
{
    pmt__buffer swap = cut->lifetimes;
    cut->lifetimes = pmt__t.new_lifetimes;
    pmt__t.new_lifetimes = swap;
    /* Without memory for all of them there are none: the rows count by their own ages. */
    cut->lifetime_count = cut->lifetimes.failed ? 0 : pmt__t.lifetime_count;
    pmt__t.lifetime_count = pmt__t.lifetime_site = pmt__t.lifetime_birth = 0;
}

static void
marks_take(pmt__cut *cut)
{
    cut->mark_count = mark_count;
    for (uint32_t i = 0; i < mark_count; i++) {
        pmt__buffer_put_varint(&cut->marks, marks[i].epoch);
        pmt__buffer_put_varint(&cut->marks, marks[i].t_ns);
        pmt__buffer_put_varint(&cut->marks, marks[i].label);
    }
    mark_count = 0;
}

/* Where a reading of the counter since the last cut lies between the two cuts. */
static uint64_t
t_of_ticks(const pmt__cut *cut, uint64_t ticks)
{
    uint64_t from = cut->last_ticks != 0 ? cut->last_ticks : pmt__t.start_ticks;
    uint64_t now = pmt__ticks();
    uint64_t start_ns = cut->t_ns - cut->span_ns;
    if (ticks <= from || now <= from) {
        return start_ns;
    }
    double share = (double)(ticks - from) / (double)(now - from);
    return start_ns + (uint64_t)(share * (double)cut->span_ns);
}

static void
totals_take(pmt__cut *cut)
{
    pmt__peak *peak = &pmt__t.peaks[0];
    cut->number = pmt__t.cut;
    cut->t_ns = pmt__clock_mono_ns() - pmt__t.start_ns;
    cut->span_ns = cut->t_ns - cut->last_t_ns;
    cut->last_t_ns = cut->t_ns;
    cut->unix_ns = pmt__clock_unix_ns();
    cut->epoch = pmt__t.epoch;
    cut->live_bytes = pmt__t.live_bytes;
    cut->peak_moved = peak->moved || peak->growing;
    if (peak->growing) {
        peak->bytes = pmt__t.live_bytes;
    }
    if (cut->peak_moved) {
        cut->peak_t_ns = peak->growing ? cut->t_ns : t_of_ticks(cut, peak->ticks);
    }
    cut->last_ticks = pmt__ticks();
    cut->peak_bytes = peak->bytes;
    cut->live_blocks = cut->allocations - cut->frees;
    if (cut->peak_moved) {
        cut->peak_blocks = (uint64_t)((int64_t)cut->live_blocks + cut->blocks_at_peak);
    }
    peak->moved = peak->growing;
    memcpy(cut->counters, pmt__t.counters, sizeof pmt__t.counters);
    memcpy(cut->size_allocs, pmt__t.size_allocs, sizeof cut->size_allocs);
    memcpy(cut->size_bytes, pmt__t.size_bytes, sizeof cut->size_bytes);
    memset(pmt__t.size_allocs, 0, sizeof pmt__t.size_allocs);
    memset(pmt__t.size_bytes, 0, sizeof pmt__t.size_bytes);
    cut->table_bytes = pmt__tables_bytes();
}

static void
bodies_clear(pmt__cut *cut)
{
    pmt__buffer_clear(&cut->rows);
    pmt__buffer_clear(&cut->strings);
    pmt__buffer_clear(&cut->codes);
    pmt__buffer_clear(&cut->nodes);
    pmt__buffer_clear(&cut->sites);
    pmt__buffer_clear(&cut->threads);
    pmt__buffer_clear(&cut->marks);
    pmt__buffer_clear(&cut->lifetimes);
    pmt__buffer_clear(&cut->objects);
    pmt__buffer_clear(&cut->samples);
    cut->row_count = cut->thread_count = cut->mark_count = cut->object_count = 0;
    cut->sample_count = 0;
    cut->blocks_at_peak = 0;
}

int
pmt__cut_take(pmt__cut *cut)
{
    pmt__lanes_count_nopy();
    pmt__lanes_sweep_nopy();
    pmt__natives_tidy_nopy();
    bodies_clear(cut);
    if (rows_reserve(cut, pmt__t.dirty_count) < 0 || names_reserve(cut) < 0) {
        return -1;
    }
    /* the rows need the peak's state as it was before totals_take ends the interval */
    for (uint32_t i = 0; i < pmt__t.dirty_count; i++) {
        row_take(cut, pmt__t.dirty[i]);
    }
    totals_take(cut);
    nodes_take(cut);
    if (pmt__natives_now.on) {
        objects_take(cut);
    }
    sites_take(cut);
    cut->sample_mean = 0;
    if (pmt__sampling_now.on) {
        samples_take(cut);
    }
    if (pmt__t.threads_changed) {
        threads_take(cut);
    }
    names_take(cut);
    lifetimes_take(cut);
    marks_take(cut);
    pmt__t.cut++;
    pmt__t.stamp++;
    if (pmt__t.cut % pmt__t.cuts_per_epoch == 0) {
        pmt__epoch_next_nopy();
    }
    pmt__t.span_epoch = pmt__t.epoch;
    for (uint32_t i = 0; i < pmt__t.dirty_count; i++) {
        pmt__cohort_recycle_nopy(pmt__t.dirty[i]);
    }
    pmt__t.dirty_count = 0;
    if (pmt__t.source != NULL && pmt__t.source->gc_counts_nopy != NULL) {
        pmt__t.source->gc_counts_nopy(cut->gc);
    }
    return 0;
}

void
pmt__cut_live(pmt__cut *cut)
{
    for (uint32_t i = 0; i < cut->row_count && !cut->site_facts.failed; i++) {
        uint64_t key = cut->keys[0][i];
        uint16_t fact;
        if ((key >> 32) >= cut->site_facts.len / sizeof fact) {
            continue;
        }
        memcpy(&fact, cut->site_facts.data + (key >> 32) * sizeof fact, sizeof fact);
        uint64_t size = fact & ((1u << SITE_SIZE_BITS) - 1);
        const uint8_t *at = cut->rows.data + (uint32_t)key, *end = at + 1 + *at;
        enum {
            AGE,
            ALLOCS,
            FREES,
            TEMPORARIES,
            ALLOC_BYTES,
            FREE_BYTES,
            FIELDS
        };
        uint64_t field[FIELDS] = {0};
        at++;
        for (int f = 0; f < (size == PMT_SIZE_LARGE ? FIELDS : TEMPORARIES); f++) {
            at = pmt__varint_get(at, end, &field[f]);
            if (at == NULL) {
                break;
            }
        }
        uint64_t *live = cut->live_by[(fact >> SITE_SIZE_BITS) % PMT_DOMAIN_COUNT];
        if (size == PMT_SIZE_LARGE) {
            live[1] += field[ALLOC_BYTES] - field[FREE_BYTES];
        } else {
            live[0] += (field[ALLOCS] - field[FREES]) * size;
        }
    }
}

/* --- encoding ------------------------------------------------------------------------------------------------------------ */

static uint64_t
row_age(const pmt__cut *cut, uint64_t key)
{
    const uint8_t *row = cut->rows.data + (uint32_t)key;
    uint64_t age = 0;
    pmt__varint_get(row + 1, row + 1 + *row, &age);
    return age;
}

/* Least significant digit first, 11 bits at a time, over the site's half of the keys. Rows of one site stay in the order in
   which they were touched; they are put in order of birth afterwards. */
static uint64_t *
keys_sort(pmt__cut *cut)
{
    enum {
        DIGIT = 11,
        BUCKETS = 1 << DIGIT
    };
    uint64_t *from = cut->keys[0], *to = cut->keys[1];
    static uint32_t starts[BUCKETS]; /* owned by the writer */
    for (int shift = 32; shift < 64; shift += DIGIT) {
        memset(starts, 0, sizeof starts);
        for (uint32_t i = 0; i < cut->row_count; i++) {
            starts[from[i] >> shift & (BUCKETS - 1)]++;
        }
        uint32_t sum = 0;
        for (int b = 0; b < BUCKETS; b++) {
            uint32_t n = starts[b];
            starts[b] = sum;
            sum += n;
        }
        for (uint32_t i = 0; i < cut->row_count; i++) {
            to[starts[from[i] >> shift & (BUCKETS - 1)]++] = from[i];
        }
        uint64_t *swap = from;
        from = to;
        to = swap;
    }
    for (uint32_t i = 1; i < cut->row_count; i++) { /* few rows per site: insertion, oldest first */
        uint64_t key = from[i];
        uint32_t at = i;
        while (at > 0 && from[at - 1] >> 32 == key >> 32
               && row_age(cut, from[at - 1]) < row_age(cut, key)) {
            from[at] = from[at - 1];
            at--;
        }
        from[at] = key;
    }
    return from;
}

static void
section_with_ids(pmt__buffer *payload, pmt__buffer *scratch, uint8_t kind, uint32_t first,
                 uint32_t count, const pmt__buffer *body)
{
    if (count == 0) {
        return;
    }
    pmt__buffer_clear(scratch);
    if (first != 0) {
        pmt__buffer_put_varint(scratch, first);
    }
    pmt__buffer_put_varint(scratch, count);
    pmt__buffer_put(scratch, body->data, body->len);
    scratch->failed |= body->failed;
    payload->failed |= scratch->failed;
    pmt__section_put(payload, kind, scratch);
}

static void
cut_section(pmt__cut *cut, pmt__buffer *out, uint32_t flags, uint64_t rss_bytes, uint64_t own_bytes)
{
    const uint64_t head[] = {
        cut->number,
        cut->t_ns,
        cut->span_ns,
        cut->unix_ns,
        flags,
        cut->epoch,
        cut->live_bytes,
        cut->live_blocks,
        cut->allocations - cut->inherited_blocks,
        cut->frees,
        cut->allocated_bytes - cut->inherited_bytes,
        cut->peak_bytes,
        cut->peak_blocks,
        cut->peak_t_ns,
        rss_bytes,
        cut->gc[0],
        cut->gc[1],
        cut->gc[2],
        own_bytes,
    };
    for (size_t i = 0; i < sizeof head / sizeof *head; i++) {
        pmt__buffer_put_varint(out, head[i]);
    }
    uint32_t used = 0;
    for (uint32_t i = 1; i < PMT_COUNTER_LIMIT; i++) {
        used += cut->counters[i] != 0;
    }
    pmt__buffer_put_varint(out, used);
    for (uint32_t i = 1; i < PMT_COUNTER_LIMIT; i++) {
        if (cut->counters[i] != 0) {
            pmt__buffer_put_varint(out, i);
            pmt__buffer_put_varint(out, cut->counters[i]);
        }
    }
    const uint64_t *keys = keys_sort(cut);
    pmt__buffer_put_varint(out, cut->row_count);
    uint32_t before = 0;
    for (uint32_t i = 0; i < cut->row_count; i++) {
        const uint8_t *row = cut->rows.data + (uint32_t)keys[i];
        uint32_t site = (uint32_t)(keys[i] >> 32);
        pmt__buffer_put_varint(out, site - before);
        pmt__buffer_put(out, row + 1, *row);
        before = site;
    }
}

static void
sizes_section(const pmt__cut *cut, pmt__buffer *payload, pmt__buffer *scratch)
{
    uint32_t count = 0;
    for (uint32_t b = 0; b < 64; b++) {
        count += cut->size_allocs[b] != 0;
    }
    if (count == 0) {
        return;
    }
    pmt__buffer_clear(scratch);
    pmt__buffer_put_varint(scratch, count);
    for (uint32_t b = 0; b < 64; b++) {
        if (cut->size_allocs[b] != 0) {
            pmt__buffer_put_varint(scratch, b);
            pmt__buffer_put_varint(scratch, cut->size_allocs[b]);
            pmt__buffer_put_varint(scratch, cut->size_bytes[b]);
        }
    }
    pmt__section_put(payload, PMT_SECTION_SIZES, scratch);
}

/* The first cuts of a program hold everything it has; the later ones need a fraction of that memory. */
static void
buffers_shrink(pmt__cut *cut)
{
    enum {
        KEEP = 256 << 10
    };
    if (cut->capacity > KEEP / sizeof(uint64_t)) {
        keys_dispose(cut);
    }
    pmt__buffer *buffers[] = {&cut->rows,  &cut->strings, &cut->codes,
                              &cut->nodes, &cut->sites,   &cut->lifetimes};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) {
        if (buffers[i]->cap > KEEP) {
            pmt__buffer_dispose(buffers[i]);
            pmt__buffer_init(buffers[i]);
        }
    }
}

void
pmt__cut_encode(pmt__cut *cut, pmt__buffer *payload, uint32_t flags, uint64_t rss_bytes,
                uint64_t own_bytes)
{
    pmt__buffer scratch;
    pmt__buffer_init(&scratch);
    section_with_ids(payload, &scratch, PMT_SECTION_STRINGS, cut->string_first, cut->string_count,
                     &cut->strings);
    section_with_ids(payload, &scratch, PMT_SECTION_CODES, cut->code_first, cut->code_count,
                     &cut->codes);
    section_with_ids(payload, &scratch, PMT_SECTION_NODES, cut->node_first, cut->node_count,
                     &cut->nodes);
    section_with_ids(payload, &scratch, PMT_SECTION_OBJECTS, 0, cut->object_count, &cut->objects);
    section_with_ids(payload, &scratch, PMT_SECTION_SITES, cut->site_first, cut->site_count,
                     &cut->sites);
    section_with_ids(payload, &scratch, PMT_SECTION_THREADS, 0, cut->thread_count, &cut->threads);
    section_with_ids(payload, &scratch, PMT_SECTION_MARKS, 0, cut->mark_count, &cut->marks);
    section_with_ids(payload, &scratch, PMT_SECTION_LIFETIMES, 0, cut->lifetime_count,
                     &cut->lifetimes);
    if (cut->sample_mean != 0) {
        pmt__buffer_clear(&scratch);
        pmt__buffer_put_varint(&scratch, cut->sample_mean);
        pmt__buffer_put_varint(&scratch, cut->peak_moved != 0);
        pmt__buffer_put_varint(&scratch, cut->sample_count);
        pmt__buffer_put(&scratch, cut->samples.data, cut->samples.len);
        payload->failed |= scratch.failed | cut->samples.failed;
        pmt__section_put(payload, PMT_SECTION_SAMPLES, &scratch);
    }
    sizes_section(cut, payload, &scratch);
    pmt__buffer_clear(&scratch);
    cut_section(cut, &scratch, flags | (cut->peak_moved ? PMT_CUT_PEAK_MOVED : 0u), rss_bytes,
                own_bytes);
    payload->failed |= scratch.failed | cut->rows.failed;
    pmt__section_put(payload, PMT_SECTION_CUT, &scratch);
    pmt__buffer_dispose(&scratch);
    buffers_shrink(cut);
}
