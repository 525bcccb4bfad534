/* Reading captures and aggregating them.

   A pmt_reader holds one capture, read once up to its last complete cut; after opening it does not
   change and may be used from several threads at once (that of a pmt_follower does change). Texts come from the recorded process: they
   are not NUL-terminated, may hold any byte, and are UTF-8 with surrogates as three bytes.

   Units: bytes, blocks, nanoseconds since the start of the recording unless a name says otherwise. */
#ifndef PYMEMTRACE_READER_H
#define PYMEMTRACE_READER_H

#include <stddef.h>
#include <stdint.h>

#include "pymemtrace/allocator.h"
#include "pymemtrace/error.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pmt_reader pmt_reader;
typedef struct pmt_aggregate pmt_aggregate;

typedef struct pmt_string {
    const char *text; /* borrowed from the reader; never NULL */
    size_t len;
} pmt_string;

/* --- opening --------------------------------------------------------------------------------- */

typedef struct pmt_reader_options {
    const pmt_allocator *allocator; /* borrowed, outlives the reader; NULL = malloc */
    /* Called now and then with the bytes read and the file's size; not 0 ends the opening with
       PMT_ERR_STATE. May be NULL. */
    int (*progress)(void *context, uint64_t done_bytes, uint64_t total_bytes);
    void *context;
    const void *symbols; /* what pmt_symbols_bytes gave, or NULL; used as if the capture held it */
    size_t symbols_size;
    int ignore_symbols; /* 1: those of the capture do not count */
    int hide_interpreter; /* 1: native frames of the interpreter's own executable or library are left out */
} pmt_reader_options;

/* Opens a capture; *out is for the caller to destroy. A capture whose end is torn or damaged opens,
   and pmt_capture says so; PMT_ERR_NOT_CAPTURE, PMT_ERR_DAMAGED and PMT_ERR_VERSION mean that there
   is nothing to read, PMT_ERR_IO that the file cannot be read, PMT_ERR_NOMEM, PMT_ERR_STATE. */
int pmt_reader_open(pmt_reader **out, const char *path, const pmt_reader_options *options,
                    pmt_error *err);
/* The same for a capture in memory, which is not needed after the call. */
int pmt_reader_open_bytes(pmt_reader **out, const void *bytes, size_t size,
                          const pmt_reader_options *options, pmt_error *err);
void pmt_reader_destroy(pmt_reader *self); /* NULL is allowed */

/* A reader of a capture that is being written: each refresh takes in what has been appended since. The reader
   also remembers its sums from one refresh to the next, so that only one thread at a time may ask it for anything,
   and none while it is refreshed. Aggregates that were made before a refresh can be asked after it. */
typedef struct pmt_follower pmt_follower;

/* As pmt_reader_open. `progress` is called for what is there now, not in refreshes. */
int pmt_follower_open(pmt_follower **out, const char *path, const pmt_reader_options *options,
                      pmt_error *err);
/* 1: there is something new. 0: there is not. PMT_ERR_STATE: the path names another file by now (the writer puts a
   shorter one in its place now and then), the file is another capture or shorter than it was, or symbols have been put behind
   its end: open it anew. Other errors are those of opening. After any error, there is no more to be had from the follower and its reader. */
int pmt_follower_refresh(pmt_follower *self, pmt_error *err);
const pmt_reader *pmt_follower_reader(const pmt_follower *self); /* borrowed */
void pmt_follower_destroy(pmt_follower *self);                   /* NULL is allowed */

/* --- facts ----------------------------------------------------------------------------------- */

typedef enum pmt_ended {
    PMT_ENDED_NORMAL = 1,  /* the recording was closed in order */
    PMT_ENDED_KILLED = 2,  /* it was not, and the process is gone or the recording had stopped */
    PMT_ENDED_RUNNING = 3, /* the process runs on this host and still records */
} pmt_ended;

/* What a counter of cuts counts; docs/format.md, CUT. */
#define PMT_COUNTERS 18

typedef struct pmt_capture {
    int version_major;
    int version_minor;
    uint8_t id[16];
    uint64_t created_unix_ns;
    uint64_t started_unix_ns;
    uint64_t duration_ns;      /* up to the end, or up to the last cut */
    uint64_t last_cut_unix_ns; /* 0 without a cut */
    pmt_ended ended;
    int main_ended; /* how the program of `pymemtrace run` ended; 0 = not known, 1 = it returned, 2 = sys.exit(), 3 = an exception */
    uint64_t exit_status; /* where that is known */
    const char *stopped;  /* why recording stopped before the program's end, or NULL; static */
    int stopped_errno;    /* the errno that goes with it, or 0 */
    const char *torn;     /* where and why the reading ended early, or NULL; borrowed */
    int damaged;          /* 1: what `torn` says is not how a killed process leaves a file */
    uint64_t pid;
    int sampled;               /* 1: of samples; blocks and bytes are estimates */
    uint64_t sample_bytes;     /* then: mean distance of the samples in bytes, at the start */
    uint64_t sample_bytes_now; /* and at the last cut: it was doubled where there were too many */
    uint64_t counters[PMT_COUNTERS]; /* at the last cut, by PMT_COUNTER_* number */
} pmt_capture;

void pmt_reader_capture(const pmt_reader *self, pmt_capture *out);

/* The facts of the PROC chunk, in file order. */
typedef struct pmt_fact {
    pmt_string key;
    int type; /* 1 number, 2 text, 3 list of texts, 4 signed number */
    uint64_t number;
    int64_t signed_number;
    pmt_string text;
    const pmt_string *items; /* borrowed */
    size_t item_count;
} pmt_fact;

size_t pmt_reader_fact_count(const pmt_reader *self);
const pmt_fact *pmt_reader_fact(const pmt_reader *self, size_t at); /* borrowed */
const pmt_fact *pmt_reader_find_fact(const pmt_reader *self,
                                     const char *key); /* borrowed, or NULL */
/* A forked child's capture carries the blocks that it has from its parent as births up to some epoch: that epoch,
   or 0 if the capture does not say that there are any. */
uint64_t pmt_reader_inherited_epoch(const pmt_reader *self);
/* The process that it was forked from, else the one that started it; 0 if the capture does not say. */
uint64_t pmt_reader_parent_pid(const pmt_reader *self);

/* --- the time line --------------------------------------------------------------------------- */

typedef struct pmt_cut {
    uint64_t number;
    uint64_t t_ns;
    uint64_t span_ns;
    uint64_t unix_ns;
    uint64_t flags; /* PMT_CUT_* */
    uint64_t epoch;
    /* cumulative since the start */
    uint64_t live_bytes;
    uint64_t live_blocks;
    uint64_t allocations;
    uint64_t frees;
    uint64_t allocated_bytes;
    uint64_t peak_bytes;
    uint64_t peak_blocks;
    uint64_t peak_t_ns;
    uint64_t rss_bytes;
    uint64_t gc[3];
    uint64_t own_bytes;
} pmt_cut;

size_t pmt_reader_cut_count(const pmt_reader *self);
const pmt_cut *pmt_reader_cut(const pmt_reader *self, size_t at); /* borrowed */
/* The cut of "alive at the end": when main had returned, else the last; SIZE_MAX without a cut. */
size_t pmt_reader_end_cut(const pmt_reader *self);

typedef struct pmt_mark {
    uint64_t epoch; /* that it ended */
    uint64_t t_ns;
    pmt_string label;
} pmt_mark;

size_t pmt_reader_mark_count(const pmt_reader *self);
pmt_mark pmt_reader_mark(const pmt_reader *self, size_t at);

/* --- threads, frames, stacks ------------------------------------------------------------------ */

typedef struct pmt_thread {
    uint64_t id; /* 0 = events whose thread is not known */
    uint64_t native_id;
    uint64_t python_id;
    uint64_t birth_ns;
    uint64_t flags; /* 1 = has ended */
    uint64_t interpreter;
    pmt_string name;
} pmt_thread;

/* Thread 0 of the list is always the unknown one. */
size_t pmt_reader_thread_count(const pmt_reader *self);
pmt_thread pmt_reader_thread(const pmt_reader *self, size_t at);

enum {
    PMT_FRAME_PYTHON = 0,
    PMT_FRAME_NATIVE = 1,
    PMT_FRAME_INLINED = 2,
    PMT_FRAME_SYNTHETIC = 3
};
enum {
    PMT_FRAME_IS_IMPORT = 1, /* the import machinery */
    PMT_FRAME_IS_INTERPRETER =
        2, /* runpy, other frozen modules, PyMemTrace's own start-up; the interpreter's native frames */
    PMT_FRAME_IS_SYNTHETIC = 4 /* [folded], [no Python stack] */
};

/* A location: all stacks that differ only in instructions of one line are one. */
typedef struct pmt_frame {
    pmt_string function;
    pmt_string file;
    pmt_string module; /* empty if it cannot be derived */
    int64_t line;      /* 0 = not known */
    int kind;
    unsigned flags;
    pmt_string object; /* of a native or inlined frame: the path of its executable or library */
} pmt_frame;

size_t pmt_reader_frame_count(const pmt_reader *self);
pmt_frame pmt_reader_frame(const pmt_reader *self, uint32_t frame);

/* --- symbols ---------------------------------------------------------------------------------

   A native frame is recorded as a place in an executable or library. What it is in the source code is looked up
   later, outside of this library, and kept in the capture. Until then the frame's function is
   "libx.so+0x1234" and its file the path of the object; then it is the frames of the place, those that the
   compiler has inlined among them, and their module is the name of the object: "libx.so". */

/* A place that has not been looked up. */
typedef struct pmt_place {
    pmt_string object;
    uint64_t offset;         /* a return address: what called is the byte before it */
    const uint8_t *build_id; /* borrowed from the reader; NULL: not known */
    size_t build_id_size;
} pmt_place;

size_t pmt_reader_unresolved_count(const pmt_reader *self);
pmt_place pmt_reader_unresolved(const pmt_reader *self, size_t at);

/* What was found, put together place by place. */
typedef struct pmt_symbols pmt_symbols;

/* *out is for the caller to destroy. PMT_ERR_NOMEM. */
int pmt_symbols_create(pmt_symbols **out, const pmt_allocator *allocator, pmt_error *err);
/* Begins a place; the frames follow, the innermost first. None: it was looked for and not found. */
void pmt_symbols_put_place(pmt_symbols *self, pmt_string object, uint64_t offset);
void pmt_symbols_put_frame(pmt_symbols *self, pmt_string function, pmt_string file, int64_t line);
/* The payload of a chunk SYMB, borrowed until more is put. PMT_ERR_NOMEM. */
int pmt_symbols_bytes(pmt_symbols *self, const void **out, size_t *size, pmt_error *err);
void pmt_symbols_destroy(pmt_symbols *self); /* NULL is allowed */

/* Appends such bytes to the file that the reader was opened with. PMT_ERR_STATE: it may still be written, is damaged,
   has changed, or somebody else appends right now; PMT_ERR_IO: it cannot be written. Nothing is changed then. */
int pmt_symbols_append(const pmt_reader *reader, const char *path, const void *bytes, size_t size,
                       pmt_error *err);

/* --- stacks -----------------------------------------------------------------------------------

   Stacks are nodes of a tree; stack 0 is its root and has no frame. parent < stack. */
size_t pmt_reader_stack_count(const pmt_reader *self);
uint32_t pmt_reader_stack_parent(const pmt_reader *self, uint32_t stack);
uint32_t pmt_reader_stack_frame(const pmt_reader *self, uint32_t stack); /* not for stack 0 */

/* The frame that a stack is blamed on: the innermost line of Python, whatever native functions it has called.
   Without one, the innermost frame; UINT32_MAX for stack 0. */
uint32_t pmt_reader_blamed_frame(const pmt_reader *self, uint32_t stack);

/* A site: blocks of one size that one thread allocated in one domain from one stack. Ids start at 1. */
typedef struct pmt_site {
    uint32_t stack;
    uint32_t thread; /* place in the list of threads */
    uint32_t size;   /* bytes; PMT_SITE_SIZELESS: any larger size */
    int domain;      /* PMT_DOMAIN_*; docs/format.md, SITES */
} pmt_site;

#define PMT_SITE_SIZELESS 513

size_t pmt_reader_site_count(const pmt_reader *self); /* ids are less or equal */
pmt_site pmt_reader_site(const pmt_reader *self, uint32_t site);

/* --- the event log --------------------------------------------------------------------------- */

typedef struct pmt_event_log {
    int present;       /* the program was recorded with an event log */
    uint64_t events;   /* that happened, up to the last cut; their numbers are 0 to events - 1 */
    uint64_t logged;   /* of these */
    uint64_t complete; /* the log has all events whose number is less; = events: it has all */
} pmt_event_log;

void pmt_reader_event_log(const pmt_reader *self, pmt_event_log *out);

typedef enum pmt_event_kind {
    PMT_EVENT_IS_ALLOC = 0,
    PMT_EVENT_IS_FREE = 1,
    PMT_EVENT_IS_REALLOC_ALLOC =
        2, /* of one realloc: the old block dies (3), the new one is born */
    PMT_EVENT_IS_REALLOC_FREE = 3,
    PMT_EVENT_IS_REUSE_ALLOC = 4, /* an object from a free list: its block changes the site */
    PMT_EVENT_IS_REUSE_FREE = 5,
} pmt_event_kind;

#define PMT_EVENT_SIZE_UNKNOWN UINT64_MAX

typedef struct pmt_event {
    uint64_t number;
    uint64_t t_ns; /* interpolated within a stretch of some 100,000 events or one cut */
    pmt_event_kind kind;
    uint32_t site; /* of the block */
    uint64_t address;
    uint64_t size; /* PMT_EVENT_SIZE_UNKNOWN: a free in a sizeless site */
} pmt_event;

/* A walk over the log, in order. The file is read along with it. */
typedef struct pmt_event_walk pmt_event_walk;

/* `path` or `bytes`: what the reader was opened with, or a later state of the same capture. *out is for the caller to
   destroy, before the reader. PMT_ERR_IO, PMT_ERR_NOMEM, PMT_ERR_STATE if it is another capture. */
int pmt_event_walk_open(pmt_event_walk **out, const pmt_reader *reader, const char *path,
                        pmt_error *err);
int pmt_event_walk_open_bytes(pmt_event_walk **out, const pmt_reader *reader, const void *bytes,
                              size_t size, pmt_error *err); /* bytes are borrowed */
/* 1: *out is the next event. 0: there is none. PMT_ERR_STATE: the file is not what it was; PMT_ERR_IO, PMT_ERR_NOMEM. */
int pmt_event_walk_next(pmt_event_walk *self, pmt_event *out, pmt_error *err);
void pmt_event_walk_destroy(pmt_event_walk *self); /* NULL is allowed */

/* --- estimates -------------------------------------------------------------------------------

   Blocks and bytes of a sampled capture are estimates: of a Poisson process over the allocated bytes, each block with a point
   in it is a sample, and stands for 1 / p blocks, p being its chance to be one (Horvitz and Thompson, A generalization of sampling
   without replacement, 1952). */

/* What an estimate rests on. Those of parts add up; so do those of several captures, and what a full capture says is sure. */
typedef struct pmt_spread {
    uint64_t samples;
    uint64_t sure_blocks; /* of the estimate: recorded with certainty, as everything large is */
    uint64_t sure_bytes;
    double
        blocks2; /* variance of the rest, blocks^2: the sum over samples of (1 - p) / p^2 and what rounding adds */
    double bytes2; /* bytes^2 */
} pmt_spread;

/* Limits that hold the true value in 95 of 100 cases: low <= estimate <= high, low >= sure.

   The part that is not sure, E with the variance V, is taken for a Poisson count k = E^2 / V times V / E (Fay and Feuer, Confidence
   intervals for directly standardized rates, 1997), and the limits are those of Jeffreys for k: quantiles of the Gamma
   distribution with the shape k + 1/2, by the approximation of Wilson and Hilferty (The distribution of chi-square, 1931). The true
   cover is 93 to 97 % from some 5 samples on, and about 84 % or more where an estimate is of a few blocks of one size that are nearly
   sure. Nothing is known of what has no sample: it is less than three sampling means in 95 of 100 cases. */
void pmt_interval(uint64_t estimate, uint64_t sure, double variance, uint64_t *low, uint64_t *high);

/* --- aggregating ----------------------------------------------------------------------------- */

typedef enum pmt_view {
    PMT_VIEW_PEAK = 1,      /* live at the highest point */
    PMT_VIEW_LEAKS = 2,     /* allocated and still alive at the end */
    PMT_VIEW_TOTAL = 3,     /* allocated */
    PMT_VIEW_TEMPORARY = 4, /* freed at once: within N further allocations of the same thread */
} pmt_view;

typedef struct pmt_query {
    pmt_view view;
    /* The time window, in whole cuts, at least one: those whose borders are nearest to start_ns and
       end_ns (pmt_aggregate_window says which). Peak: the highest point, which is exact if it is that
       of the whole run and the highest cut else. Leaks: allocated in the window and alive at its end. */
    int has_start;
    int has_end;
    uint64_t start_ns;
    uint64_t end_ns;
    const char *thread; /* name or native id; NULL = all */
    /* Patterns (*, ?, [..]) on a frame's file path or what follows any slash in it, likewise on that of a native
       frame's object, its module, or a package that the module is in; the module of the program's main file is __main__ as well.
       A stack is kept if any of its frames matches an include pattern (or there is none), and
       dropped if its innermost frame that is not synthetic matches an exclude pattern: the innermost line of Python,
       or one of the native functions that it has called. */
    const char *const *include;
    size_t include_count;
    const char *const *exclude;
    size_t exclude_count;
    uint64_t exclude_epoch; /* blocks that were born up to this epoch are left out; 0 = none are */
} pmt_query;

typedef struct pmt_value {
    uint64_t bytes; /* of the view */
    uint64_t blocks;
    uint64_t allocated_bytes; /* in the window, whatever the view */
    uint64_t allocations;
    uint64_t inuse_bytes; /* peak view: as bytes; else what is alive at the window's end */
    uint64_t inuse_blocks;
    uint64_t temporary_bytes; /* in the window, whatever the view */
    uint64_t temporaries;
} pmt_value;

/* How sure a value is. */
typedef struct pmt_spreads {
    pmt_spread view;      /* bytes, blocks */
    pmt_spread allocated; /* allocated_bytes, allocations */
} pmt_spreads;

/* *out is for the caller to destroy, before the reader. PMT_ERR_ARGUMENT for an unknown thread or an
   empty window; PMT_ERR_NOMEM. */
int pmt_aggregate_create(pmt_aggregate **out, const pmt_reader *reader, const pmt_query *query,
                         pmt_error *err);
void pmt_aggregate_destroy(pmt_aggregate *self);

void pmt_aggregate_total(const pmt_aggregate *self, pmt_value *out);
/* 1: the values are estimates, as a capture is sampled; else all of them is sure. */
int pmt_aggregate_is_estimate(const pmt_aggregate *self);
void pmt_aggregate_total_spreads(const pmt_aggregate *self, pmt_spreads *out);
/* The stretch of time that was used. 1 if it is less than the whole run, else 0. Of several captures it counts from
   the first start; where their cuts do not make up one stretch, it is the one that was asked for. */
int pmt_aggregate_window(const pmt_aggregate *self, uint64_t *start_ns, uint64_t *end_ns);

/* Rows, the heaviest first. Rows without bytes and blocks in the view are left out. */
typedef struct pmt_row {
    uint32_t stack; /* by location: the heaviest one of the row */
    /* Its innermost, of a site the one that is blamed; UINT32_MAX for the root stack, which has none. */
    uint32_t frame;
    pmt_value value;
    const pmt_spreads *spreads; /* borrowed; NULL: all of it is sure */
} pmt_row;

/* One row per distinct stack. *out is borrowed from the aggregate. */
size_t pmt_aggregate_stacks(const pmt_aggregate *self, const pmt_row **out);
/* One row per line that is blamed, or, native, per innermost frame, which may be native. *out is for the
   caller to release with the reader's allocator through pmt_rows_release. */
int pmt_aggregate_sites(const pmt_aggregate *self, int native, pmt_row **out, size_t *count,
                        pmt_error *err);
void pmt_rows_release(const pmt_aggregate *self, pmt_row *rows); /* and their spreads */
void pmt_row_spreads(const pmt_row *row, pmt_spreads *out);

/* --- several captures ------------------------------------------------------------------------ */

enum {
    PMT_COMBINE_WITH_INHERITED = 1, /* count inherited blocks in every process that has them */
    PMT_COMBINE_BY_PROCESS =
        2, /* below the root, a frame for each process: its stacks stay apart */
};

/* The aggregates of several captures as one: stacks of the same frames (file, line, function; object and
   offset) are one stack, and the values add up. The view "peak" is the sum of each capture's own peak, which
   are not simultaneous. A block that a fork has handed down counts where it was allocated, once.

   The window counts from the start of the capture that started first. A capture that it does not touch, or
   that has no such thread, adds nothing; PMT_ERR_ARGUMENT if that is so of all. *out is for the caller to
   destroy, before the readers, of which there is at least one; they have the same allocator. What else can
   be asked of an aggregate can be asked of it; stacks and frames are its own. PMT_ERR_NOMEM,
   PMT_ERR_LIMIT. */
int pmt_aggregate_combine(pmt_aggregate **out, const pmt_reader *const *readers, size_t count,
                          const pmt_query *query, unsigned flags, pmt_error *err);

/* How many captures it is of; 1 for an aggregate of one reader. */
size_t pmt_aggregate_capture_count(const pmt_aggregate *self);
/* What the stacks and frames of its rows are places of: the reader that it was made from or, of several
   captures, one that holds their stacks and frames and nothing else. Borrowed. */
const pmt_reader *pmt_aggregate_names(const pmt_aggregate *self);
/* The bytes of the view by capture, in the order of the readers: of everything, or for each row of
   pmt_aggregate_stacks or pmt_aggregate_sites. out: capture_count numbers for each row. */
void pmt_aggregate_bytes_by_capture(const pmt_aggregate *self, uint64_t *out);
void pmt_aggregate_stacks_by_capture(const pmt_aggregate *self, const pmt_row *rows, size_t count,
                                     uint64_t *out);
int pmt_aggregate_sites_by_capture(const pmt_aggregate *self, int native, const pmt_row *rows,
                                   size_t count, uint64_t *out, pmt_error *err);

#ifdef __cplusplus
}
#endif
#endif
