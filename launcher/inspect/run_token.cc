#include "launcher/inspect/run_token.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "kernels/base/error.h"

namespace troupe {

namespace {

std::string drawn() {
  std::array<unsigned char, kTokenBytes> bytes{};
  if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1)
    throw Error("this machine gives no random bytes, so there can be no token");
  std::string token;
  for (const unsigned char byte : bytes) token += fmt::format("{:02x}", byte);
  return token;
}

// False: there is one.
bool make(const std::string& path, const std::string& token) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0 && errno == EEXIST) return false;
  if (fd < 0) throw Error("{}: the token can't be written: {}", path, std::strerror(errno));
  const std::string line = token + "\n";
  const bool written = write(fd, line.data(), line.size()) == static_cast<ssize_t>(line.size()) && fsync(fd) == 0;
  close(fd);
  if (written) return true;
  unlink(path.c_str());
  throw Error("{}: the token can't be written: is the disk full?", path);
}

std::string read(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) throw Error("{}: the token can't be read: {}", path, std::strerror(errno));
  struct stat about {};
  std::array<char, 2 * kTokenBytes + 2> text{};
  const bool plain = fstat(fd, &about) == 0 && S_ISREG(about.st_mode);
  const ssize_t got = plain ? ::read(fd, text.data(), text.size()) : -1;
  close(fd);
  if (plain && (about.st_mode & 077) != 0)
    throw Error("{0}: others may read the run's token: chmod 600 {0}, or delete it, then a new one is made", path);
  std::string token(text.data(), static_cast<std::size_t>(std::max<ssize_t>(0, got)));
  if (!token.empty() && token.back() == '\n') token.pop_back();
  if (token.size() != 2 * kTokenBytes || token.find_first_not_of("0123456789abcdef") != std::string::npos)
    throw Error("{0}: is no token of {1} hexadecimal digits: delete {0}, then a new one is made", path,
                2 * kTokenBytes);
  return token;
}

}  // namespace

std::string run_token(const std::string& run_folder) {
  const std::string path = run_folder + "/token", token = drawn();
  return make(path, token) ? token : read(path);
}

bool same_secret(const std::string& a, const std::string& b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace troupe
