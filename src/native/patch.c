/* Patching loaded objects.

   A call to malloc goes through a word in the caller's own global offset table, which the loader has filled. That word is what we
   change, in every object but the C library, the loader and our own. What an object was compiled to call is in its relocations:
   JUMP_SLOT for calls, GLOB_DAT for addresses that are taken, R_X86_64_64 in variables and tables of functions. The first two are
   the loader's. A variable is the program's: it may hold another function by now (CPython's decimal puts PyMem_Free where `free` was),
   and another thread may be about to change it. So it is exchanged only if it still holds what the loader put there.

   The originals are those of the first object in the order of the link map that *defines* the symbol, which is what the callers
   were bound to. dlsym would not do: in an executable that is not position-independent, a function whose address is taken
   has its own call stub for an address, and the original would call itself.

   A table that the loader has made read-only (RELRO) is made writable for the moment and read-only again. That it is read-only is also
   how we know that the loader has done with an object: another thread may be in the middle of a dlopen, the object is in the link map
   before it is relocated, and whoever changes a table then, or its protection, breaks it. Such an object waits for the next time; one
   without RELRO, of which this cannot be told, is patched only at the start.

   Objects that are loaded later are patched by the next pmt__native_patch_again, which asks the loader for its count of loaded
   objects. dlopen itself is not replaced: it finds libraries by its caller's search path. */
#include "native/patch.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#include "base/error.h"
#include "native/preload.h"
#include "platform/platform.h"
#include "record/children_table.h"
#include "record/ranges.h"

#if defined(__x86_64__)
#define IS_SLOT(type) ((type) == R_X86_64_JUMP_SLOT || (type) == R_X86_64_GLOB_DAT)
#define IS_VARIABLE(type) ((type) == R_X86_64_64)
#elif defined(__aarch64__)
#define IS_SLOT(type) ((type) == R_AARCH64_JUMP_SLOT || (type) == R_AARCH64_GLOB_DAT)
#define IS_VARIABLE(type) ((type) == R_AARCH64_ABS64)
#endif

enum {
    OBJECTS_MAX = 8192,
    READ_ONLY_MAX = 1 << 16
};

typedef struct object {
    const char *name;
    ElfW(Addr) base;
    const ElfW(Dyn) * dynamic;
    pmt__extent
        relro; /* the pages that the loader makes read-only when it has relocated the object; empty: none */
    const ElfW(Sym) * symbols;
    const char *strings;
    const ElfW(Rela) * tables[2];
    size_t counts[2];
    const uint32_t *gnu_hash;
    const uint32_t *hash;
} object;

/* All: Protected by patching */
static pthread_mutex_t patching = PTHREAD_MUTEX_INITIALIZER;
static const pmt__preload_function *functions; /* of the library */
static size_t function_count;
/* By function: what the loader has bound callers to; and where an executable has a call stub for it that stands for its address, that. */
static void *originals[PMT_PRELOAD_FUNCTIONS_MAX], *canonical[PMT_PRELOAD_FUNCTIONS_MAX];
static void *connect_address, *children_address;
static ElfW(
    Addr) patched[OBJECTS_MAX]; /* addresses of dynamic sections: what identifies an object */
static unsigned patched_count, places_count;
static unsigned long long loaded_before;
static pmt__extent *read_only; /* [read_only_count], sorted; while objects are patched */
static size_t read_only_count;
static bool some_wait; /* for the loader */

/* --- reading an object ------------------------------------------------------------------------------------------------------- */

/* Most systems relocate the addresses in a dynamic section, some do not. */
static const void *
at(const object *self, ElfW(Addr) address)
{
    return (const void *)(address < self->base ? self->base + address : address);
}

static bool
object_read(object *self, const struct dl_phdr_info *info)
{
    memset(self, 0, sizeof *self);
    self->name = info->dlpi_name;
    self->base = info->dlpi_addr;
    uintptr_t page = pmt__page_size();
    for (size_t i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *h = &info->dlpi_phdr[i];
        uintptr_t start = info->dlpi_addr + h->p_vaddr;
        if (h->p_type == PT_DYNAMIC) {
            self->dynamic = (const ElfW(Dyn) *)start;
        } else if (h->p_type == PT_GNU_RELRO) {
            self->relro = (pmt__extent){start & ~(page - 1), (start + h->p_memsz) & ~(page - 1)};
        }
    }
    size_t sizes[2] = {0, 0};
    for (const ElfW(Dyn) *d = self->dynamic; d != NULL && d->d_tag != DT_NULL; d++) {
        switch (d->d_tag) {
        case DT_SYMTAB:
            self->symbols = at(self, d->d_un.d_ptr);
            break;
        case DT_STRTAB:
            self->strings = at(self, d->d_un.d_ptr);
            break;
        case DT_RELA:
            self->tables[0] = at(self, d->d_un.d_ptr);
            break;
        case DT_RELASZ:
            sizes[0] = d->d_un.d_val;
            break;
        case DT_JMPREL:
            self->tables[1] = at(self, d->d_un.d_ptr);
            break;
        case DT_PLTRELSZ:
            sizes[1] = d->d_un.d_val;
            break;
        case DT_GNU_HASH:
            self->gnu_hash = at(self, d->d_un.d_ptr);
            break;
        case DT_HASH:
            self->hash = at(self, d->d_un.d_ptr);
            break;
        }
    }
    for (int i = 0; i < 2; i++) {
        self->counts[i] = sizes[i] / sizeof(ElfW(Rela));
    }
    return self->symbols != NULL && self->strings != NULL;
}

static bool
is_definition(const object *self, uint32_t symbol, const char *name)
{
    const ElfW(Sym) *s = &self->symbols[symbol];
    return s->st_shndx != SHN_UNDEF && s->st_value != 0
           && strcmp(self->strings + s->st_name, name) == 0;
}

static void *
definition_at(const object *self, uint32_t symbol)
{
    return (void *)(self->base + self->symbols[symbol].st_value);
}

/* By the hash tables of the object, as the loader does it. */
static void *
definition_of(const object *self, const char *name)
{
    if (self->gnu_hash != NULL) {
        uint32_t hash = 5381;
        for (const unsigned char *c = (const unsigned char *)name; *c != 0; c++) {
            hash = hash * 33 + *c;
        }
        uint32_t bucket_count = self->gnu_hash[0], first = self->gnu_hash[1],
                 bloom_words = self->gnu_hash[2];
        const uint32_t *buckets =
            self->gnu_hash + 4 + bloom_words * (sizeof(ElfW(Addr)) / sizeof(uint32_t));
        const uint32_t *chain = buckets + bucket_count;
        uint32_t symbol = bucket_count == 0 ? 0 : buckets[hash % bucket_count];
        for (; symbol >= first && symbol != 0; symbol++) {
            uint32_t theirs = chain[symbol - first];
            if ((theirs | 1) == (hash | 1) && is_definition(self, symbol, name)) {
                return definition_at(self, symbol);
            }
            if (theirs & 1) {
                break;
            }
        }
        return NULL;
    }
    for (uint32_t symbol = 0; self->hash != NULL && symbol < self->hash[1]; symbol++) {
        if (is_definition(self, symbol, name)) {
            return definition_at(self, symbol);
        }
    }
    return NULL;
}

/* --- the originals ------------------------------------------------------------------------------------------------------------- */

static bool
is_the_library(const object *self)
{
    return function_count > 0 && definition_of(self, PMT_PRELOAD_CONNECT) != NULL;
}

static int
find_originals(struct dl_phdr_info *info, size_t size, void *arg)
{
    object self;
    (void)size;
    (void)arg;
    if (!object_read(&self, info) || is_the_library(&self)) {
        return 0;
    }
    for (size_t i = 0; i < function_count; i++) {
        if (originals[i] == NULL) {
            originals[i] = definition_of(&self, functions[i].name);
        }
    }
    return 0;
}

/* --- patching -------------------------------------------------------------------------------------------------------------------- */

static int
read_only_keep(void *context, const pmt__area *area)
{
    (void)context;
    unsigned rights = area->flags & ~(unsigned)PMT_AREA_IS_OWN;
    if (rights == PMT_AREA_READABLE) {
        read_only[read_only_count++] = (pmt__extent){area->start, area->end};
    }
    return read_only_count == READ_ONLY_MAX;
}

static bool
is_read_only(uintptr_t address)
{
    size_t low = 0, high = read_only_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (read_only[middle].end <= address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < read_only_count && read_only[low].start <= address;
}

static const pmt__preload_function *
function_named(const char *name)
{
    for (size_t i = 0; i < function_count; i++) {
        if (strcmp(functions[i].name, name) == 0) {
            return &functions[i];
        }
    }
    return NULL;
}

static bool
is_left_alone(const object *self)
{
    const char *slash = strrchr(self->name, '/');
    const char *name = slash == NULL ? self->name : slash + 1;
    return strncmp(name, "ld-linux", 8) == 0 || strncmp(name, "linux-vdso", 10) == 0
           || strncmp(name, "libc.so", 7) == 0 || strncmp(name, "libc-", 5) == 0
           || strncmp(name, "libpthread", 10) == 0 || is_the_library(self);
}

static bool
is_patched(const object *self)
{
    for (unsigned i = 0; i < patched_count; i++) {
        if (patched[i] == (ElfW(Addr))self->dynamic) {
            return true;
        }
    }
    return false;
}

/* Whether the word is ours now. */
static bool
word_patch(void **word, const pmt__preload_function *f, bool is_variable)
{
    if (!is_variable) {
        __atomic_store_n(word, f->ours, __ATOMIC_RELEASE);
        return true;
    }
    void *const expected[] = {originals[f - functions], canonical[f - functions]};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        void *held = expected[i];
        if (held != NULL
            && __atomic_compare_exchange_n(word, &held, f->ours, false, __ATOMIC_RELEASE,
                                           __ATOMIC_RELAXED)) {
            return true;
        }
    }
    return false;
}

/* Puts our functions into its tables, which the loader has filled. */
static void
object_patch(const object *self)
{
    void *start = (void *)self->relro.start;
    size_t size = self->relro.end - self->relro.start;
    bool opened = false;
    for (int t = 0; t < 2; t++) {
        for (size_t i = 0; self->tables[t] != NULL && i < self->counts[t]; i++) {
            const ElfW(Rela) *r = &self->tables[t][i];
            uint32_t symbol = (uint32_t)ELF64_R_SYM(r->r_info);
            bool is_variable = IS_VARIABLE(ELF64_R_TYPE(r->r_info));
            if (symbol == 0 || r->r_addend != 0
                || !(is_variable || IS_SLOT(ELF64_R_TYPE(r->r_info)))
                || self->symbols[symbol].st_shndx != SHN_UNDEF) {
                continue;
            }
            const pmt__preload_function *f =
                function_named(self->strings + self->symbols[symbol].st_name);
            void **word = (void **)(self->base + r->r_offset);
            if (f == NULL || __atomic_load_n(word, __ATOMIC_RELAXED) == f->ours) {
                continue;
            }
            if ((uintptr_t)word - self->relro.start < size && !opened) {
                opened = mprotect(start, size, PROT_READ | PROT_WRITE) == 0;
                if (!opened) {
                    continue;
                }
            }
            places_count += word_patch(word, f, is_variable);
        }
    }
    if (opened) {
        mprotect(start, size, PROT_READ);
    }
}

static int
object_visit(struct dl_phdr_info *info, size_t size, void *at_the_start)
{
    (void)size;
    object self;
    if (patched_count == OBJECTS_MAX || !object_read(&self, info) || is_patched(&self)) {
        return 0;
    }
    if (!is_left_alone(&self)) {
        bool tells = self.relro.start < self.relro.end; /* when the loader has done with it */
        if (tells ? !is_read_only(self.relro.start) : !*(const bool *)at_the_start) {
            some_wait |= tells;
            return 0;
        }
        object_patch(&self);
    }
    patched[patched_count++] = (ElfW(Addr))self.dynamic;
    return 0;
}

static int
loaded_count(struct dl_phdr_info *info, size_t size, void *arg)
{
    unsigned long long *count = arg;
    *count = size >= offsetof(struct dl_phdr_info, dlpi_subs) ? info->dlpi_adds : *count + 1;
    return size >= offsetof(struct dl_phdr_info, dlpi_subs); /* the first tells */
}

static void
objects_patch(bool at_the_start)
{
    some_wait = true; /* without memory all of them */
    read_only = pmt__pages_map(READ_ONLY_MAX * sizeof *read_only);
    if (read_only == NULL) {
        return;
    }
    read_only_count = 0;
    some_wait = pmt__process_mappings(read_only_keep, NULL) < 0;
    dl_iterate_phdr(object_visit, &at_the_start);
    pmt__pages_unmap(read_only, READ_ONLY_MAX * sizeof *read_only);
}

int
pmt__native_patch(const char *library, pmt_error *err)
{
    pthread_mutex_lock(&patching);
    if (functions == NULL) {
        void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
        void *address = handle == NULL ? NULL : dlsym(handle, PMT_PRELOAD_FUNCTIONS);
        if (address == NULL) {
            pthread_mutex_unlock(&patching);
            return pmt__error_set(err, PMT_ERR_UNSUPPORTED, "cannot load %s", library);
        }
        pmt__preload_functions get;
        memcpy(&get, &address, sizeof get);
        functions = get(&function_count);
        connect_address = dlsym(handle, PMT_PRELOAD_CONNECT);
        children_address = dlsym(handle, PMT_PRELOAD_CHILDREN);
        dl_iterate_phdr(find_originals, NULL);
        for (size_t i = 0; i < function_count; i++) {
            canonical[i] = dlsym(RTLD_DEFAULT, functions[i].name);
            if (originals[i] != NULL && functions[i].original != NULL) {
                *functions[i].original = originals[i];
            }
        }
    }
    dl_iterate_phdr(loaded_count, &loaded_before);
    objects_patch(true);
    pthread_mutex_unlock(&patching);
    return 0;
}

void *
pmt__native_patched_connect(void)
{
    return connect_address;
}

void *
pmt__native_patched_children(void)
{
    return children_address;
}

void
pmt__native_patch_again(void)
{
    if (pthread_mutex_trylock(&patching) != 0) {
        return; /* somebody is at it */
    }
    unsigned long long now = 0;
    if (functions != NULL) {
        dl_iterate_phdr(loaded_count, &now);
        if (now != loaded_before || some_wait) {
            loaded_before = now;
            objects_patch(false);
        }
    }
    pthread_mutex_unlock(&patching);
}

void
pmt__native_patch_counts(unsigned *objects, unsigned *places)
{
    pthread_mutex_lock(&patching);
    *objects = patched_count;
    *places = places_count;
    pthread_mutex_unlock(&patching);
}
