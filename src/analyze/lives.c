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
    size_t max_rows;
} collector;

static uint16_t
bucket_of(const pmt__lives *lives, uint64_t start_ns, uint64_t end_ns)
{
    uint64_t bucket = (start_ns + (end_ns - start_ns) / 2) / lives->width_ns;
    return (uint16_t)(bucket < lives->bucket_count ? bucket : lives->bucket_count - 1);
}

/* 1, 0 when there would be too many rows, or PMT_ERR_NOMEM. */
static int
add(collector *self, const pmt__life *life)
{
    pmt__lives *lives = self->lives;
    uint64_t hash =
        pmt__hash_pair((uint64_t)life->stack << 32 | life->thread,
                       (uint64_t)life->birth << 16 | life->death);
    pmt__index_walk walk;
    uint32_t at = pmt__index_first(&walk, &self->index, hash);
    for (; at != PMT_INDEX_NONE; at = pmt__index_next(&walk)) {
        pmt__life *other = &lives->list.data[at];
        if (other->stack == life->stack && other->thread == life->thread
            && other->birth == life->birth && other->death == life->death) {
            other->bytes += life->bytes;
            other->blocks += life->blocks;
            return 1;
        }
    }
    if (lives->list.len >= self->max_rows) {
        return 0;
    }
    at = (uint32_t)lives->list.len;
    if (!pmt__index_add(&self->index, hash, at)
        || !PMT__VEC_PUSH(lives->allocator, &lives->list, *life)) {
        return PMT_ERR_NOMEM;
    }
    return 1;
}

static int
add_row(collector *self, size_t cut, const pmt__row *row)
{
    const pmt__site *site = &self->reader->sites.data[row->site];
    const pmt_aggregate *aggregate = self->aggregate;
    if ((aggregate->stacks != NULL && !aggregate->stacks[site->stack])
        || (aggregate->threads != NULL && !aggregate->threads[site->thread])) {
        return 1;
    }
    const pmt__epoch *born = &self->epochs.list.data[pmt__epochs_find(&self->epochs, row->birth)];
    uint64_t start_ns = cut == 0 ? 0 : self->reader->cuts.data[cut - 1].t_ns;
    uint16_t death = bucket_of(self->lives, start_ns, self->reader->cuts.data[cut].t_ns);
    uint16_t birth = bucket_of(self->lives, born->start_ns, born->end_ns);
    /* An epoch of several cuts has one place on the axis, which can lie behind a death in it. */
    death = death < birth ? birth : death;
    bool dies = row->frees != 0 && cut <= pmt_reader_end_cut(self->reader);
    pmt__life life = {site->stack, site->thread, birth, PMT_LIFE_ALIVE,
                      row->alloc_bytes - (dies ? row->free_bytes : 0),
                      row->allocs - (dies ? row->frees : 0)};
    int result = 1;
    if ((life.bytes | life.blocks) != 0) {
        result = add(self, &life);
    }
    if (result == 1 && dies) {
        life.death = death;
        life.bytes = row->free_bytes;
        life.blocks = row->frees;
        result = add(self, &life);
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
            result = add_row(self, cut, &row);
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
    memset(out, 0, sizeof *out);
    out->allocator = reader->allocator;
    out->width_ns = SECOND_NS;
    if (reader->cuts.len == 0) {
        return PMT_OK;
    }
    collector it = {.lives = out, .aggregate = aggregate, .reader = reader, .max_rows = max_rows};
    int result = pmt__epochs_init(&it.epochs, reader, err);
    if (result < 0) {
        pmt__epochs_dispose(&it.epochs);
        return result;
    }
    pmt__index_init(&it.index, reader->allocator);
    uint64_t duration_ns = reader->cuts.data[reader->cuts.len - 1].t_ns;
    do {
        uint64_t buckets = duration_ns / out->width_ns + 1;
        while (buckets > BUCKETS_MAX) {
            out->width_ns *= 2;
            buckets = duration_ns / out->width_ns + 1;
        }
        out->bucket_count = (uint32_t)buckets;
        pmt__index_clear(&it.index);
        out->list.len = 0;
        result = add_cuts(&it);
        if (result == 0 && buckets == 1) {
            out->list.len = 0; /* too many even so: the report then has no time window */
            break;
        }
        if (result == 0) {
            out->width_ns *= 2;
        }
    } while (result == 0);
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
