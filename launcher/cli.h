// The command line: arguments to one of the commands, errors to one sentence and an exit code.
#pragma once

namespace troupe {

// 0 success; 1 an error (one sentence on standard error); 2 wrong arguments; 3 inspect: not healthy; 130 interrupted.
int run_command_line(int argc, char** argv);

}  // namespace troupe
