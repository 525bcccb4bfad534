#include "symbolize/object.h"

#include <elf.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- pieces of the file ------------------------------------------------------------------------ */

/* `count` things of this size at an offset, or NULL if the file does not have them. */
static const void *
piece(const pmt__object *self, uint64_t offset, uint64_t count, size_t size)
{
    bool aligned = size == 1 || offset % 8 == 0;
    if (offset > self->size || count > (self->size - offset) / size || !aligned) {
        return NULL;
    }
    return self->bytes + offset;
}

/* The text at a place of a string table; NULL if it does not end within the table. */
static const char *
text_in(const pmt__object *self, const Elf64_Shdr *table, uint64_t at)
{
    if (table->sh_offset > self->size || table->sh_size > self->size - table->sh_offset
        || at >= table->sh_size) {
        return NULL;
    }
    const char *text = (const char *)self->bytes + table->sh_offset + at;
    return memchr(text, '\0', (size_t)(table->sh_size - at)) == NULL ? NULL : text;
}

static const Elf64_Ehdr *
header_of(const pmt__object *self)
{
    return (const Elf64_Ehdr *)(const void *)self->bytes;
}

/* The section headers; *count is 0 if there are none. */
static const Elf64_Shdr *
sections_of(const pmt__object *self, size_t *count)
{
    const Elf64_Ehdr *header = header_of(self);
    *count = 0;
    if (header->e_shoff == 0 || header->e_shentsize != sizeof(Elf64_Shdr)) {
        return NULL;
    }
    const Elf64_Shdr *sections = piece(self, header->e_shoff, 1, sizeof *sections);
    if (sections == NULL) {
        return NULL;
    }
    /* More than fit into the field: the first one has the number. */
    uint64_t all = header->e_shnum != 0 ? header->e_shnum : sections[0].sh_size;
    if (piece(self, header->e_shoff, all, sizeof *sections) == NULL) {
        return NULL;
    }
    *count = (size_t)all;
    return sections;
}

/* --- what it is -------------------------------------------------------------------------------- */

static void
take_build_id(pmt__object *self, uint64_t offset, uint64_t size)
{
    if (piece(self, offset, size, 1) == NULL) {
        return;
    }
    const uint8_t *at = self->bytes + offset;
    const uint8_t *end = at + size;
    while (self->build_id_size == 0 && (size_t)(end - at) >= sizeof(Elf64_Nhdr)) {
        Elf64_Nhdr note;
        memcpy(&note, at, sizeof note);
        at += sizeof note;
        uint64_t name_size = ((uint64_t)note.n_namesz + 3) / 4 * 4;
        uint64_t size_padded = ((uint64_t)note.n_descsz + 3) / 4 * 4;
        if (name_size > (uint64_t)(end - at) || note.n_descsz > (uint64_t)(end - at) - name_size) {
            return;
        }
        if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 && memcmp(at, "GNU", 4) == 0
            && note.n_descsz <= PMT_BUILD_ID_MAX) {
            memcpy(self->build_id, at + name_size, note.n_descsz);
            self->build_id_size = note.n_descsz;
        }
        uint64_t step = name_size + size_padded;
        at += step < (uint64_t)(end - at) ? step : (uint64_t)(end - at);
    }
}

static const char *
take_segments(pmt__object *self)
{
    const Elf64_Ehdr *header = header_of(self);
    if (header->e_phnum == 0) {
        return NULL;
    }
    const Elf64_Phdr *segments =
        header->e_phentsize == sizeof *segments
            ? piece(self, header->e_phoff, header->e_phnum, sizeof *segments)
            : NULL;
    if (segments == NULL) {
        return "it is cut short";
    }
    self->loads = calloc(header->e_phnum, sizeof *self->loads);
    if (self->loads == NULL) {
        return "out of memory";
    }
    for (size_t i = 0; i < header->e_phnum; i++) {
        const Elf64_Phdr *segment = &segments[i];
        if (segment->p_type == PT_LOAD && segment->p_memsz <= UINT64_MAX - segment->p_vaddr) {
            self->loads[self->load_count++] =
                (pmt__range){segment->p_vaddr, segment->p_vaddr + segment->p_memsz};
        } else if (segment->p_type == PT_NOTE) {
            take_build_id(self, segment->p_offset, segment->p_filesz);
        }
    }
    return NULL;
}

static void
take_debug_link(pmt__object *self, const Elf64_Shdr *section)
{
    const char *name = text_in(self, section, 0);
    if (name == NULL) {
        return;
    }
    size_t at = (strlen(name) + 4) / 4 * 4; /* behind its NUL, aligned */
    if (at + 4 <= section->sh_size) {
        self->debug_link = name;
        memcpy(&self->debug_link_crc, name + at, 4);
    }
}

static void
take_sections(pmt__object *self)
{
    size_t count;
    const Elf64_Shdr *sections = sections_of(self, &count);
    size_t names = header_of(self)->e_shstrndx;
    if (names == SHN_XINDEX && count != 0) {
        names = sections[0].sh_link;
    }
    for (size_t i = 1; i < count && names < count; i++) {
        const char *name = text_in(self, &sections[names], sections[i].sh_name);
        if (name == NULL || sections[i].sh_type == SHT_NOBITS) {
            continue;
        }
        if (sections[i].sh_type == SHT_NOTE) {
            /* of a debug file, whose segments are where those of the object were */
            take_build_id(self, sections[i].sh_offset, sections[i].sh_size);
        } else if (strcmp(name, ".debug_info") == 0 || strcmp(name, ".zdebug_info") == 0) {
            self->has_dwarf = true;
        } else if (strcmp(name, ".gnu_debuglink") == 0) {
            take_debug_link(self, &sections[i]);
        }
    }
}

static const char *
map_file(pmt__object *self)
{
    /* O_NONBLOCK: opening a pipe that nobody writes would wait for ever. */
    int fd = open(self->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) {
        return "no such file";
    }
    struct stat facts;
    const char *failure = NULL;
    if (fstat(fd, &facts) < 0 || !S_ISREG(facts.st_mode)) {
        failure = "it is no regular file";
    } else if ((uint64_t)facts.st_size < sizeof(Elf64_Ehdr)) {
        failure = "it is no ELF file";
    } else {
        self->size = (size_t)facts.st_size;
        void *mapping = mmap(NULL, self->size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (mapping == MAP_FAILED) {
            failure = "it cannot be mapped";
        } else {
            self->bytes = mapping;
        }
    }
    close(fd);
    return failure;
}

const char *
pmt__object_open(pmt__object *out, const char *path)
{
    memset(out, 0, sizeof *out);
    out->path = path;
    const char *failure = map_file(out);
    if (failure != NULL) {
        return failure;
    }
    const Elf64_Ehdr *header = header_of(out);
    bool is_ours = memcmp(header->e_ident, ELFMAG, SELFMAG) == 0
                   && header->e_ident[EI_CLASS] == ELFCLASS64
                   && header->e_ident[EI_DATA] == ELFDATA2LSB
                   && (header->e_type == ET_DYN || header->e_type == ET_EXEC);
    failure = is_ours ? take_segments(out) : "it is no ELF file of this machine";
    if (failure != NULL) {
        pmt__object_close(out);
        return failure;
    }
    take_sections(out);
    return NULL;
}

void
pmt__object_close(pmt__object *self)
{
    if (self->bytes != NULL) {
        /* A mapping is made read-only and given back as what it was made from. */
        munmap((void *)(uintptr_t)self->bytes, self->size);
    }
    free(self->loads);
    memset(self, 0, sizeof *self);
}

bool
pmt__object_has(const pmt__object *self, uint64_t address)
{
    for (size_t i = 0; i < self->load_count; i++) {
        if (address >= self->loads[i].start && address < self->loads[i].end) {
            return true;
        }
    }
    return false;
}

uint32_t
pmt__object_crc(const pmt__object *self)
{
    uint32_t table[256];
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t value = i;
        for (int bit = 0; bit < 8; bit++) {
            value = value & 1 ? value >> 1 ^ 0xedb88320u : value >> 1;
        }
        table[i] = value;
    }
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < self->size; i++) {
        crc = table[(crc ^ self->bytes[i]) & 0xff] ^ crc >> 8;
    }
    return ~crc;
}

/* --- symbols ----------------------------------------------------------------------------------- */

/* What of several names of one function is shown: the public one, the one without underscores. */
static int
rank_of(const Elf64_Sym *symbol, const char *name)
{
    unsigned bind = ELF64_ST_BIND(symbol->st_info);
    int rank = bind == STB_GLOBAL ? 4 : bind == STB_WEAK ? 2 : 0;
    return rank + (name[0] == '_' && name[1] != 'Z' && name[1] != 'R' ? 0 : 1);
}

static bool
add_table(pmt__symbols *self, const pmt__object *object, const Elf64_Shdr *table,
          const Elf64_Shdr *names)
{
    size_t count = (size_t)(table->sh_size / sizeof(Elf64_Sym));
    const Elf64_Sym *symbols = piece(object, table->sh_offset, count, sizeof *symbols);
    if (symbols == NULL || table->sh_entsize != sizeof *symbols) {
        return true;
    }
    if (count > self->room - self->count) {
        size_t room = self->count + count;
        pmt__symbol *items = realloc(self->items, room * sizeof *items);
        if (items == NULL) {
            return false;
        }
        self->items = items;
        self->room = room;
    }
    for (size_t i = 0; i < count; i++) {
        unsigned type = ELF64_ST_TYPE(symbols[i].st_info);
        if ((type != STT_FUNC && type != STT_GNU_IFUNC) || symbols[i].st_shndx == SHN_UNDEF
            || symbols[i].st_size > UINT64_MAX - symbols[i].st_value) {
            continue;
        }
        const char *name = text_in(object, names, symbols[i].st_name);
        if (name != NULL && name[0] != '\0') {
            self->items[self->count++] = (pmt__symbol){symbols[i].st_value, symbols[i].st_size,
                                                       name, rank_of(&symbols[i], name)};
        }
    }
    return true;
}

bool
pmt__symbols_add(pmt__symbols *self, const pmt__object *object)
{
    size_t count;
    const Elf64_Shdr *sections = sections_of(object, &count);
    for (size_t i = 1; i < count; i++) {
        bool is_table = sections[i].sh_type == SHT_SYMTAB || sections[i].sh_type == SHT_DYNSYM;
        if (is_table && sections[i].sh_link < count
            && !add_table(self, object, &sections[i], &sections[sections[i].sh_link])) {
            return false;
        }
    }
    return true;
}

static int
compare_symbols(const void *left, const void *right)
{
    const pmt__symbol *a = left;
    const pmt__symbol *b = right;
    if (a->start != b->start) {
        return a->start < b->start ? -1 : 1;
    }
    if (a->rank != b->rank) {
        return a->rank < b->rank ? -1 : 1;
    }
    return strcmp(b->name, a->name);
}

void
pmt__symbols_sort(pmt__symbols *self)
{
    if (self->count > 1) {
        qsort(self->items, self->count, sizeof *self->items, compare_symbols);
    }
}

const char *
pmt__symbols_find(const pmt__symbols *self, uint64_t address)
{
    enum {
        STEPS = 16 /* functions do not nest, but their other names do */
    };
    size_t low = 0;
    size_t high = self->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (self->items[middle].start <= address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    for (size_t i = low; i > 0 && low - i < STEPS; i--) {
        const pmt__symbol *symbol = &self->items[i - 1];
        if (address - symbol->start < symbol->size) {
            return symbol->name;
        }
    }
    return NULL;
}
