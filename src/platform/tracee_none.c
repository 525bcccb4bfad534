/* For processors whose registers and calls nobody has written down here yet. */
#include "platform/tracee.h"

#include <errno.h>

int
pmt__tracee_exchange(uint64_t pid, const pmt__exchange *parts, size_t count, uint64_t timeout_ns,
                     uint64_t *held_ns)
{
    (void)pid;
    (void)parts;
    (void)count;
    (void)timeout_ns;
    (void)held_ns;
    return -ENOSYS;
}

int
pmt__tracee_divert(uint64_t pid, const pmt__waiting *waiting, uint64_t to, uint64_t argument,
                   const pmt__exchange *parts, size_t count, uint64_t timeout_ns, uint64_t *held_ns)
{
    (void)waiting;
    (void)to;
    (void)argument;
    return pmt__tracee_exchange(pid, parts, count, timeout_ns, held_ns);
}
