/* libbacktrace is made to look up addresses of its own process. It opens the file that it is told is the running program,
   and, if that can be loaded anywhere (ET_DYN), asks dl_iterate_phdr where the program lies; then it adds the libraries of
   the process. Here the linker leads its question to an answer of our own (--wrap=dl_iterate_phdr): the program, and nothing
   else, lies at 0. So an address is that of the file, whatever its type, and no time is spent on our libraries. */
#include "symbolize/dwarf.h"

#include <link.h>
#include <stdlib.h>
#include <string.h>

#include <backtrace.h>

struct pmt__dwarf {
    struct backtrace_state *state; /* libbacktrace never frees it */
};

typedef struct search {
    pmt__source_frame *frames;
    size_t count;
    size_t room;
} search;

int __wrap_dl_iterate_phdr(int (*each)(struct dl_phdr_info *, size_t, void *), void *context);

int
__wrap_dl_iterate_phdr(int (*each)(struct dl_phdr_info *, size_t, void *), void *context)
{
    struct dl_phdr_info program;
    memset(&program, 0, sizeof program);
    program.dlpi_name = "";
    return each(&program, sizeof program, context);
}

static void
ignore_error(void *context, const char *message, int number)
{
    (void)context;
    (void)message;
    (void)number;
}

static int
take_frame(void *context, uintptr_t pc, const char *file, int line, const char *function)
{
    (void)pc;
    search *self = context;
    if (file == NULL && function == NULL) {
        return 0; /* it knows nothing of the address */
    }
    self->frames[self->count++] = (pmt__source_frame){function, file, line < 0 ? 0 : line};
    return self->count == self->room;
}

pmt__dwarf *
pmt__dwarf_open(const char *path)
{
    pmt__dwarf *self = calloc(1, sizeof *self);
    if (self != NULL) {
        self->state = backtrace_create_state(path, 0, ignore_error, NULL);
    }
    return self;
}

size_t
pmt__dwarf_find(pmt__dwarf *self, uint64_t address, pmt__source_frame *out, size_t room)
{
    search it = {out, 0, room};
    if (self->state != NULL && room != 0) {
        backtrace_pcinfo(self->state, (uintptr_t)address, take_frame, ignore_error, &it);
    }
    return it.count;
}
