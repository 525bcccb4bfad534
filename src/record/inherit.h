/* What a forked child does with the tables of its parent: they are its own now, as private pages, and it goes on with them.

   The blocks that are alive at the fork stay cohorts of their own, those of the epochs up to the fork: a new epoch begins in the
   child, and its epochs go on counting from the parent's. Ids go on as well, so every cache stays true. Only the capture
   knows nothing yet: all definitions count as not flushed, and all inherited blocks as born since the last cut. */
#ifndef PMT_RECORD_INHERIT_H
#define PMT_RECORD_INHERIT_H

#include <stdint.h>

/* In the child, at once, with the tables held: time, peak and totals begin. native_id: of the thread that forked, as it was called in the
   parent. Returns the epoch that the fork has ended. Costs as much as there are threads and changes that no cut has taken. */
uint64_t pmt__tables_forked_nopy(uint64_t native_id);

/* When the child's capture begins, with the tables held: what is alive since before the fork becomes part of the next cut. Returns
   how much that is. */
void pmt__tables_inherit_nopy(uint64_t fork_epoch, uint64_t *blocks, uint64_t *bytes);

#endif
