/* Stacks that are more than a chain of running Python frames: with native frames (--native), or with the suspended ones that await
   a task (--async-parents). What is kept per thread, and the native part of it.

   A mixed stack is a sequence of places, root first, like every other: the tree holds it, a cohort refers to its node. Places of
   native frames are numbers of their own (PMT_PLACE_NATIVE), each for an offset in an object.

   How it is known without unwinding it. The frames that the last event found are kept with the words of the stack that they were
   derived from: return addresses, and where a frame's base hangs on a saved register, that one. The next event walks from its own
   frame until it meets one of them: same place on the stack, same return address, same base. From there on it is enough that the
   words are what they were, because unwinding is a function of them. A word is read only after the frame that owns it was found
   to be active, so nothing is read that a walk would not read.

   Python's frames are put in where the evaluation loop that runs them has its frame: since 3.11 each activation of the loop keeps
   a struct on the C stack that the chain of Python frames leads to (PMT_FRAME_ENTRY_AT), and the native frame around that address
   is the loop's. It is left out in favour of what it runs.

   Frames that await. Below the first frame of a task stand those of the tasks that await it. They are looked up when that frame is
   new on the stack, by whoever holds the tables and may look at objects (PMT_FRAMES_ASK); they stay suspended while it runs. The
   step of a task always ends with an event without that frame, because its next step is scheduled by objects that are made then.

   The cost is the sequence, not the tree: prefixes are hashed, and only what changed is hashed again. The hash of the whole finds
   the cohort in the leaf caches, so that a thread without the GIL needs no table. */
#ifndef PMT_RECORD_MIXED_H
#define PMT_RECORD_MIXED_H

#include <stdint.h>

#include "platform/unwind.h"
#include "record/tables.h"

#define PMT_NATIVE_DEPTH 4096 /* native frames; further ones are cut off */
#define PMT_PYTHON_DEPTH 32768
#define PMT_PARENTS_MAX 4096      /* frames that await others, of one stack */
#define PMT_PARENTS_OF_FRAME 1024 /* of these, below one frame */
#define PMT_MIXED_DEPTH (PMT_NATIVE_DEPTH + PMT_PYTHON_DEPTH + PMT_PARENTS_MAX)

typedef struct pmt__native_frame {
    uint64_t pc;               /* where it stands: a return address */
    uint64_t sp;               /* its lowest address */
    uint64_t cfa;              /* its end, where its caller's begins */
    uint64_t bp;               /* the base register in it */
    uint64_t ra_at;            /* where its return address lies */
    uint64_t bp_at;            /* where it has saved the base register; 0: nowhere */
    uint64_t cfa_at, cfa_word; /* the word that the cfa was taken from; 0: it was not */
    uint32_t place;            /* 0: ours, not shown */
    int32_t python;            /* Python frames below and in it */
    int32_t length;            /* of the sequence up to and with it */
    uint8_t needs_bp; /* it or a caller of it is found by the base register as it is in it */
    uint8_t uses_bp;
    uint8_t is_system; /* of the interpreter, the C library or ours */
} pmt__native_frame;

/* A word on the stack, and what it was. */
typedef struct pmt__native_word {
    uint64_t at;
    uint64_t word;
} pmt__native_word;

typedef struct pmt__python_frame {
    const void *frame;
    uint64_t instr;
    uint64_t
        entry; /* not 0: the lowest frame of an activation of the loop, which keeps this address on the C stack */
    uint32_t place;
    uint32_t parents_end; /* those of the frames up to it, of parents[] */
} pmt__python_frame;

typedef struct pmt__stack_range {
    uint64_t low, high; /* readable */
} pmt__stack_range;

#define PMT_STACK_RANGES 4
#define PMT_PYTHON_POSITIONS 1024
#define PMT_PYTHON_PLACES 1024 /* sets of two */

/* Where a frame stands that was met before: for those who may not ask the tables. */
typedef struct pmt__known_place {
    uint64_t key; /* instruction, and 1 in a generator's frame */
    uint32_t place;
    uint32_t unused_;
} pmt__known_place;

/* Of one thread of the system, which owns it while it is inside the gate or its lane. */
typedef struct pmt__mixed {
    uint32_t generation;        /* of pmt__natives, for which all of it holds */
    uint32_t python_generation; /* of tables.lane_generation: code objects have died since */
    int32_t native_count;
    int32_t native_kept; /* of the newest walk: so many are as they were */
    int32_t python_count;
    int32_t python_kept;
    int32_t asked; /* so many of the Python frames have their parents */
    int32_t count; /* the sequence */
    int32_t known; /* so many of its nodes are known */
    int32_t trim;  /* so many native frames at the root are the system's */
    uint32_t had_python;
    uint32_t broken; /* the walk did not come to the end of the stack */
    uint32_t range;  /* the newest */
    uint32_t missing_is_return;
    uint64_t missing; /* the pc that a walk without the tables had no rule for; 0: none */
    pmt__stack_range ranges[PMT_STACK_RANGES];
    uint64_t hash[PMT_MIXED_DEPTH + 1]; /* of the prefixes */
    uint32_t node[PMT_MIXED_DEPTH + 1];
    uint32_t place[PMT_MIXED_DEPTH];
    pmt__native_frame native[PMT_NATIVE_DEPTH]; /* root first */
    pmt__native_word returns[PMT_NATIVE_DEPTH]; /* their return addresses; from the second on */
    uint8_t has_more[PMT_NATIVE_DEPTH];         /* they depend on other words, too */
    pmt__native_frame fresh[PMT_NATIVE_DEPTH];  /* top first */
    pmt__python_frame python[PMT_PYTHON_DEPTH]; /* root first */
    const void *chain[PMT_PYTHON_DEPTH];
    int32_t
        python_length[PMT_PYTHON_DEPTH]; /* of the sequence up to and with it; without natives */
    uint32_t parents[PMT_PARENTS_MAX];   /* places */
    uint32_t position[PMT_PYTHON_POSITIONS];
    pmt__known_place known_places[PMT_PYTHON_PLACES][2]; /* the newest first */
} pmt__mixed;

/* The place of what cannot be unwound. */
#define PMT_PLACE_NATIVE 0x40000000u /* | number of a native place */
#define PMT_PLACE_IS_NATIVE(place) \
    (((place) & (PMT_PLACE_NATIVE | PMT_PLACE_NOT_BEGUN)) == PMT_PLACE_NATIVE)
#define PMT_PLACE_LOST PMT_PLACE_NATIVE /* "[unknown native code]" */

typedef struct pmt__native_place {
    uint64_t offset; /* of the return address in the object */
    uint32_t object; /* index */
    uint32_t unused_;
} pmt__native_place;

#define PMT_BUILD_ID_MAX 64

typedef struct pmt__native_object {
    uint64_t start, end; /* where it is loaded; 0: it is not any more */
    uint64_t bias;
    uint32_t path; /* string id */
    uint8_t is_own, is_system;
    uint8_t is_base; /* a stack begins in it: what lies below is somebody else's */
    uint8_t build_id_size;
    uint8_t build_id[PMT_BUILD_ID_MAX];
} pmt__native_object;

/* Protected by the tables, but for the rules, which are added and read without. */
typedef struct pmt__natives {
    uint32_t on;         /* mixed stacks are recorded */
    uint32_t generation; /* atomic */
    struct pmt__native_rule *rules;
    uint32_t rule_count;
    pmt__native_place *places;
    uint32_t place_count;
    uint32_t *place_hash; /* numbers; key (object, offset) */
    uint32_t place_hash_mask;
    pmt__native_object *objects;
    uint32_t object_count, objects_flushed;
    uint32_t lost_name; /* string id */
    uint64_t page;      /* bytes */
    uint64_t library;   /* an address in the one that is preloaded; 0: none is */
} pmt__natives;

extern pmt__natives pmt__natives_now __attribute__((visibility("hidden")));

/* Reserves the tables. library: an address in the preloaded library, whose frames are ours, or NULL. 0, PMT_ERR_UNSUPPORTED (not on this machine or C library), PMT_ERR_NOMEM. After pmt__tables_create. */
int pmt__natives_create(const void *library);
void pmt__natives_dispose(void);
/* An object was unloaded: another can stand at its addresses. The caller holds the tables, and not as a hook. */
void pmt__natives_forget_nopy(void);
/* Drops the rules when they have become too many. As above. */
void pmt__natives_tidy_nopy(void);
uint64_t pmt__natives_bytes(void);
/* In a forked child: its capture needs all definitions again. */
void pmt__natives_forked_nopy(void);

pmt__mixed *pmt__mixed_new(void); /* NULL: no memory */
/* Nothing of what is kept holds. */
void pmt__mixed_clear(pmt__mixed *m);

/* Brings the native frames to where `from` stands; its own frame is the top one. tables: the caller holds them. 0, or -1: not
   without the tables. */
int pmt__mixed_walk_nopy(pmt__mixed *m, const pmt__unwind_regs *from, int tables);

/* Makes that rule: the way into a walk without the tables is met by no other walk. With the tables held. */
void pmt__mixed_missing_nopy(pmt__mixed *m);

/* The place of a pc, by no cache; 0: ours. With the tables held. */
uint32_t pmt__native_place_plain_nopy(uint64_t pc, int *is_system);
/* The rule at a pc, by no cache. */
void pmt__native_rule_plain_nopy(uint64_t pc, int is_return, pmt__unwind_rule *out);

#endif
