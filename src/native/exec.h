/* Between the files of the preloaded library. */
#ifndef PMT_NATIVE_EXEC_H
#define PMT_NATIVE_EXEC_H

/* The words come to an executed Python: a list KEY=VALUE, with PMT_WORD_END behind each. */
#define PMT_WORD_END '\x1f'

/* This process is a Python that was executed by a recorded one: it will record itself before it runs its program. parent: the process
   that did it; generation: see PMT_PRELOAD_CHILDREN. Before main. */
void pmt__preload_python_follow(const char *words, long parent, long generation);

#endif
