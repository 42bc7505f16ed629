#include "launcher/standard_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>

#include "kernels/base/check.h"

namespace troupe {

void open_standard_files() {
  for (int file = STDIN_FILENO; file <= STDERR_FILENO; ++file) {
    if (::fcntl(file, F_GETFD) >= 0) continue;
    const int opened = ::open("/dev/null", O_RDWR);  // the lowest that is free
    CHECK(opened == file, "/dev/null was opened as {}, not as {}", opened, file);
  }
}

int say_the_rest(int code) {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return code;
  struct stat told {};
  if (::fstat(STDOUT_FILENO, &told) == 0 && (S_ISFIFO(told.st_mode) || S_ISSOCK(told.st_mode))) return code;
  std::fprintf(stderr, "troupe: standard output: not all of it could be written; is the disk full?\n");
  return code == 0 ? 1 : code;
}

}  // namespace troupe
