#include "analyze/lives.h"

#include <string.h>

#include "analyze/stats.h"
#include "base/error.h"
#include "base/index.h"

#define SECOND_NS UINT64_C(1000000000)
#define BUCKETS_MAX 240 /* about as many as the report has room to show */

typedef struct collector {
    pmt__lives *lives;
    const pmt_aggregate *aggregate;
    const pmt_reader *reader;
    pmt__epochs epochs;
    pmt__index index;
    const uint32_t *stacks; /* borrowed, or NULL: what they are called in the list */
    size_t max_rows;
    size_t end_cut;
    uint64_t offset_ns; /* of the capture's start on the axis */
} collector;

static uint16_t
bucket_of(const collector *self, uint64_t start_ns, uint64_t end_ns)
{
    const pmt__lives *lives = self->lives;
    uint64_t middle_ns = start_ns + (end_ns - start_ns) / 2;
    uint64_t bucket = (self->offset_ns + middle_ns) / lives->width_ns;
    return (uint16_t)(bucket < lives->bucket_count ? bucket : lives->bucket_count - 1);
}

static uint64_t
hash_of(const pmt__life *life)
{
    return pmt__hash_pair((uint64_t)life->stack << 32 | life->thread,
                          (uint64_t)life->birth << 16 | life->death);
}

/* Adds the values to the row with the same key, or to the first free place of the list, which has room
   for it. */
static int
put(collector *self, const pmt__life *life)
{
    pmt__lives *lives = self->lives;
    uint64_t hash = hash_of(life);
    pmt__index_walk walk;
    uint32_t at = pmt__index_first(&walk, &self->index, hash);
    for (; at != PMT_INDEX_NONE; at = pmt__index_next(&walk)) {
        pmt__life *other = &lives->list.data[at];
        if (other->stack == life->stack && other->thread == life->thread
            && other->birth == life->birth && other->death == life->death) {
            other->bytes += life->bytes;
            other->blocks += life->blocks;
            return PMT_OK;
        }
    }
    at = (uint32_t)lives->list.len;
    if (!pmt__index_add(&self->index, hash, at)
        || !PMT__VEC_PUSH(lives->allocator, &lives->list, *life)) {
        return PMT_ERR_NOMEM;
    }
    return PMT_OK;
}

/* Makes the buckets twice as wide: each two become one, so that no row has to be read again. */
static int
coarsen(collector *self)
{
    pmt__lives *lives = self->lives;
    lives->width_ns *= 2;
    lives->bucket_count = (lives->bucket_count + 1) / 2;
    size_t count = lives->list.len;
    lives->list.len = 0;
    pmt__index_clear(&self->index);
    for (size_t i = 0; i < count; i++) {
        pmt__life life = lives->list.data[i];
        life.birth /= 2;
        if (life.death != PMT_LIFE_ALIVE) {
            life.death /= 2;
        }
        /* Never more rows than were read, so this writes over rows that are done with. */
        int result = put(self, &life);
        if (result < 0) {
            return result;
        }
    }
    return PMT_OK;
}

/* 1, 0 when there are too many rows even with one bucket, or PMT_ERR_NOMEM. */
static int
add(collector *self, const pmt__life *life)
{
    int result = put(self, life);
    while (result == PMT_OK && self->lives->list.len > self->max_rows) {
        if (self->lives->bucket_count == 1) {
            return 0;
        }
        result = coarsen(self);
    }
    return result == PMT_OK ? 1 : result;
}

/* Where the row's blocks were born and where those that it frees died. Asked for anew for each row that
   is added, because adding can change the buckets. */
static void
place(const collector *self, size_t cut, const pmt__row *row, uint16_t *birth, uint16_t *death)
{
    const pmt__epoch *born = &self->epochs.list.data[pmt__epochs_find(&self->epochs, row->birth)];
    uint64_t start_ns = cut == 0 ? 0 : self->reader->cuts.data[cut - 1].t_ns;
    *birth = bucket_of(self, born->start_ns, born->end_ns);
    *death = bucket_of(self, start_ns, self->reader->cuts.data[cut].t_ns);
    /* An epoch of several cuts has one place on the axis, which can lie behind a death in it. */
    *death = *death < *birth ? *birth : *death;
}

static int
add_row(collector *self, size_t cut, const pmt__row *row)
{
    const pmt__stored_site *site = &self->reader->sites.data[row->site];
    if (!pmt__selection_has(&self->aggregate->selection, site)) {
        return 1;
    }
    uint32_t stack = self->stacks == NULL ? site->stack : self->stacks[site->stack];
    bool dies = row->frees != 0 && cut <= self->end_cut;
    uint16_t birth;
    uint16_t death;
    int result = 1;
    if (dies) {
        place(self, cut, row, &birth, &death);
        const pmt__life dead = {stack, site->thread, birth, death, row->free_bytes, row->frees};
        result = add(self, &dead);
    }
    /* What is left; together with the cuts that follow it cannot be less than nothing. */
    uint64_t bytes = row->alloc_bytes - (dies ? row->free_bytes : 0);
    uint64_t blocks = row->allocs - (dies ? row->frees : 0);
    if (result == 1 && (bytes | blocks) != 0) {
        place(self, cut, row, &birth, &death);
        const pmt__life alive = {stack, site->thread, birth, PMT_LIFE_ALIVE, bytes, blocks};
        result = add(self, &alive);
    }
    return result;
}

static int
add_cuts(collector *self)
{
    int result = 1;
    for (size_t cut = 0; cut < self->reader->cuts.len && result == 1; cut++) {
        pmt__row_walk walk;
        pmt__row row;
        pmt__rows_begin(&walk, self->reader, cut, NULL);
        while (result == 1 && pmt__rows_next(&walk, &row)) {
            if (row.birth > self->aggregate->selection.window.exclude_epoch) {
                result = add_row(self, cut, &row);
            }
        }
    }
    return result;
}

/* Leaves out what nothing is left of, and what a capture that lies made negative. */
static void
drop_empty(pmt__lives *lives)
{
    size_t used = 0;
    for (size_t i = 0; i < lives->list.len; i++) {
        pmt__life life = lives->list.data[i];
        if (((life.bytes | life.blocks) != 0) && !(life.bytes >> 63) && !(life.blocks >> 63)) {
            lives->list.data[used++] = life;
        }
    }
    lives->list.len = used;
}

int
pmt__lives_init(pmt__lives *out, const pmt_aggregate *aggregate, size_t max_rows, pmt_error *err)
{
    const pmt_reader *reader = aggregate->reader;
    uint64_t duration_ns = reader->cuts.len == 0 ? 0 : reader->cuts.data[reader->cuts.len - 1].t_ns;
    return pmt__lives_init_at(out, aggregate, max_rows, NULL, 0, duration_ns, err);
}

int
pmt__lives_init_at(pmt__lives *out, const pmt_aggregate *aggregate, size_t max_rows,
                   const uint32_t *stacks, uint64_t offset_ns, uint64_t duration_ns, pmt_error *err)
{
    const pmt_reader *reader = aggregate->reader;
    memset(out, 0, sizeof *out);
    out->allocator = reader->allocator;
    out->width_ns = SECOND_NS;
    if (reader->cuts.len == 0) {
        return PMT_OK;
    }
    collector it = {.lives = out,
                    .aggregate = aggregate,
                    .reader = reader,
                    .stacks = stacks,
                    .max_rows = max_rows,
                    .end_cut = pmt_reader_end_cut(reader),
                    .offset_ns = offset_ns};
    int result = pmt__epochs_init(&it.epochs, reader, err);
    if (result < 0) {
        pmt__epochs_dispose(&it.epochs);
        return result;
    }
    pmt__index_init(&it.index, reader->allocator);
    while (duration_ns / out->width_ns >= BUCKETS_MAX) {
        out->width_ns *= 2;
    }
    out->bucket_count = (uint32_t)(duration_ns / out->width_ns + 1);
    result = add_cuts(&it);
    if (result == 0) {
        out->list.len = 0; /* the report then has no time window */
    }
    drop_empty(out);
    pmt__index_dispose(&it.index);
    pmt__epochs_dispose(&it.epochs);
    return result < 0 ? pmt__error_set(err, PMT_ERR_NOMEM, "out of memory") : PMT_OK;
}

void
pmt__lives_dispose(pmt__lives *self)
{
    if (self->allocator != NULL) {
        PMT__VEC_DISPOSE(self->allocator, &self->list);
    }
}
