/* The numbers of the capture format. docs/format.md is the specification; this header only names them. */
#ifndef PMT_FORMAT_SPEC_H
#define PMT_FORMAT_SPEC_H

#include <stdint.h>

#define PMT_FORMAT_MAJOR 1
#define PMT_FORMAT_MINOR 0
#define PMT_HEADER_SIZE 4096
#define PMT_HEADER_USED 64
#define PMT_HEADER_ID_OFFSET 32
#define PMT_SLOT_A_OFFSET 512
#define PMT_SLOT_B_OFFSET 1024
#define PMT_SLOT_SIZE 256
#define PMT_CHUNK_HEADER_SIZE 40
#define PMT_CHUNK_MAX (256u << 20) /* stored and raw payload */

#define PMT_MAGIC_BYTES {0x89, 'P', 'M', 'T', '\r', '\n', 0x1a, '\n'}

#define PMT_FEATURE_EPOCHS 1u
#define PMT_FEATURE_EVENTS 2u
#define PMT_FEATURE_REDACTED 4u

enum {
    PMT_STATUS_RECORDING = 1,
    PMT_STATUS_ENDED = 2,
    PMT_STATUS_STOPPED = 3
};
enum {
    PMT_REASON_NONE = 0,
    PMT_REASON_NO_SPACE = 1,
    PMT_REASON_MAX_SIZE = 2,
    PMT_REASON_WRITE_ERROR = 3,
    PMT_REASON_FILE_GONE = 4
};

#define PMT_CHUNK_COMPRESSED 1u
#define PMT_CHUNK_REQUIRED 2u

enum {
    PMT_SECTION_STRINGS = 1,
    PMT_SECTION_CODES = 2,
    PMT_SECTION_NODES = 3,
    PMT_SECTION_SITES = 4,
    PMT_SECTION_THREADS = 5,
    PMT_SECTION_MARKS = 6,
    PMT_SECTION_CUT = 7,
    PMT_SECTION_SIZES = 8,
    PMT_SECTION_RESIDENT = 9,
    PMT_SECTION_LIFETIMES = 10,
    PMT_SECTION_OBJECTS = 11,
    PMT_SECTION_SAMPLES = 12
};

#define PMT_SAMPLES_ENTRY_MIN 39 /* bytes */
#define PMT_SAMPLE_SURE 8        /* blocks of so many means are sure */

enum { /* figures of RESIDENT */
    PMT_RESIDENT_T = 1,
    PMT_RESIDENT_TOOK = 2,
    PMT_RESIDENT_RSS = 3,
    PMT_RESIDENT_SWAP = 4,
    PMT_RESIDENT_ARENAS = 5,
    PMT_RESIDENT_ARENAS_MAPPED = 6,
    PMT_RESIDENT_POOLS_USED = 7, /* bytes of blocks */
    PMT_RESIDENT_POOLS = 8,
    PMT_RESIDENT_POOLS_EMPTY = 9,
    PMT_RESIDENT_FRAMES = 10,
    PMT_RESIDENT_HEAP = 11,
    PMT_RESIDENT_HEAP_MAPPED = 12,
    PMT_RESIDENT_HEAPS = 13, /* of threads */
    PMT_RESIDENT_HEAPS_MAPPED = 14,
    PMT_RESIDENT_HEAPS_ARENAS = 15,
    PMT_RESIDENT_MALLOC_USED = 16,
    PMT_RESIDENT_MALLOC_FREE = 17,
    PMT_RESIDENT_MALLOC_TOP = 18,
    PMT_RESIDENT_CHUNKS = 19, /* with mappings of their own */
    PMT_RESIDENT_CHUNKS_MAPPED = 20,
    PMT_RESIDENT_CHUNKS_COUNT = 21,
    PMT_RESIDENT_CHUNKS_REQUESTED = 22,
    PMT_RESIDENT_MAPPINGS = 23,
    PMT_RESIDENT_MAPPINGS_MAPPED = 24,
    PMT_RESIDENT_FILES = 25,
    PMT_RESIDENT_FILES_SHARED = 26,
    PMT_RESIDENT_FILES_PRIVATE = 27,
    PMT_RESIDENT_SHARED_MEMORY = 28,
    PMT_RESIDENT_STACKS = 29,
    PMT_RESIDENT_STACKS_COUNT = 30,
    PMT_RESIDENT_MAIN_STACK = 31,
    PMT_RESIDENT_OWN = 32,
    PMT_RESIDENT_KERNEL = 33,
    PMT_RESIDENT_UNKNOWN = 34,
    PMT_RESIDENT_BY_PAGES = 35,
    PMT_RESIDENT_LIVE = 64, /* + 2 * domain + (1: over 512 bytes) */
    PMT_RESIDENT_LIMIT = 80 /* one behind the last */
};
#define PMT_RESIDENT_CLASSES 64 /* size classes of pymalloc; 32 are in use */

enum {
    PMT_FACT_NUMBER = 1,
    PMT_FACT_TEXT = 2,
    PMT_FACT_LIST = 3,
    PMT_FACT_SIGNED = 4
};

#define PMT_UNKNOWN_NATIVE "[unknown native code]" /* a synthetic node: what could not be unwound */

enum {
    PMT_NODE_PYTHON = 0,
    PMT_NODE_NATIVE = 1,
    PMT_NODE_INLINED = 2,
    PMT_NODE_SYNTHETIC = 3
};

enum {
    PMT_DOMAIN_OBJ = 1,
    PMT_DOMAIN_MEM = 2,
    PMT_DOMAIN_RAW = 3,
    PMT_DOMAIN_MALLOC = 4,
    PMT_DOMAIN_MMAP = 5,
    PMT_DOMAIN_TRACK = 6,
    PMT_DOMAIN_COUNT = 7
};

#define PMT_BUILD_ID_MAX 64 /* bytes */

#define PMT_SIZE_EXACT_MAX 512u /* larger requests share one sizeless site */
#define PMT_SIZE_LARGE 513u     /* the size field of a sizeless site */

enum {
    PMT_CUT_MAIN_RETURNED = 1,
    PMT_CUT_FINAL = 2,
    PMT_CUT_PEAK_MOVED = 4,
    PMT_CUT_MERGED = 8
};

enum {
    PMT_COUNTER_MEMORY_LIMIT = 1,
    PMT_COUNTER_FOLDED_STACKS = 2,
    PMT_COUNTER_UNKNOWN_FREES = 3,
    PMT_COUNTER_FOREIGN = 4,
    PMT_COUNTER_MISSED_FREES = 5,
    PMT_COUNTER_NO_GIL = 6,
    PMT_COUNTER_NO_STACK = 7,
    PMT_COUNTER_CACHE_DROPS = 8,
    PMT_COUNTER_FOLDED_EPOCHS = 9,
    PMT_COUNTER_REATTRIBUTED = 10,
    PMT_COUNTER_FOLDED_THREADS = 11,
    PMT_COUNTER_LOG_DROPPED = 12,
    PMT_COUNTER_EVENTS = 13,
    PMT_COUNTER_HOOKS_LOST = 14,
    PMT_COUNTER_FOLDED_CUTS = 15,
    PMT_COUNTER_WAITED = 16,
    PMT_COUNTER_NO_PARENTS = 17,
    PMT_COUNTER_LIMIT = 18 /* one behind the last */
};

enum { /* of the event log */
    PMT_EVENT_ALLOC = 0,
    PMT_EVENT_FREE = 1,
    PMT_EVENT_WITH_SITE = 2 /* flag */
};
enum {
    PMT_CONTROL_REALLOC = 1,
    PMT_CONTROL_REATTRIBUTED = 2
};

enum {
    PMT_END_NORMAL = 1,
    PMT_END_BY_PROGRAM = 2,
    PMT_END_EXEC = 3
};

enum { /* how the main module ended */
    PMT_MAIN_UNKNOWN = 0,
    PMT_MAIN_RETURNED = 1,
    PMT_MAIN_EXITED = 2,
    PMT_MAIN_RAISED = 3
};

#endif
