/* An ELF file on the disk: what it is, where its debug information is, and its symbol tables.

   Nothing in the file is trusted: every offset is checked before it is used. It is mapped, so a file that
   is cut short meanwhile ends this process, which is there for that. */
#ifndef PMT_SYMBOLIZE_OBJECT_H
#define PMT_SYMBOLIZE_OBJECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PMT_BUILD_ID_MAX 64

typedef struct pmt__range {
    uint64_t start;
    uint64_t end;
} pmt__range;

typedef struct pmt__object {
    const char *path;     /* borrowed */
    const uint8_t *bytes; /* owned: a mapping; NULL: not open */
    size_t size;
    uint8_t build_id[PMT_BUILD_ID_MAX];
    size_t build_id_size; /* 0: it has none */
    bool has_dwarf;
    const char *debug_link; /* borrowed from the mapping: the name of its debug file, or NULL */
    uint32_t debug_link_crc;
    pmt__range *loads; /* owned: the addresses that it occupies */
    size_t load_count;
} pmt__object;

/* NULL, or why not; static. A failed object needs no closing. */
const char *pmt__object_open(pmt__object *out, const char *path);
void pmt__object_close(pmt__object *self);

bool pmt__object_has(const pmt__object *self, uint64_t address);
/* The CRC-32 of all its bytes, as .gnu_debuglink counts it. */
uint32_t pmt__object_crc(const pmt__object *self);

typedef struct pmt__symbol {
    uint64_t start;
    uint64_t size;
    const char *name; /* borrowed from the mapping of its object */
    int rank;         /* of several at one address, the highest is shown */
} pmt__symbol;

typedef struct pmt__symbols {
    pmt__symbol *items; /* owned; by address once they are sorted */
    size_t count;
    size_t room;
} pmt__symbols;

/* Appends the functions of .symtab and .dynsym. False: out of memory. */
bool pmt__symbols_add(pmt__symbols *self, const pmt__object *object);
void pmt__symbols_sort(pmt__symbols *self);
/* The function that the address lies in; NULL if there is none. */
const char *pmt__symbols_find(const pmt__symbols *self, uint64_t address);

#endif
