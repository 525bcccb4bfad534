/* Call frame information, the contents of .eh_frame: from the bytes that describe a function to the rule at one of its
   instructions. Sources: DWARF 5, section 6.4; the Linux Standard Base, "Exception Frames"; the x86-64 psABI for its registers.

   The bytes are not trusted. Only the given ranges are read; what makes no sense there, or is said in a way that compilers do not
   use, gives PMT_UNWIND_NONE. */
#ifndef PMT_PLATFORM_CFI_H
#define PMT_PLATFORM_CFI_H

#include <stdint.h>

#include "platform/unwind.h"

/* Readable bytes. Addresses in them that are relative to where they stand are relative to where they stand here. */
typedef struct pmt__cfi_range {
    const uint8_t *start, *end;
} pmt__cfi_range;

/* The address of the function description (FDE) that may be the one for the instruction at `address`, by the search table of
   .eh_frame_hdr, which begins at `header`. 0: there is none, or no table. */
uint64_t pmt__cfi_search(pmt__cfi_range range, const uint8_t *header, uint64_t address);

/* The rule for pc by the FDE at `fde`; its CIE is in the range, too. */
void pmt__cfi_rule(pmt__cfi_range range, const uint8_t *fde, uint64_t pc, int is_return,
                   pmt__unwind_rule *out);

#endif
