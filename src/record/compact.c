/* The plans, and how their sizes come about.

   Plan 0 is what a capture gets by itself: the last two minutes by the second, and before that windows of 1/32 of their age, so
   that there are about 32 · ln(age / 2 min) of them: 210 for a day, 300 for a month. The further ones halve the
   number of windows each, and are tried in turn until the result is small enough; the last one leaves the names, which cannot be
   merged, and one window. */
#include "record/compact.h"

#include <errno.h>
#include <string.h>

#include "format/decode.h"
#include "platform/platform.h"
#include "record/merge.h"

const pmt__compact_plan pmt__compact_plans[PMT_COMPACT_PLANS] = {
    {120, 32, 1}, {60, 16, 1}, {30, 8, 1}, {12, 4, 1}, {6, 2, 0}, {3, 1, 0}, {1, 0, 0},
};

#define OUT_STEP ((size_t)1 << 20) /* bytes that are written at once */
#define SUFFIX ".compact"

/* --- page memory for what is shared with the reading side ------------------------------------------------------------------ */

static uint64_t pages_bytes;  /* atomic: one thread at a time compacts, any may ask */
static uint64_t buffer_bytes; /* atomic: the same */

uint64_t
pmt__compact_bytes(void)
{
    return __atomic_load_n(&pages_bytes, __ATOMIC_RELAXED)
           + __atomic_load_n(&buffer_bytes, __ATOMIC_RELAXED);
}

/* In front of every block: its size, and padding that keeps the block aligned for anything. */
typedef struct block {
    size_t size; /* with this header */
    size_t unused[7];
} block;

static void
pages_release(void *context, void *bytes)
{
    (void)context;
    if (bytes != NULL) {
        block *it = (block *)bytes - 1;
        __atomic_fetch_sub(&pages_bytes, it->size, __ATOMIC_RELAXED);
        pmt__pages_unmap(it, it->size);
    }
}

static void *
pages_resize(void *context, void *bytes, size_t size)
{
    if (size > SIZE_MAX - sizeof(block)) {
        return NULL;
    }
    block *grown = pmt__pages_map(size + sizeof(block));
    if (grown == NULL) {
        return NULL;
    }
    grown->size = size + sizeof(block);
    __atomic_fetch_add(&pages_bytes, grown->size, __ATOMIC_RELAXED);
    if (bytes != NULL) {
        size_t had = ((block *)bytes - 1)->size - sizeof(block);
        memcpy(grown + 1, bytes, had < size ? had : size);
        pages_release(context, bytes);
    }
    return grown + 1;
}

static const pmt_allocator pages = {pages_resize, pages_release, NULL};

const pmt_allocator *
pmt__compact_allocator(void)
{
    return &pages;
}

/* --- the temporary file ------------------------------------------------------------------------------------------------------ */

/* The program may have closed our descriptor, and the number may then be its own. */
static int
is_ours(int fd, uint64_t device, uint64_t inode)
{
    uint64_t found_device, found_inode;
    return fd >= 0 && pmt__file_identity(fd, &found_device, &found_inode) == 0
           && found_device == device && found_inode == inode;
}

static int
temporary_write(pmt__compact *self, const void *bytes, size_t size, uint64_t offset)
{
    if (!is_ours(self->fd, self->device, self->inode)) {
        return -EBADF;
    }
    return pmt__file_write_at(self->fd, bytes, size, offset);
}

static int
out_flush(pmt__compact *self)
{
    if (self->out.failed) {
        return -ENOMEM;
    }
    int rc = temporary_write(self, self->out.data, self->out.len, self->offset - self->out.len);
    pmt__buffer_clear(&self->out);
    return rc;
}

/* The file header goes over as it is, except for the state slots. */
static int
header_copy(pmt__compact *self, const pmt__compact_input *input)
{
    uint8_t *page = pmt__buffer_reserve(&self->out, PMT_HEADER_SIZE);
    if (page == NULL) {
        return -ENOMEM;
    }
    int rc = pmt__file_read_at(self->in, page, PMT_HEADER_SIZE, 0);
    if (rc < 0) {
        return rc;
    }
    if (memcmp(page + PMT_HEADER_ID_OFFSET, input->id, 16) != 0) {
        return -ESTALE;
    }
    memset(page + PMT_SLOT_A_OFFSET, 0, PMT_SLOT_SIZE);
    memset(page + PMT_SLOT_B_OFFSET, 0, PMT_SLOT_SIZE);
    self->out.len += PMT_HEADER_SIZE;
    self->offset = PMT_HEADER_SIZE;
    return out_flush(self);
}

static int
temporary_open(pmt__compact *self, const pmt__compact_input *input)
{
    size_t length = strlen(input->path);
    if (length + sizeof SUFFIX > sizeof self->path) {
        return -ENAMETOOLONG;
    }
    memcpy(self->path, input->path, length);
    memcpy(self->path + length, SUFFIX, sizeof SUFFIX);
    self->in = pmt__file_reopen(input->path, input->device, input->inode);
    if (self->in < 0) {
        return self->in;
    }
    self->fd = pmt__file_create(self->path, 1);
    if (self->fd < 0) {
        return self->fd;
    }
    int rc = pmt__file_identity(self->fd, &self->device, &self->inode);
    return rc < 0 ? rc : header_copy(self, input);
}

static void
in_close(pmt__compact *self, const pmt__compact_input *input)
{
    if (is_ours(self->in, input->device, input->inode)) {
        pmt__file_close(self->in);
    }
    self->in = -1;
}

void
pmt__compact_abandon(pmt__compact *self, const pmt__compact_input *input)
{
    in_close(self, input);
    if (is_ours(self->fd, self->device, self->inode)) {
        pmt__file_close(self->fd);
    }
    if (self->inode != 0) {
        pmt__file_remove(self->path, self->device, self->inode);
    }
    self->fd = -1;
    pmt__buffer_dispose(&self->out);
}

/* --- copying ------------------------------------------------------------------------------------------------------------------- */

/* Takes over the chunks in this range with new numbers. */
static int
chunks_copy(pmt__compact *self, uint64_t from, uint64_t to)
{
    int rc = 0;
    while (rc == 0 && from < to) {
        uint8_t header[PMT_CHUNK_HEADER_SIZE];
        rc = to - from < sizeof header ? -EBADMSG
                                       : pmt__file_read_at(self->in, header, sizeof header, from);
        size_t size = rc < 0 ? 0 : pmt__chunk_stored_size(header);
        if (rc == 0 && (size == 0 || size > to - from)) {
            rc = -EBADMSG;
        }
        uint8_t *chunk = rc < 0 ? NULL : pmt__buffer_reserve(&self->out, size);
        if (chunk == NULL) {
            return rc < 0 ? rc : -ENOMEM;
        }
        rc = pmt__file_read_at(self->in, chunk, size, from);
        if (rc == 0 && pmt__chunk_renumber(chunk, size, self->sequence + 1) != size) {
            rc = -EBADMSG;
        }
        if (rc == 0) {
            self->sequence++;
            self->out.len += size;
            self->offset += size;
            from += size;
            rc = self->out.len >= OUT_STEP ? out_flush(self) : 0;
        }
    }
    return rc;
}

int
pmt__compact_follow(pmt__compact *self, uint64_t end)
{
    int rc = chunks_copy(self, self->in_offset, end);
    self->in_offset = end;
    return rc < 0 ? rc : out_flush(self);
}

/* --- merging ------------------------------------------------------------------------------------------------------------------- */

typedef struct work {
    pmt__compact *compact; /* borrowed */
    const pmt__compact_input *input;
    const pmt__compact_plan *plan;
    pmt__chunk_reader chunks;
    pmt__merge merge;
    uint64_t window_from, window_to; /* its chunks in the capture */
    uint64_t window_start_ns;
    uint64_t window_count;
    uint64_t epoch_before;
    int window_ends;   /* by a flag of its last cut */
    pmt__buffer first; /* the payload of its first chunk: a window of one is copied */
    pmt__buffer payload;
    pmt__buffer
        log; /* where the EVTS chunks since the window began are: pairs of uint64_t, from and to */
} work;

/* The event log is copied as it is. It needs the sites of the window, and stays behind all of it. */
static int
log_copy(work *self)
{
    int rc = 0;
    for (size_t at = 0; rc == 0 && at < self->log.len; at += 2 * sizeof(uint64_t)) {
        uint64_t range[2];
        memcpy(range, self->log.data + at, sizeof range);
        rc = chunks_copy(self->compact, range[0], range[1]);
    }
    pmt__buffer_clear(&self->log);
    return rc;
}

static int
log_add(work *self, const pmt__chunk *chunk)
{
    const uint64_t range[2] = {chunk->offset, chunk->end};
    pmt__buffer_put(&self->log, range, sizeof range);
    return self->log.failed ? -ENOMEM : 0;
}

static int
window_write(work *self)
{
    uint64_t count = self->window_count;
    self->window_count = 0;
    self->window_ends = 0;
    if (count == 0) {
        return 0;
    }
    if (count == 1) {
        return chunks_copy(self->compact, self->window_from, self->window_to);
    }
    pmt__compact *compact = self->compact;
    pmt__buffer_clear(&self->payload);
    int rc = pmt__merge_finish(&self->merge, &self->payload);
    if (rc < 0) {
        return rc;
    }
    size_t before = compact->out.len;
    pmt__chunk_put(&compact->out, "DLTA", 0, compact->sequence + 1, self->payload.data,
                   self->payload.len);
    compact->sequence++;
    compact->offset += compact->out.len - before;
    return compact->out.failed ? -ENOMEM : compact->out.len >= OUT_STEP ? out_flush(compact) : 0;
}

static int
window_end(work *self)
{
    int rc = window_write(self);
    return rc < 0 ? rc : log_copy(self);
}

static int
fits(const work *self, const uint64_t head[PMT_CUT_HEAD])
{
    if (self->window_ends || (self->window_count > 1 && pmt__merge_is_large(&self->merge))) {
        return 0;
    }
    uint64_t t_ns = head[PMT_HEAD_T];
    uint64_t age_ns = self->input->t_ns > t_ns ? self->input->t_ns - t_ns : 0;
    return self->plan->ratio == 0 || t_ns - self->window_start_ns <= age_ns / self->plan->ratio;
}

static int
delta_add(work *self, const pmt__chunk *chunk)
{
    uint64_t head[PMT_CUT_HEAD];
    uint64_t epoch_before = self->merge.last_epoch;
    int rc = pmt__merge_scan(&self->merge, chunk->payload, chunk->size, head);
    if (rc == 0 && self->window_count != 0 && !fits(self, head)) {
        rc = window_end(self);
    }
    if (rc < 0) {
        return rc;
    }
    if (self->window_count == 0) {
        self->window_from = chunk->offset;
        self->window_start_ns = head[PMT_HEAD_T] - head[PMT_HEAD_SPAN];
        self->epoch_before = epoch_before;
        pmt__buffer_clear(&self->first);
        pmt__buffer_put(&self->first, chunk->payload, chunk->size);
        rc = self->first.failed ? -ENOMEM : 0;
    } else if (self->window_count == 1) {
        pmt__merge_begin(&self->merge, self->epoch_before, self->plan->keeps_epochs);
        rc = pmt__merge_add(&self->merge, self->first.data, self->first.len);
    }
    if (rc == 0 && self->window_count != 0) {
        rc = pmt__merge_add(&self->merge, chunk->payload, chunk->size);
    }
    self->window_to = chunk->end;
    self->window_count++;
    self->window_ends = (head[PMT_HEAD_FLAGS] & (PMT_CUT_MAIN_RETURNED | PMT_CUT_FINAL)) != 0;
    return rc;
}

static void
memory_note(const work *self)
{
    const pmt__merge *merge = &self->merge;
    uint64_t bytes = self->compact->out.cap + self->first.cap + self->payload.cap
                     + merge->definitions.cap + merge->counters.cap + merge->body.cap;
    __atomic_store_n(&buffer_bytes, bytes, __ATOMIC_RELAXED);
}

/* Merges up to the newest chunks that the plan keeps. */
static int
merge_old(work *self)
{
    pmt__compact *compact = self->compact;
    int rc = 0;
    while (rc == 0 && self->chunks.next_sequence + self->plan->keep <= self->input->sequence) {
        memory_note(self);
        if (self->input->pause != NULL && self->input->pause() != 0) {
            return -ECANCELED;
        }
        pmt_error err = PMT_ERROR_INIT;
        pmt__chunk chunk;
        if (pmt__chunk_next(&self->chunks, &chunk, &err) != 1) {
            return err.code == PMT_ERR_NOMEM ? -ENOMEM : -EBADMSG;
        }
        if (strcmp(chunk.kind, "DLTA") == 0) {
            rc = delta_add(self, &chunk);
        } else if (strcmp(chunk.kind, "PROC") == 0) {
            rc = chunks_copy(compact, chunk.offset, chunk.end);
        } else if (strcmp(chunk.kind, "EVTS") == 0 || strcmp(chunk.kind, "SYMB") == 0) {
            rc = log_add(self, &chunk);
        } else {
            rc = -EBADMSG; /* its place among the cuts may mean something */
        }
        if (rc == 0 && compact->offset > self->input->limit) {
            rc = -EFBIG;
        }
    }
    return rc < 0 ? rc : window_end(self);
}

int
pmt__compact_run(pmt__compact *self, const pmt__compact_input *input, const pmt__compact_plan *plan)
{
    memset(self, 0, sizeof *self);
    self->in = self->fd = -1;
    pmt__buffer_init(&self->out);
    int rc = temporary_open(self, input);
    if (rc == 0) {
        work it = {.compact = self, .input = input, .plan = plan};
        const pmt__source source = {NULL, self->in, input->end};
        pmt__chunk_reader_init(&it.chunks, &source, PMT_HEADER_SIZE, &pages);
        pmt__merge_init(&it.merge, &pages);
        pmt__buffer_init(&it.first);
        pmt__buffer_init(&it.payload);
        pmt__buffer_init(&it.log);
        rc = merge_old(&it);
        self->in_offset = it.chunks.next_offset;
        pmt__chunk_reader_dispose(&it.chunks);
        pmt__merge_dispose(&it.merge);
        pmt__buffer_dispose(&it.first);
        pmt__buffer_dispose(&it.payload);
        pmt__buffer_dispose(&it.log);
        __atomic_store_n(&buffer_bytes, 0, __ATOMIC_RELAXED);
    }
    if (rc == 0) {
        rc = pmt__compact_follow(self, input->end);
    }
    if (rc == 0 && self->offset > input->limit) {
        rc = -EFBIG;
    }
    if (rc < 0) {
        pmt__compact_abandon(self, input);
    }
    return rc;
}

int
pmt__compact_finish(pmt__compact *self, const pmt__compact_input *input, pmt__slot *slot)
{
    int rc = pmt__compact_follow(self, input->end);
    pmt__slot next = *slot;
    next.seq++;
    next.data_end = self->offset;
    if (rc == 0) {
        uint8_t bytes[PMT_SLOT_SIZE];
        pmt__slot_encode(bytes, &next);
        rc = temporary_write(self, bytes, sizeof bytes,
                             next.seq & 1 ? PMT_SLOT_A_OFFSET : PMT_SLOT_B_OFFSET);
    }
    if (rc == 0) {
        rc = pmt__file_replace(self->path, input->path, input->device, input->inode);
    }
    if (rc < 0) {
        pmt__compact_abandon(self, input);
        return rc;
    }
    *slot = next;
    in_close(self, input);
    pmt__buffer_dispose(&self->out);
    return 0;
}
