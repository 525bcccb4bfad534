/* Names that a capture does not hold and that are derived from those it does. */
#ifndef PMT_STORE_NAMES_H
#define PMT_STORE_NAMES_H

#include "base/memory.h"
#include "pymemtrace/reader.h"

/* Appends the dotted module name of a source file to out, or nothing if there is none.

   "<frozen x.y>" is the module x.y; other names in angle brackets are none. A path is named from the
   longest entry of sys_path that contains it ("" is the working directory cwd): what is left, without
   its suffix and a last "/__init__", with dots for slashes. A path outside of sys_path is named by its
   last part alone. */
void pmt__module_name(pmt__text_buffer *out, pmt_string file, const pmt_string *sys_path,
                      size_t sys_path_count, pmt_string cwd);

/* What follows the last slash of a path: all of it if there is none. */
pmt_string pmt__last_part(pmt_string path);

/* PMT_FRAME_IS_* of a Python frame. */
unsigned pmt__frame_flags(pmt_string file, pmt_string module);
/* The file that `pymemtrace run` starts the program from. */
bool pmt__is_launcher(pmt_string file);

/* Is this executable or library the interpreter? Its own executable is known by its path. */
bool pmt__is_interpreter(pmt_string object, pmt_string executable);

#endif
