#include "launcher/inspect/token.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "kernels/base/error.h"
#include "kernels/base/hex.h"

namespace troupe {

namespace {

constexpr std::size_t kTokenBytes = 32;

void make_token(const std::string& path) {
  std::string bytes(kTokenBytes, '\0');
  if (getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size()))
    throw Error("{}: no random numbers for the run's token: {}", path, std::strerror(errno));
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0 && errno == EEXIST) return;
  const std::string text = to_hex(bytes) + "\n";
  const bool written = fd >= 0 && write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  const int reason = errno;
  if (fd >= 0) close(fd);
  if (!written) throw Error("{}: the run's token can't be written: {}", path, std::strerror(reason));
}

}  // namespace

std::string run_token(const std::string& run_folder) {
  const std::string path = run_folder + "/token";
  make_token(path);
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  struct stat about {};
  std::array<char, 2 * kTokenBytes> text{};
  const bool known = fd >= 0 && fstat(fd, &about) == 0;
  const bool whole = known && read(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  if (fd >= 0) close(fd);
  if (!whole) throw Error("{}: is no token of a run, or can't be read; remove it, and a new one is made", path);
  if ((about.st_mode & 0077) != 0)
    throw Error("{}: others may read the run's token; chmod 600 {}, or remove it, and a new one is made", path, path);
  return {text.begin(), text.end()};
}

bool same_token(const std::string& given, const std::string& token) {
  unsigned differs = given.size() == token.size() ? 0 : 1;
  for (std::size_t i = 0; i < token.size(); ++i)
    differs |= static_cast<unsigned>(static_cast<unsigned char>(token[i]) ^
                                     static_cast<unsigned char>(i < given.size() ? given[i] : 0));
  return differs == 0;
}

}  // namespace troupe
