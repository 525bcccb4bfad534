#include "analyze/replay.h"

#include <string.h>

#include "base/error.h"
#include "base/index.h"
#include "base/memory.h"
#include "store/store.h"

#define FIRST_BLOCKS ((size_t)1 << 12)

static int
no_memory(pmt_error *err)
{
    return pmt__error_set(err, PMT_ERR_NOMEM, "out of memory while replaying the event log");
}

int
pmt__replay_init(pmt__replay *self, const pmt_reader *reader, pmt_event_walk *walk, uint64_t stop,
                 pmt_error *err)
{
    memset(self, 0, sizeof *self);
    self->allocator = reader->allocator;
    self->walk = walk;
    pmt_event_log log;
    pmt_reader_event_log(reader, &log);
    self->stop = stop < log.complete ? stop : log.complete;
    self->site_count = pmt_reader_site_count(reader);
    self->sites = pmt__alloc_zeroed(self->allocator, self->site_count + 1, sizeof *self->sites);
    self->blocks = pmt__alloc_zeroed(self->allocator, FIRST_BLOCKS, sizeof *self->blocks);
    self->mask = FIRST_BLOCKS - 1;
    return self->sites == NULL || self->blocks == NULL ? no_memory(err) : PMT_OK;
}

void
pmt__replay_dispose(pmt__replay *self)
{
    pmt__release(self->allocator, self->sites);
    pmt__release(self->allocator, self->blocks);
    self->sites = NULL;
    self->blocks = NULL;
}

/* --- what is alive --------------------------------------------------------------------------- */

static size_t
home_of(const pmt__replay *self, uint64_t address)
{
    return (size_t)pmt__hash_u64(address) & self->mask;
}

static void
block_put(pmt__replay *self, const pmt__replay_block *block)
{
    size_t at = home_of(self, block->address);
    while (self->blocks[at].site != 0) {
        at = (at + 1) & self->mask;
    }
    self->blocks[at] = *block;
}

static int
blocks_grow(pmt__replay *self, pmt_error *err)
{
    pmt__replay_block *old = self->blocks;
    size_t count = self->mask + 1;
    self->blocks = pmt__alloc_zeroed(self->allocator, count, 2 * sizeof *self->blocks);
    if (self->blocks == NULL) {
        self->blocks = old;
        return no_memory(err);
    }
    self->mask = 2 * count - 1;
    for (size_t i = 0; i < count; i++) {
        if (old[i].site != 0) {
            block_put(self, &old[i]);
        }
    }
    pmt__release(self->allocator, old);
    return PMT_OK;
}

/* Takes the block of this site at this address out; two sites can have one there for a moment. */
static bool
block_take(pmt__replay *self, uint64_t address, uint32_t site, uint64_t *size)
{
    pmt__replay_block *blocks = self->blocks;
    size_t at = home_of(self, address);
    while (blocks[at].site != 0 && (blocks[at].address != address || blocks[at].site != site)) {
        at = (at + 1) & self->mask;
    }
    if (blocks[at].site == 0) {
        return false;
    }
    *size = blocks[at].size;
    /* Close the gap: whoever stands behind it and could stand in it moves up (Knuth, TAOCP 3, 6.4, algorithm R). */
    for (size_t next = (at + 1) & self->mask; blocks[next].site != 0;
         next = (next + 1) & self->mask) {
        size_t home = home_of(self, blocks[next].address);
        if (((next - home) & self->mask) >= ((next - at) & self->mask)) {
            blocks[at] = blocks[next];
            at = next;
        }
    }
    blocks[at].site = 0;
    return true;
}

/* --- events ---------------------------------------------------------------------------------- */

static int
replay_alloc(pmt__replay *self, const pmt_event *event, pmt_error *err)
{
    if (self->live_blocks >= self->mask / 4 * 3) {
        int result = blocks_grow(self, err);
        if (result < 0) {
            return result;
        }
    }
    const pmt__replay_block block = {event->address, event->size, event->site};
    block_put(self, &block);
    self->allocations++;
    self->allocated_bytes += event->size;
    self->live_blocks++;
    self->live_bytes += event->size;
    self->sites[event->site].blocks++;
    self->sites[event->site].bytes += event->size;
    /* A block that only changes its site is no growth, but the heap at its highest point goes along with it. */
    if (event->kind != PMT_EVENT_IS_REUSE_ALLOC && self->live_bytes >= self->peak_bytes) {
        self->growing = 1;
        self->peak_bytes = self->live_bytes;
    }
    if (self->growing) {
        self->peak_stop = event->number + 1;
        self->peak_t_ns = event->t_ns;
    }
    return PMT_OK;
}

static void
replay_free(pmt__replay *self, const pmt_event *event)
{
    uint64_t size;
    if (!block_take(self, event->address, event->site, &size)) {
        self->unmatched++;
        return;
    }
    self->frees++;
    self->live_blocks--;
    self->live_bytes -= size;
    self->sites[event->site].blocks--;
    self->sites[event->site].bytes -= size;
    if (event->kind != PMT_EVENT_IS_REUSE_FREE) {
        self->growing = 0;
    }
}

int
pmt__replay_run(pmt__replay *self, uint64_t count, pmt_error *err)
{
    for (; count > 0; count--) {
        if (self->events == self->stop) {
            return 0;
        }
        pmt_event event;
        int result = pmt_event_walk_next(self->walk, &event, err);
        if (result <= 0) {
            return result;
        }
        self->events++;
        if (event.kind % 2 == PMT_EVENT_IS_FREE) {
            replay_free(self, &event);
        } else {
            result = replay_alloc(self, &event, err);
            if (result < 0) {
                return result;
            }
        }
    }
    return self->events < self->stop;
}
