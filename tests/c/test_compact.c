/* Compaction against a twin of the capture that was left alone, and against a model that remembers every block.

   A made-up program allocates and frees; its cuts are encoded after docs/format.md. What a reader finds in the compacted capture
   must be what it finds in the twin, at every boundary between windows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "analyze/spread.h"
#include "analyze/stats.h"
#include "capture.h"
#include "format/decode.h"
#include "platform/platform.h"
#include "record/compact.h"
#include "record/merge.h"
#include "store/store.h"

enum {
    SITES = 60,
    EPOCHS = 1200,
    THREADS = 5
};

typedef struct state {
    uint64_t blocks, bytes;
} state;

/* Of a program and of what was read alike. */
typedef state states[SITES + 1][EPOCHS];

typedef struct counts {
    uint64_t allocs, frees, temporaries, alloc_bytes, free_bytes, temporary_bytes;
} counts;

static struct {
    uint64_t sites, strings, nodes, cuts, epoch, t_ns;
    uint64_t live_bytes, live_blocks, allocations, frees, allocated_bytes;
    uint64_t peak_bytes, peak_blocks;
    int peak_moved;
    states live, at_cut, peak;
    counts changes[SITES + 1][EPOCHS];
    uint64_t size_allocs[64], size_bytes[64];
    uint64_t marks[EPOCHS];
    size_t mark_count;
    pmt__buffer marks_body;
    uint64_t new_marks;
    struct {
        uint64_t site, birth, death;
    } dead[4096]; /* in the cut that is being made */
    size_t dead_count;
    uint64_t ages[PMT_AGE_CLASSES]; /* frees by log2 class */
    /* as if every block were a sample: in all, and in the cut that is being made */
    pmt_spread all_allocs[SITES + 1], all_live[SITES + 1], all_peak[SITES + 1];
    pmt_spread new_allocs[SITES + 1], new_frees[SITES + 1];
} p;

static const uint8_t capture_id[16] = {1, 2, 3};
static char folder[256], path[300], twin[300];
static uint64_t device, inode, end_offset, sequence;

/* Of sizeless sites, which have a size of their own for every block: three of them, so that bytes do not follow from blocks. */
static uint64_t
size_of(uint64_t site, uint64_t birth)
{
    return site % 4 == 0 ? 1000 + 500 * (birth % 3) : 8 * site;
}

/* A fifth of the sites is certain. Whole numbers, so that sums are exact in any order. */
static pmt_spread
spread_of(uint64_t site, uint64_t size)
{
    if (site % 5 == 0) {
        return (pmt_spread){.samples = 1, .sure_blocks = 1, .sure_bytes = size};
    }
    return (pmt_spread){.samples = 1, .blocks2 = 3, .bytes2 = (double)(3 * size * size)};
}

static void
allocate(uint64_t site)
{
    uint64_t size = size_of(site, p.epoch);
    state *live = &p.live[site][p.epoch];
    counts *c = &p.changes[site][p.epoch];
    live->blocks++;
    live->bytes += size;
    c->allocs++;
    c->alloc_bytes += size;
    p.allocations++;
    p.allocated_bytes += size;
    p.live_blocks++;
    p.live_bytes += size;
    if (site % 4 == 0) {
        unsigned bucket = 63 - (unsigned)__builtin_clzll(size);
        p.size_allocs[bucket]++;
        p.size_bytes[bucket] += size;
    }
    const pmt_spread spread = spread_of(site, size);
    pmt__spread_add(&p.new_allocs[site], &spread, 1);
    pmt__spread_add(&p.all_allocs[site], &spread, 1);
    pmt__spread_add(&p.all_live[site], &spread, 1);
    if (p.live_bytes > p.peak_bytes) {
        p.peak_bytes = p.live_bytes;
        p.peak_blocks = p.live_blocks;
        p.peak_moved = 1;
        memcpy(p.peak, p.live, sizeof p.peak);
        memcpy(p.all_peak, p.all_live, sizeof p.all_peak);
    }
}

static void
release(uint64_t site, uint64_t birth, int temporary)
{
    uint64_t size = size_of(site, birth);
    state *live = &p.live[site][birth];
    counts *c = &p.changes[site][birth];
    live->blocks--;
    live->bytes -= size;
    c->frees++;
    c->free_bytes += size;
    if (temporary) {
        c->temporaries++;
        c->temporary_bytes += size;
    }
    const pmt_spread spread = spread_of(site, size);
    pmt__spread_add(&p.new_frees[site], &spread, 1);
    pmt__spread_add(&p.all_live[site], &spread, -1);
    p.frees++;
    p.live_blocks--;
    p.live_bytes -= size;
    assert_true(p.dead_count < sizeof p.dead / sizeof *p.dead);
    p.dead[p.dead_count].site = site;
    p.dead[p.dead_count].birth = birth;
    p.dead[p.dead_count++].death = p.epoch;
    p.ages[p.epoch == birth ? 0 : 64 - __builtin_clzll(p.epoch - birth)]++;
}

static void
some_events(unsigned count)
{
    int shrinking = capture_random(3) == 0;
    for (unsigned i = 0; i < count; i++) {
        uint64_t site = 1 + capture_random(p.sites);
        uint64_t birth = capture_random(4) ? p.epoch : 1 + capture_random(p.epoch);
        uint64_t choice = capture_random(10);
        if (choice < (shrinking ? 2u : 4u)) {
            allocate(site);
        } else if (choice < 6) {
            allocate(site);
            release(site, p.epoch, 1);
        } else {
            for (uint64_t b = birth; b > 0 && b + 40 > birth; b--) {
                if (p.live[site][b].blocks != 0) {
                    release(site, b, 0);
                    break;
                }
            }
        }
    }
}

static void
put_mark(void)
{
    CAPTURE_PUT(&p.marks_body, p.epoch, p.t_ns + 1, 1 + capture_random(p.strings));
    p.new_marks++;
    p.marks[p.mark_count++] = p.epoch;
    p.epoch++;
}

static void
put_definitions(pmt__buffer *payload)
{
    pmt__buffer body;
    pmt__buffer_init(&body);
    if (p.cuts == 0 || (p.sites < SITES && capture_random(4) == 0)) {
        char text[32];
        int n = snprintf(text, sizeof text, "/app/%llu.py", (unsigned long long)p.strings);
        CAPTURE_PUT(&body, ++p.strings, 1);
        pmt__buffer_put_text(&body, text, (size_t)n);
        capture_section(payload, PMT_SECTION_STRINGS, &body);
        CAPTURE_PUT(&body, ++p.nodes, 1, PMT_NODE_SYNTHETIC, p.nodes, p.strings);
        capture_section(payload, PMT_SECTION_NODES, &body);
        uint64_t more = 1 + capture_random(4);
        more = more > SITES - p.sites ? SITES - p.sites : more;
        CAPTURE_PUT(&body, p.sites + 1, more);
        for (uint64_t i = 0; i < more; i++) {
            p.sites++;
            pmt__buffer_put_zigzag(&body, i == 0 ? (int64_t)p.nodes : 0);
            CAPTURE_PUT(&body, p.sites % 4 == 0 ? PMT_SIZE_LARGE : 8 * p.sites, 1 + p.sites % 3,
                        p.sites % THREADS);
        }
        capture_section(payload, PMT_SECTION_SITES, &body);
    }
    if (p.cuts % 7 == 0) {
        uint64_t id = 1 + capture_random(THREADS - 1);
        CAPTURE_PUT(&body, 1, id, 1000 + id, p.cuts, 0, 1 + capture_random(p.strings),
                    capture_random(2), 0);
        capture_section(payload, PMT_SECTION_THREADS, &body);
    }
    pmt__buffer_dispose(&body);
}

static void
put_rows(pmt__buffer *body)
{
    pmt__buffer rows;
    pmt__buffer_init(&rows);
    uint64_t count = 0, before = 0;
    for (uint64_t site = 1; site <= p.sites; site++) {
        for (uint64_t birth = 1; birth <= p.epoch; birth++) {
            const counts *c = &p.changes[site][birth];
            if (c->allocs == 0 && c->frees == 0) {
                continue;
            }
            CAPTURE_PUT(&rows, site - before, p.epoch - birth, c->allocs, c->frees, c->temporaries);
            if (site % 4 == 0) {
                CAPTURE_PUT(&rows, c->alloc_bytes, c->free_bytes, c->temporary_bytes);
            }
            if (p.peak_moved) {
                const state *peak = &p.peak[site][birth], *live = &p.live[site][birth];
                pmt__buffer_put_zigzag(&rows, (int64_t)(peak->blocks - live->blocks));
                if (site % 4 == 0) {
                    pmt__buffer_put_zigzag(&rows, (int64_t)(peak->bytes - live->bytes));
                }
            }
            count++;
            before = site;
        }
    }
    pmt__buffer_put_varint(body, count);
    pmt__buffer_put(body, rows.data, rows.len);
    pmt__buffer_dispose(&rows);
}

/* One entry per block that died before a mark. */
static void
put_lifetimes(pmt__buffer *payload)
{
    pmt__buffer entries, body;
    pmt__buffer_init(&entries);
    pmt__buffer_init(&body);
    uint64_t count = 0, site = 0, birth = 0;
    for (size_t i = 0; i < p.dead_count; i++) {
        if (p.dead[i].death == p.epoch) {
            continue;
        }
        pmt__buffer_put_zigzag(&entries, (int64_t)(p.dead[i].site - site));
        pmt__buffer_put_zigzag(&entries, (int64_t)(p.dead[i].birth - birth));
        site = p.dead[i].site;
        birth = p.dead[i].birth;
        CAPTURE_PUT(&entries, p.dead[i].death - birth, 1);
        if (site % 4 == 0) {
            CAPTURE_PUT(&entries, size_of(site, birth));
        }
        count++;
    }
    p.dead_count = 0;
    if (count != 0) {
        CAPTURE_PUT(&body, count);
        pmt__buffer_put(&body, entries.data, entries.len);
        capture_section(payload, PMT_SECTION_LIFETIMES, &body);
    }
    pmt__buffer_dispose(&entries);
    pmt__buffer_dispose(&body);
}

static void
put_spread(pmt__buffer *out, const pmt_spread *spread)
{
    const double variances[2] = {spread->blocks2, spread->bytes2};
    pmt__buffer_put_zigzag(out, (int64_t)spread->samples);
    pmt__buffer_put_zigzag(out, (int64_t)spread->sure_blocks);
    pmt__buffer_put_zigzag(out, (int64_t)spread->sure_bytes);
    pmt__buffer_put(out, variances, sizeof variances);
}

static void
put_samples(pmt__buffer *payload)
{
    pmt__buffer entries, body;
    pmt__buffer_init(&entries);
    pmt__buffer_init(&body);
    uint64_t count = 0, before = 0;
    for (uint64_t site = p.sites; site > 0; site--) { /* any order will do */
        if ((p.new_allocs[site].samples | p.new_frees[site].samples) == 0) {
            continue;
        }
        pmt__buffer_put_zigzag(&entries, (int64_t)(site - before));
        put_spread(&entries, &p.new_allocs[site]);
        put_spread(&entries, &p.new_frees[site]);
        if (p.peak_moved) {
            pmt_spread correction = p.all_peak[site];
            pmt__spread_add(&correction, &p.all_live[site], -1);
            put_spread(&entries, &correction);
        }
        before = site;
        count++;
    }
    memset(p.new_allocs, 0, sizeof p.new_allocs);
    memset(p.new_frees, 0, sizeof p.new_frees);
    CAPTURE_PUT(&body, 524288 + p.cuts, p.peak_moved != 0, count);
    pmt__buffer_put(&body, entries.data, entries.len);
    capture_section(payload, PMT_SECTION_SAMPLES, &body);
    pmt__buffer_dispose(&entries);
    pmt__buffer_dispose(&body);
}

static void
append(const char *file, const pmt__buffer *out, uint64_t offset)
{
    int fd = open(file, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pmt__file_write_at(fd, out->data, out->len, offset), 0);
    close(fd);
}

/* `offset` and `number` of the twin, which no compaction changes. */
static uint64_t twin_offset, twin_sequence;

static void
put_chunk(const char *kind, const pmt__buffer *payload)
{
    pmt__buffer out;
    pmt__buffer_init(&out);
    pmt__chunk_put(&out, kind, 0, ++sequence, payload->data, payload->len);
    append(path, &out, end_offset);
    end_offset += out.len;
    pmt__buffer_clear(&out);
    pmt__chunk_put(&out, kind, 0, ++twin_sequence, payload->data, payload->len);
    append(twin, &out, twin_offset);
    twin_offset += out.len;
    pmt__buffer_dispose(&out);
}

/* Whether each cut says again what build id an object has. */
static bool with_objects;

static void
put_objects(pmt__buffer *payload)
{
    pmt__buffer body;
    pmt__buffer_init(&body);
    if (with_objects && p.strings != 0) {
        const uint8_t build_id[2] = {(uint8_t)p.cuts, 7};
        CAPTURE_PUT(&body, 1, 1, sizeof build_id);
        pmt__buffer_put(&body, build_id, sizeof build_id);
        capture_section(payload, PMT_SECTION_OBJECTS, &body);
    }
    pmt__buffer_dispose(&body);
}

static void
put_cut(uint64_t flags)
{
    pmt__buffer payload, body;
    pmt__buffer_init(&payload);
    pmt__buffer_init(&body);
    put_definitions(&payload);
    some_events((unsigned)capture_random(120));
    while (p.strings != 0 && capture_random(9) == 0 && p.epoch < EPOCHS - 2) {
        put_mark();
        some_events((unsigned)capture_random(40));
    }
    if (p.new_marks != 0) {
        CAPTURE_PUT(&body, p.new_marks);
        pmt__buffer_put(&body, p.marks_body.data, p.marks_body.len);
        capture_section(&payload, PMT_SECTION_MARKS, &body);
    }
    put_lifetimes(&payload);
    put_objects(&payload);
    put_samples(&payload);
    uint64_t buckets = 0;
    for (uint64_t b = 0; b < 64; b++) {
        buckets += p.size_allocs[b] != 0;
    }
    CAPTURE_PUT(&body, buckets);
    for (uint64_t b = 0; b < 64; b++) {
        if (p.size_allocs[b] != 0) {
            CAPTURE_PUT(&body, b, p.size_allocs[b], p.size_bytes[b]);
        }
    }
    capture_section(&payload, PMT_SECTION_SIZES, &body);

    uint64_t span = SECOND + capture_random(SECOND / 10);
    p.t_ns += span;
    p.cuts++;
    flags |= p.peak_moved ? (uint64_t)PMT_CUT_PEAK_MOVED : 0u;
    CAPTURE_PUT(&body, p.cuts, p.t_ns, span, 0, flags, p.epoch);
    CAPTURE_PUT(&body, p.live_bytes, p.live_blocks, p.allocations, p.frees, p.allocated_bytes,
                p.peak_bytes, p.peak_blocks, 0, 77, 1, 2, 3, 9);
    CAPTURE_PUT(&body, 1, 3, p.cuts);
    put_rows(&body);
    capture_section(&payload, PMT_SECTION_CUT, &body);
    put_chunk("DLTA", &payload);
    p.epoch++;
    p.peak_moved = 0;
    p.new_marks = 0;
    pmt__buffer_clear(&p.marks_body);
    memset(p.changes, 0, sizeof p.changes);
    memset(p.size_allocs, 0, sizeof p.size_allocs);
    memset(p.size_bytes, 0, sizeof p.size_bytes);
    pmt__buffer_dispose(&payload);
    pmt__buffer_dispose(&body);
}

static void
create(const char *file, uint64_t *file_device, uint64_t *file_inode)
{
    unlink(file);
    int fd = pmt__file_create(file, 0);
    assert_true(fd >= 0);
    uint8_t page[PMT_HEADER_SIZE] = {0};
    pmt__header_encode(page, capture_id, 5, 0, PMT_FEATURE_EPOCHS);
    assert_int_equal(pmt__file_write_at(fd, page, sizeof page, 0), 0);
    assert_int_equal(pmt__file_identity(fd, file_device, file_inode), 0);
    pmt__file_close(fd);
}

static void
program_start(uint64_t seed)
{
    pmt__buffer_dispose(&p.marks_body);
    memset(&p, 0, sizeof p);
    p.epoch = 1;
    capture_random_state = 88172645463325252u + seed * 7919;
    uint64_t unused;
    create(path, &device, &inode);
    create(twin, &unused, &unused);
    end_offset = twin_offset = PMT_HEADER_SIZE;
    sequence = twin_sequence = 0;
    pmt__buffer payload;
    pmt__buffer_init(&payload);
    pmt__buffer_put_varint(&payload, 1);
    pmt__fact_put_number(&payload, "pid", 4711);
    put_chunk("PROC", &payload);
    pmt__buffer_dispose(&payload);
}

static pmt__compact_input
input_of(void)
{
    return (pmt__compact_input){.path = path,
                                .device = device,
                                .inode = inode,
                                .id = capture_id,
                                .end = end_offset,
                                .sequence = sequence,
                                .t_ns = p.t_ns,
                                .limit = UINT64_MAX};
}

static int
compact_with(const pmt__compact_plan *plan)
{
    static pmt__compact compact;
    pmt__slot slot = {.seq = 7, .status = PMT_STATUS_RECORDING};
    pmt__compact_input input = input_of();
    int rc = pmt__compact_run(&compact, &input, plan);
    if (rc == 0) {
        rc = pmt__compact_finish(&compact, &input, &slot);
    }
    if (rc == 0) {
        assert_int_equal(slot.seq, 8);
        pmt__file_close(compact.fd);
        device = compact.device;
        inode = compact.inode;
        end_offset = compact.offset;
        sequence = compact.sequence;
    }
    assert_int_equal(pmt__compact_bytes(), 0);
    return rc;
}

/* --- reading ----------------------------------------------------------------------------------------------------------------- */

static pmt_reader *
reader_of(const char *file)
{
    pmt_reader *reader = NULL;
    pmt_error err = PMT_ERROR_INIT;
    if (pmt_reader_open(&reader, file, NULL, &err) < 0) {
        fail_msg("%s", err.message);
    }
    pmt_capture capture;
    pmt_reader_capture(reader, &capture);
    if (capture.torn != NULL) {
        fail_msg("torn: %s", capture.torn);
    }
    return reader;
}

typedef struct reading {
    pmt_reader *reader;
    size_t cut;  /* the next */
    states live; /* up to it */
    counts totals[SITES + 1];
    counts births[EPOCHS];
} reading;

static reading a, b; /* the compacted one and its twin */

static void
reading_start(reading *self, const char *file)
{
    memset(self, 0, sizeof *self);
    self->reader = reader_of(file);
}

static void
counts_add(counts *to, const pmt__row *row)
{
    to->allocs += row->allocs;
    to->frees += row->frees;
    to->temporaries += row->temps;
    to->alloc_bytes += row->alloc_bytes;
    to->free_bytes += row->free_bytes;
    to->temporary_bytes += row->temp_bytes;
}

static const pmt_cut *
read_cut(reading *self)
{
    pmt__row_walk walk;
    pmt__row row;
    uint64_t last = 0, last_birth = 0;
    pmt__rows_begin(&walk, self->reader, self->cut, NULL);
    while (pmt__rows_next(&walk, &row)) {
        assert_true(row.site > last || (row.site == last && row.birth > last_birth));
        last = row.site;
        last_birth = row.birth;
        self->live[row.site][row.birth].blocks += row.allocs - row.frees;
        self->live[row.site][row.birth].bytes += row.alloc_bytes - row.free_bytes;
        counts_add(&self->totals[row.site], &row);
        counts_add(&self->births[row.birth], &row);
    }
    return &self->reader->cuts.data[self->cut++];
}

/* The state at the peak as a reader finds it: the last cut that says so, and its corrections. */
static void
check_peak(const char *file)
{
    static reading r;
    reading_start(&r, file);
    size_t moved = SIZE_MAX;
    for (size_t i = 0; i < r.reader->cuts.len; i++) {
        moved = r.reader->cuts.data[i].flags & PMT_CUT_PEAK_MOVED ? i : moved;
    }
    while (moved != SIZE_MAX && r.cut <= moved) {
        read_cut(&r);
    }
    if (moved != SIZE_MAX) {
        pmt__row_walk walk;
        pmt__row row;
        pmt__rows_begin(&walk, r.reader, moved, NULL);
        while (pmt__rows_next(&walk, &row)) {
            r.live[row.site][row.birth].blocks += row.peak_blocks;
            r.live[row.site][row.birth].bytes += row.peak_bytes;
        }
    }
    assert_memory_equal(r.live, p.peak, sizeof r.live);
    pmt_reader_destroy(r.reader);
}

/* What was allocated between two marks, summed over the birth epochs between them. */
static void
check_marks(void)
{
    uint64_t birth = 0;
    for (size_t i = 0; i <= p.mark_count; i++) {
        uint64_t last = i < p.mark_count ? p.marks[i] : EPOCHS - 1;
        counts left = {0}, right = {0};
        for (; birth <= last; birth++) {
            left.allocs += a.births[birth].allocs;
            left.alloc_bytes += a.births[birth].alloc_bytes;
            left.temporaries += a.births[birth].temporaries;
            right.allocs += b.births[birth].allocs;
            right.alloc_bytes += b.births[birth].alloc_bytes;
            right.temporaries += b.births[birth].temporaries;
        }
        assert_memory_equal(&left, &right, sizeof left);
    }
}

/* The same as the analysis tells it: its epochs end at marks and at cuts. */
static void
check_epochs(void)
{
    static uint64_t sums[2][EPOCHS];
    const pmt_reader *readers[2] = {a.reader, b.reader};
    memset(sums, 0, sizeof sums);
    for (int i = 0; i < 2; i++) {
        pmt__epochs epochs;
        pmt_error err = PMT_ERROR_INIT;
        assert_int_equal(pmt__epochs_init(&epochs, readers[i], &err), 0);
        pmt__epochs_sum(&epochs, readers[i]);
        size_t part = 0;
        for (size_t at = 0; at < epochs.list.len; at++) {
            sums[i][part] += epochs.list.data[at].sums.total_bytes;
            part += epochs.list.data[at].mark != UINT32_MAX;
        }
        assert_int_equal(part, p.mark_count);
        pmt__epochs_dispose(&epochs);
    }
    assert_memory_equal(sums[0], sums[1], sizeof sums[0]);
}

static void
check_definitions(void)
{
    const pmt_reader *left = a.reader, *right = b.reader;
    assert_int_equal(left->stacks.len, right->stacks.len);
    assert_int_equal(left->sites.len, right->sites.len);
    for (size_t i = 1; i < left->sites.len; i++) {
        const pmt__stored_site *site = &left->sites.data[i], *other = &right->sites.data[i];
        assert_int_equal(site->stack, other->stack);
        assert_int_equal(site->size, other->size);
        assert_int_equal(site->domain, other->domain);
        assert_int_equal(left->threads.data[site->thread].id,
                         right->threads.data[other->thread].id);
    }
    assert_int_equal(left->marks.len, right->marks.len);
    for (size_t i = 0; i < left->marks.len; i++) {
        assert_int_equal(left->marks.data[i].epoch, right->marks.data[i].epoch);
        assert_int_equal(left->marks.data[i].t_ns, right->marks.data[i].t_ns);
        assert_int_equal(left->marks.data[i].label, right->marks.data[i].label);
    }
    assert_int_equal(left->threads.len, right->threads.len);
    for (size_t i = 0; i < left->threads.len; i++) { /* the order may be another */
        size_t j = 0;
        while (j < right->threads.len && right->threads.data[j].id != left->threads.data[i].id) {
            j++;
        }
        assert_true(j < right->threads.len);
        assert_int_equal(left->threads.data[i].native_id, right->threads.data[j].native_id);
        assert_int_equal(left->threads.data[i].python_id, right->threads.data[j].python_id);
        assert_int_equal(left->threads.data[i].name, right->threads.data[j].name);
        assert_int_equal(left->threads.data[i].flags, right->threads.data[j].flags);
    }
    assert_memory_equal(left->large_sizes, right->large_sizes, sizeof left->large_sizes);
    assert_memory_equal(left->counters, right->counters, sizeof left->counters);
    assert_memory_equal(left->header.id, right->header.id, 16);
    assert_int_equal(left->facts.len, right->facts.len);
}

/* How sure the figures are, as a reader finds it, against the model. */
static void
check_samples(const pmt_reader *reader)
{
    const pmt_query query = {.view = PMT_VIEW_PEAK};
    pmt__window window;
    pmt__sums *sums;
    assert_int_equal(pmt__window_choose(&window, reader, &query, NULL), PMT_OK);
    window.end = window.last;
    assert_int_equal(pmt__sums_compute(&sums, reader, &window, NULL), PMT_OK);
    assert_int_equal(reader->sample_mean, 524288 + p.cuts - 1);
    for (size_t site = 1; site < reader->sites.len; site++) {
        assert_memory_equal(&sums[site].total, &p.all_allocs[site], sizeof sums->total);
        assert_memory_equal(&sums[site].leak, &p.all_live[site], sizeof sums->leak);
        assert_memory_equal(&sums[site].peak, &p.all_peak[site], sizeof sums->peak);
    }
    pmt__release(reader->allocator, sums);
}

/* Returns the number of windows. */
static size_t
check_against_twin(int marks_are_exact)
{
    reading_start(&a, path);
    reading_start(&b, twin);
    uint64_t t_ns = 0;
    size_t windows = a.reader->cuts.len;
    assert_true(windows <= b.reader->cuts.len);
    while (a.cut < windows) {
        const pmt_cut *window = read_cut(&a), *cut;
        uint64_t flags = 0;
        do {
            cut = read_cut(&b);
            flags |= cut->flags & PMT_CUT_PEAK_MOVED;
            if (cut->flags & PMT_CUT_MAIN_RETURNED) {
                assert_int_equal(cut->t_ns, window->t_ns); /* a boundary */
                assert_true(window->flags & PMT_CUT_MAIN_RETURNED);
            }
        } while (cut->t_ns < window->t_ns);
        assert_int_equal(window->t_ns - window->span_ns, t_ns);
        t_ns = window->t_ns;
        pmt_cut expected = *cut;
        expected.span_ns = window->span_ns;
        expected.flags |= flags | (window->flags & PMT_CUT_MERGED);
        assert_memory_equal(window, &expected, sizeof expected);
        assert_memory_equal(a.live, b.live, sizeof a.live);
        assert_memory_equal(a.totals, b.totals, sizeof a.totals);
    }
    assert_int_equal(b.cut, b.reader->cuts.len);
    assert_memory_equal(a.live, p.live, sizeof a.live);
    check_definitions();
    check_samples(a.reader);
    check_samples(b.reader);
    if (marks_are_exact) {
        check_marks();
        check_epochs();
    }
    pmt_reader_destroy(a.reader);
    pmt_reader_destroy(b.reader);
    check_peak(path);
    return windows;
}

/* How old the dead had become, by classes: in both captures what the model says. */
static void
check_ages(void)
{
    pmt_reader *readers[] = {reader_of(path), reader_of(twin)};
    pmt__stats stats[2];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pmt__stats_init(&stats[i], readers[i], NULL), PMT_OK);
        pmt__stats_dispose(&stats[i]);
        pmt_reader_destroy(readers[i]);
    }
    assert_memory_equal(stats[0].ages, stats[1].ages, sizeof stats[0].ages);
    for (size_t class = 0; class < PMT_AGE_CLASSES; class ++) {
        assert_int_equal(stats[1].ages[class].blocks, p.ages[class]);
    }
}

/* --- tests --------------------------------------------------------------------------------------------------------------------- */

static void
test_the_model_agrees_with_itself(void **unused)
{
    (void)unused;
    program_start(0);
    for (int i = 0; i < 30; i++) {
        put_cut(0);
    }
    assert_int_equal(check_against_twin(1), 30);
}

static void
test_random_programs_compacted_again_and_again(void **unused)
{
    (void)unused;
    for (uint64_t seed = 0; seed < 12; seed++) {
        program_start(seed);
        int marks_are_exact = 1;
        for (int round = 0; round < 5; round++) {
            int returns = (int)capture_random(8);
            for (int i = 0; i < 30; i++) {
                put_cut(round == 2 && i == returns ? PMT_CUT_MAIN_RETURNED : 0);
            }
            pmt__compact_plan plan = pmt__compact_plans[capture_random(PMT_COMPACT_PLANS)];
            plan.keep = plan.keep > 25 ? 10 : plan.keep;
            marks_are_exact &= plan.keeps_epochs;
            assert_int_equal(compact_with(&plan), 0);
            check_against_twin(marks_are_exact);
        }
    }
}

static void
test_everything_in_one_window_keeps_lifetimes(void **unused)
{
    (void)unused;
    for (int keeps_epochs = 0; keeps_epochs < 2; keeps_epochs++) {
        program_start(99);
        for (int i = 0; i < 60; i++) {
            put_cut(0);
        }
        const pmt__compact_plan plan = {0, 0, keeps_epochs != 0};
        assert_int_equal(compact_with(&plan), 0);
        assert_int_equal(check_against_twin(keeps_epochs), 1);
        /* All blocks were born in the window, so even the ages at which they died are the same, by classes, marks or not. */
        assert_true(p.mark_count > 3);
        check_ages();
        put_cut(0);
        assert_int_equal(check_against_twin(keeps_epochs), 2);
        check_ages();
        assert_int_equal(compact_with(&plan), 0);
        assert_int_equal(check_against_twin(keeps_epochs), 1);
        check_ages();
    }
}

static void
test_windows_are_as_long_as_the_plan_says(void **unused)
{
    (void)unused;
    program_start(5);
    for (int i = 0; i < 600; i++) {
        put_cut(0);
    }
    assert_int_equal(compact_with(&pmt__compact_plans[0]), 0);
    size_t windows = check_against_twin(1);
    assert_in_range(windows, 121, 250);
    pmt_reader *reader = reader_of(path);
    for (size_t i = 0; i < windows; i++) {
        const pmt_cut *cut = &reader->cuts.data[i];
        int merged = (cut->flags & PMT_CUT_MERGED) != 0;
        if (merged) {
            assert_true(cut->span_ns <= (p.t_ns - cut->t_ns) / 32);
        }
        assert_true(windows - i > 120 || !merged);
    }
    pmt_reader_destroy(reader);
    /* It has nothing to do for a second time. */
    assert_int_equal(compact_with(&pmt__compact_plans[0]), 0);
    assert_int_equal(check_against_twin(1), windows);
}

static int pauses_left;

static int
pause_sometimes(void)
{
    return pauses_left-- == 0;
}

static int
temporary_exists(void)
{
    char name[320];
    snprintf(name, sizeof name, "%s.compact", path);
    struct stat found;
    return lstat(name, &found) == 0;
}

static void
test_giving_up_leaves_the_capture_as_it_was(void **unused)
{
    (void)unused;
    static pmt__compact compact;
    program_start(7);
    for (int i = 0; i < 40; i++) {
        put_cut(0);
    }
    pmt__compact_input input = input_of();
    input.pause = pause_sometimes;
    for (int i = 0; i < 40; i++) {
        pauses_left = i;
        assert_int_equal(pmt__compact_run(&compact, &input, &pmt__compact_plans[6]), -ECANCELED);
        assert_false(temporary_exists());
    }
    input.pause = NULL;
    input.limit = end_offset / 8;
    assert_int_equal(pmt__compact_run(&compact, &input, &pmt__compact_plans[0]), -EFBIG);
    assert_false(temporary_exists());
    assert_int_equal(pmt__compact_bytes(), 0);
    assert_int_equal(check_against_twin(1), 40);
}

static void
test_what_is_appended_meanwhile_follows(void **unused)
{
    (void)unused;
    static pmt__compact compact;
    program_start(8);
    for (int i = 0; i < 40; i++) {
        put_cut(0);
    }
    pmt__compact_input input = input_of();
    assert_int_equal(pmt__compact_run(&compact, &input, &pmt__compact_plans[6]), 0);
    put_cut(0);
    put_cut(0);
    assert_int_equal(pmt__compact_follow(&compact, end_offset), 0);
    put_cut(0);
    input.end = end_offset;
    pmt__slot slot = {.seq = 1, .status = PMT_STATUS_RECORDING};
    assert_int_equal(pmt__compact_finish(&compact, &input, &slot), 0);
    assert_int_equal(compact.sequence,
                     1 + 1 + 1 + 3); /* PROC, a window, the newest, what followed */
    assert_int_equal(slot.data_end, compact.offset);
    pmt__file_close(compact.fd);
    check_against_twin(0);
}

static void
test_a_capture_that_was_replaced_is_left_alone(void **unused)
{
    (void)unused;
    static pmt__compact compact;
    program_start(9);
    for (int i = 0; i < 20; i++) {
        put_cut(0);
    }
    pmt__compact_input input = input_of();
    assert_int_equal(pmt__compact_run(&compact, &input, &pmt__compact_plans[6]), 0);
    char moved[320];
    snprintf(moved, sizeof moved, "%s.moved", path);
    assert_int_equal(rename(path, moved), 0);
    FILE *other = fopen(path, "w");
    fputs("somebody else's", other);
    fclose(other);
    pmt__slot slot = {.seq = 1};
    assert_int_equal(pmt__compact_finish(&compact, &input, &slot), -ESTALE);
    assert_int_equal(slot.seq, 1);
    assert_false(temporary_exists());
    struct stat found;
    assert_int_equal(stat(path, &found), 0);
    assert_int_equal(found.st_size, strlen("somebody else's"));
    assert_int_equal(pmt__compact_run(&compact, &input, &pmt__compact_plans[6]), -ESTALE);
    assert_int_equal(rename(moved, path), 0);
    assert_int_equal(check_against_twin(1), 20);
}

static void
test_the_temporary_file(void **unused)
{
    (void)unused;
    program_start(10);
    for (int i = 0; i < 20; i++) {
        put_cut(0);
    }
    char name[320], victim[320];
    snprintf(name, sizeof name, "%s.compact", path);
    snprintf(victim, sizeof victim, "%s/victim", folder);
    FILE *left_over = fopen(name, "w"); /* of a process that was killed */
    fputs("half a capture", left_over);
    fclose(left_over);
    assert_int_equal(compact_with(&pmt__compact_plans[6]), 0);
    check_against_twin(0);
    struct stat found;
    assert_int_equal(stat(path, &found), 0);
    assert_int_equal(found.st_mode & 0777, 0600);

    assert_int_equal(symlink(victim, name), 0); /* planted: not followed, not removed */
    assert_int_equal(compact_with(&pmt__compact_plans[6]), -EEXIST);
    assert_int_not_equal(stat(victim, &found), 0);
    assert_int_equal(unlink(name), 0);
}

/* The numbers in the chunks of the made-up event log; each must lie behind the cut with its number. */
static void
check_events(uint64_t count)
{
    int fd = open(path, O_RDONLY);
    const pmt__source source = {NULL, fd, end_offset};
    pmt__chunk_reader chunks;
    pmt__chunk chunk;
    pmt_error err = PMT_ERROR_INIT;
    pmt__merge merge;
    uint64_t cut = 0, found = 0, head[PMT_CUT_HEAD];
    pmt__merge_init(&merge, pmt_allocator_default());
    pmt__chunk_reader_init(&chunks, &source, PMT_HEADER_SIZE, pmt_allocator_default());
    while (pmt__chunk_next(&chunks, &chunk, &err) == 1) {
        if (strcmp(chunk.kind, "DLTA") == 0) {
            assert_int_equal(pmt__merge_scan(&merge, chunk.payload, chunk.size, head), 0);
            cut = head[0];
        } else if (strcmp(chunk.kind, "EVTS") == 0) {
            pmt__cursor in;
            pmt__cursor_init(&in, &chunk, "events", &err);
            assert_int_equal(pmt__get_varint(&in), found++);
            assert_int_equal(pmt__get_varint(&in), 1);
            assert_true(pmt__get_varint(&in) <= cut);
        }
    }
    assert_int_equal(found, count);
    assert_int_equal(chunks.next_offset, end_offset);
    pmt__chunk_reader_dispose(&chunks);
    pmt__merge_dispose(&merge);
    close(fd);
}

static void
test_the_event_log_is_copied(void **unused)
{
    (void)unused;
    program_start(12);
    uint64_t number = 0;
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < 20; i++) {
            put_cut(0);
            for (uint64_t more = capture_random(3); more > 0; more--) {
                pmt__buffer payload;
                pmt__buffer_init(&payload);
                /* one event: an allocation by site 1; its time is the number of the cut */
                CAPTURE_PUT(&payload, number++, 1, p.cuts, 0);
                pmt__buffer_put(&payload, "\x80\x01\x02", 3);
                put_chunk("EVTS", &payload);
                pmt__buffer_dispose(&payload);
            }
        }
        check_events(number);
        pmt__compact_plan plan = pmt__compact_plans[3 + round];
        assert_int_equal(compact_with(&plan), 0);
        check_events(number);
        check_against_twin(round == 0);
    }
}

/* The chunks of a kind in the capture. */
static size_t
count_chunks(const char kind[4])
{
    int fd = open(path, O_RDONLY);
    const pmt__source source = {NULL, fd, end_offset};
    pmt__chunk_reader chunks;
    pmt__chunk chunk;
    pmt_error err = PMT_ERROR_INIT;
    size_t count = 0;
    pmt__chunk_reader_init(&chunks, &source, PMT_HEADER_SIZE, pmt_allocator_default());
    while (pmt__chunk_next_of(&chunks, kind, &chunk, &err) == 1) {
        count++;
    }
    assert_int_equal(chunks.next_offset, end_offset);
    pmt__chunk_reader_dispose(&chunks);
    close(fd);
    return count;
}

static void
test_objects_and_symbols_are_copied(void **unused)
{
    (void)unused;
    program_start(14);
    with_objects = true;
    pmt__buffer nothing_known;
    pmt__buffer_init(&nothing_known);
    pmt__buffer_put(&nothing_known, "\0\0", 2);
    for (size_t round = 1; round <= 3; round++) {
        for (int i = 0; i < 30; i++) {
            put_cut(0);
            if (i == 10) {
                put_chunk("SYMB", &nothing_known);
            }
        }
        assert_int_equal(compact_with(&pmt__compact_plans[round]), 0);
        check_against_twin(0);
        assert_int_equal(count_chunks("SYMB"), round);
        pmt_reader *reader = reader_of(path);
        assert_int_equal(reader->objects.len, 1);
        assert_int_equal(reader->objects.data[0].build_id[0], (uint8_t)(p.cuts - 1));
        pmt_reader_destroy(reader);
    }
    pmt__buffer_dispose(&nothing_known);
    with_objects = false;
}

static void
test_damage_is_not_copied(void **unused)
{
    (void)unused;
    static pmt__compact compact;
    program_start(11);
    for (int i = 0; i < 20; i++) {
        put_cut(0);
    }
    for (int i = 0; i < 60; i++) {
        uint64_t place = PMT_HEADER_SIZE + capture_random(end_offset - PMT_HEADER_SIZE);
        int fd = open(path, O_RDWR);
        uint8_t byte, wrong;
        assert_int_equal(pread(fd, &byte, 1, (off_t)place), 1);
        wrong = (uint8_t)(byte ^ 1u << capture_random(8));
        assert_int_equal(pwrite(fd, &wrong, 1, (off_t)place), 1);
        pmt__compact_input input = input_of();
        int rc = pmt__compact_run(&compact, &input, &pmt__compact_plans[i % PMT_COMPACT_PLANS]);
        if (rc == 0) { /* a byte of the padding between chunks */
            pmt__compact_abandon(&compact, &input);
        } else {
            assert_int_equal(rc, -EBADMSG);
        }
        assert_false(temporary_exists());
        assert_int_equal(pwrite(fd, &byte, 1, (off_t)place), 1);
        close(fd);
    }
    assert_int_equal(check_against_twin(1), 20);
}

static void
test_renumbered_chunks_are_as_good_as_new(void **unused)
{
    (void)unused;
    uint8_t payload[300];
    for (size_t size = 0; size < sizeof payload; size += 13) {
        memset(payload, (int)size, size);
        pmt__buffer left, right;
        pmt__buffer_init(&left);
        pmt__buffer_init(&right);
        pmt__chunk_put(&left, "DLTA", 0, 3, payload, size);
        pmt__chunk_put(&right, "DLTA", 0, 99, payload, size);
        assert_int_equal(pmt__chunk_renumber(left.data, left.len - 1, 99), 0);
        assert_int_equal(pmt__chunk_renumber(left.data, left.len, 99), left.len);
        assert_int_equal(left.len, right.len);
        assert_memory_equal(left.data, right.data, left.len);
        left.data[33] ^= 1;
        assert_int_equal(pmt__chunk_renumber(left.data, left.len, 4), 0);
        pmt__buffer_dispose(&left);
        pmt__buffer_dispose(&right);
    }
}

static int
folder_make(void **unused)
{
    (void)unused;
    snprintf(folder, sizeof folder, "%s/pmt-compact-XXXXXX",
             getenv("TMPDIR") == NULL ? "/tmp" : getenv("TMPDIR"));
    if (mkdtemp(folder) == NULL) {
        return -1;
    }
    snprintf(path, sizeof path, "%s/a.pmt", folder);
    snprintf(twin, sizeof twin, "%s/b.pmt", folder);
    return 0;
}

static int
folder_remove(void **unused)
{
    (void)unused;
    pmt__buffer_dispose(&p.marks_body);
    unlink(path);
    unlink(twin);
    return rmdir(folder);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_model_agrees_with_itself),
        cmocka_unit_test(test_random_programs_compacted_again_and_again),
        cmocka_unit_test(test_everything_in_one_window_keeps_lifetimes),
        cmocka_unit_test(test_windows_are_as_long_as_the_plan_says),
        cmocka_unit_test(test_giving_up_leaves_the_capture_as_it_was),
        cmocka_unit_test(test_what_is_appended_meanwhile_follows),
        cmocka_unit_test(test_a_capture_that_was_replaced_is_left_alone),
        cmocka_unit_test(test_the_temporary_file),
        cmocka_unit_test(test_the_event_log_is_copied),
        cmocka_unit_test(test_objects_and_symbols_are_copied),
        cmocka_unit_test(test_damage_is_not_copied),
        cmocka_unit_test(test_renumbered_chunks_are_as_good_as_new),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
