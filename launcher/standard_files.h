// Descriptors 0, 1 and 2. The law: they are open before any other file is, or what the program says would be written into
// that file; and what was said on standard output arrived, or the program says that it didn't.
#pragma once

namespace troupe {

// First of all in main(): those that the program was started without become /dev/null.
void open_standard_files();

// Last of all: `code`, or 1 and a sentence if standard output wasn't written to its end. A pipe that is read no more
// (| head) is nobody's mistake.
int say_the_rest(int code);

}  // namespace troupe
