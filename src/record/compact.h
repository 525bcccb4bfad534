/* Compaction: a running capture is written anew, with old cuts merged into wider windows.

   A capture grows by a chunk per cut for as long as the process lives, although nobody needs to know of last week by the
   second. docs/format.md, "Merged windows", says what a merged window is; here is how one comes about. The work is done by the
   writer's thread beside its appending: chunks that were written do not change any more, so the old part is read and merged
   without a lock (pmt__compact_run), what came meanwhile is copied behind it, and only the last bit of that and the renaming
   need the writer's lock (pmt__compact_finish).

   Nothing here calls malloc or Python, or holds the tables. */
#ifndef PMT_RECORD_COMPACT_H
#define PMT_RECORD_COMPACT_H

#include <stdint.h>

#include "format/encode.h"
#include "pymemtrace/allocator.h"

/* How hard to merge. */
typedef struct pmt__compact_plan {
    uint32_t keep;    /* this many of the newest chunks stay as they are */
    uint32_t ratio;   /* a window spans at most its age / ratio; 0: one window for everything */
    int keeps_epochs; /* what was allocated in each marked epoch stays exact */
} pmt__compact_plan;

/* From gentle to all that can be done. The first is for captures that just grow; a limit on the size may need the others. */
#define PMT_COMPACT_PLANS 7
extern const pmt__compact_plan pmt__compact_plans[PMT_COMPACT_PLANS]
    __attribute__((visibility("hidden")));

typedef struct pmt__compact_input {
    const char *path; /* of the capture */
    uint64_t device, inode;
    const uint8_t *id; /* of the capture, 16 bytes: inode numbers are used again */
    uint64_t start;    /* of its first chunk */
    uint64_t end;      /* behind its last chunk */
    uint64_t sequence; /* of that chunk */
    uint64_t t_ns;     /* of the last cut */
    uint64_t limit;    /* the result is useless if it is larger */
    /* Of a box: the other region, where the result goes, into the same file. 0: into a file of its own. */
    uint64_t region_start, region_bytes;
    /* Called between chunks, without a lock held; not 0 ends the work. May be NULL. */
    int (*pause)(void);
} pmt__compact_input;

typedef struct pmt__compact {
    char path[4096 + 16]; /* of the temporary file */
    int in;               /* descriptor of the capture, for reading */
    uint64_t in_offset;   /* up to where it has been taken over */
    int fd;               /* descriptor of the temporary file */
    uint64_t device, inode;
    uint64_t start;  /* of its first chunk, in a box; else 0 */
    uint64_t limit;  /* in a box: behind its last byte; else 0 */
    uint64_t offset; /* behind its last chunk */
    uint64_t sequence;
    pmt__buffer out; /* chunks that are to be written at `offset` - out.len */
} pmt__compact;

/* Makes the temporary file and fills it. 0, or a negative errno, and then nothing is left of it: -ECANCELED by `pause`, -EFBIG over the
   limit, -EBADMSG when the capture holds what this code does not know or expect. */
int pmt__compact_run(pmt__compact *self, const pmt__compact_input *input,
                     const pmt__compact_plan *plan);
/* Takes over the chunks up to `end`. 0, or a negative errno; the caller then abandons it. */
int pmt__compact_follow(pmt__compact *self, uint64_t end);
/* Takes over the rest, writes the state slot (data end and seq are filled in) and gives the new file the capture's name if that still
   is the capture's; in a box, it is the slot that makes the other region the one that counts. 0: `fd`, `device`, `inode`, `offset` and `sequence` are those of the capture now. Else a negative errno, and nothing
   is left of it. The caller keeps everybody from appending. */
int pmt__compact_finish(pmt__compact *self, const pmt__compact_input *input, pmt__slot *slot);
void pmt__compact_abandon(pmt__compact *self, const pmt__compact_input *input);

/* Memory in use by compaction now. Atomic. */
uint64_t pmt__compact_bytes(void);
/* Page memory, as recording must take it. */
const pmt_allocator *pmt__compact_allocator(void);

#endif
