/* Between the files of this room: loaded objects as the loader and their program headers describe them. */
#ifndef PMT_PLATFORM_OBJECTS_H
#define PMT_PLATFORM_OBJECTS_H

#include <elf.h>
#include <link.h>
#include <stddef.h>
#include <stdint.h>

#include "platform/cfi.h"

typedef struct pmt__object_map {
    uint64_t start, end, bias;
    const struct link_map *entry;
    const uint8_t *eh_frame_hdr; /* NULL: it has none */
    const ElfW(Phdr) * headers;  /* NULL: not where they usually are */
    size_t header_count;
} pmt__object_map;

int pmt__objects_supported(void);
/* 0, or -1: no object contains this address. */
int pmt__object_map_find(uint64_t address, pmt__object_map *out);
/* The readable bytes around an address: those that its segment has from the file. Empty if there are none. */
pmt__cfi_range pmt__object_readable(const pmt__object_map *map, uint64_t address);

#endif
