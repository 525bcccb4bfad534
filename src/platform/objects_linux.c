/* Loaded objects without the loader's lock: glibc's _dl_find_object, which is made for unwinding, and what is mapped of the
   object's file. */
#include "platform/objects.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "platform/unwind.h"

#ifndef DLFO_EH_SEGMENT_TYPE /* built with an older C library, to be run with a newer one */
struct dl_find_object {
    unsigned long long dlfo_flags;
    void *dlfo_map_start, *dlfo_map_end;
    struct link_map *dlfo_link_map;
    void *dlfo_eh_frame;
    unsigned long long reserved[7];
};
extern int _dl_find_object(void *address, struct dl_find_object *result);
#endif
#pragma weak _dl_find_object

#define FIRST_PAGE 4096

int
pmt__objects_supported(void)
{
    return _dl_find_object != NULL;
}

/* The program headers, which linkers put behind the ELF header, at the beginning of what is mapped. */
static void
headers_find(pmt__object_map *map)
{
    const ElfW(Ehdr) *elf = (const ElfW(Ehdr) *)(uintptr_t)map->start;
    if (map->end - map->start >= FIRST_PAGE && memcmp(elf->e_ident, ELFMAG, SELFMAG) == 0
        && elf->e_phentsize == sizeof(ElfW(Phdr)) && elf->e_phoff >= sizeof *elf
        && elf->e_phoff % sizeof(uint64_t) == 0 && elf->e_phoff < FIRST_PAGE
        && elf->e_phnum <= (FIRST_PAGE - elf->e_phoff) / sizeof(ElfW(Phdr))) {
        map->headers = (const ElfW(Phdr) *)(uintptr_t)(map->start + elf->e_phoff);
        map->header_count = elf->e_phnum;
    }
}

int
pmt__object_map_find(uint64_t address, pmt__object_map *out)
{
    struct dl_find_object found;
    if (_dl_find_object == NULL || _dl_find_object((void *)(uintptr_t)address, &found) != 0) {
        return -1;
    }
    *out = (pmt__object_map){
        .start = (uintptr_t)found.dlfo_map_start,
        .end = (uintptr_t)found.dlfo_map_end,
        .bias = found.dlfo_link_map->l_addr,
        .entry = found.dlfo_link_map,
        .eh_frame_hdr = found.dlfo_eh_frame,
    };
    headers_find(out);
    return 0;
}

/* The part of [address, address + size) that is within the object. */
static pmt__cfi_range
clipped(const pmt__object_map *map, uint64_t address, uint64_t size)
{
    if (address < map->start || address >= map->end) {
        return (pmt__cfi_range){NULL, NULL};
    }
    const uint8_t *start = (const uint8_t *)(uintptr_t)address;
    uint64_t most = map->end - address;
    return (pmt__cfi_range){start, start + (size < most ? size : most)};
}

pmt__cfi_range
pmt__object_readable(const pmt__object_map *map, uint64_t address)
{
    if (map->headers == NULL) { /* without them we know no better */
        pmt__cfi_range all = clipped(map, map->start, map->end - map->start);
        return address >= map->start && address < map->end ? all : (pmt__cfi_range){NULL, NULL};
    }
    for (size_t i = 0; i < map->header_count; i++) {
        const ElfW(Phdr) *header = &map->headers[i];
        uint64_t start = map->bias + header->p_vaddr;
        if (header->p_type == PT_LOAD && (header->p_flags & PF_R) && address >= start
            && address - start < header->p_filesz) {
            pmt__cfi_range range = clipped(map, start, header->p_filesz);
            return address < (uintptr_t)range.end ? range : (pmt__cfi_range){NULL, NULL};
        }
    }
    return (pmt__cfi_range){NULL, NULL};
}

/* --- what is told of an object ------------------------------------------------------------------------------------------ */

/* Read once: who comes while another thread reads it gets the link's own name, which leads to the same file. */
static const char *
executable_path(void)
{
    static const char link[] = "/proc/self/exe";
    static char path[PATH_MAX];
    static int state; /* atomic: 0 not yet, 1 one thread reads it, 2 there */
    int now = __atomic_load_n(&state, __ATOMIC_ACQUIRE);
    if (now == 0
        && __atomic_compare_exchange_n(&state, &now, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE)) {
        int saved = errno;
        long size = syscall(SYS_readlink, link, path, sizeof path - 1);
        errno = saved;
        if (size <= 0) {
            memcpy(path, link, sizeof link);
        }
        __atomic_store_n(&state, 2, __ATOMIC_RELEASE);
        return path;
    }
    return now == 2 ? path : link;
}

static int
is_vdso(const pmt__object_map *map)
{
    int saved = errno;
    uint64_t start = getauxval(AT_SYSINFO_EHDR);
    errno = saved;
    return start != 0 && start == map->start;
}

/* The GNU build id among the notes in a range. Names and contents of notes begin at multiples of `align` from the note. */
static void
build_id_find(pmt__cfi_range notes, uint64_t align, pmt__object *out)
{
    const uint8_t *at = notes.start;
    align = align == 8 ? 8 : 4;
    ElfW(Nhdr) note;
    while ((size_t)(notes.end - at) >= sizeof note) {
        memcpy(&note, at, sizeof note);
        uint64_t left = (uint64_t)(notes.end - at);
        uint64_t content = (sizeof note + note.n_namesz + align - 1) & ~(align - 1);
        uint64_t next = (content + note.n_descsz + align - 1) & ~(align - 1);
        if (content + note.n_descsz > left) {
            return;
        }
        if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4
            && memcmp(at + sizeof note, "GNU", 4) == 0) {
            out->build_id = at + content;
            out->build_id_size = note.n_descsz;
            return;
        }
        at += next < left ? next : left;
    }
}

int
pmt__object_find(uint64_t pc, pmt__object *out)
{
    pmt__object_map map;
    if (pmt__object_map_find(pc, &map) < 0) {
        *out = (pmt__object){.path = ""};
        return -1;
    }
    const char *name = map.entry->l_name;
    *out = (pmt__object){
        .start = map.start,
        .end = map.end,
        .bias = map.bias,
        .path = is_vdso(&map)                     ? "[vdso]"
                : name == NULL || name[0] == '\0' ? executable_path()
                                                  : name,
    };
    for (size_t i = 0; i < map.header_count && out->build_id_size == 0; i++) {
        const ElfW(Phdr) *header = &map.headers[i];
        uint64_t start = map.bias + header->p_vaddr;
        pmt__cfi_range around = pmt__object_readable(&map, start);
        if (header->p_type == PT_NOTE && around.start != NULL) {
            uint64_t most = (uint64_t)((uintptr_t)around.end - start);
            const uint8_t *notes = (const uint8_t *)(uintptr_t)start;
            uint64_t size = header->p_filesz < most ? header->p_filesz : most;
            build_id_find((pmt__cfi_range){notes, notes + size}, header->p_align, out);
        }
    }
    return 0;
}
