// The control socket's framing: each line is a little-endian u32 length and that many bytes. Law: nothing here blocks
// or raises SIGPIPE, and neither side can make the other hold more than one line of the limit and what is being read.
#include "messages/control_socket.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/error.h"

namespace troupe {
namespace {

constexpr std::size_t kQueuedMax = 2 * ControlSocket::kLineMax;  // to a side that doesn't read
constexpr std::size_t kReadChunk = std::size_t{64} << 10;
constexpr std::size_t kLengthSize = sizeof(std::uint32_t);

}  // namespace

ControlSocket::ControlSocket(ControlSocket&& other) noexcept { *this = std::move(other); }

ControlSocket& ControlSocket::operator=(ControlSocket&& other) noexcept {
  if (this == &other) return *this;
  if (fd_ >= 0) ::close(fd_);
  fd_ = std::exchange(other.fd_, -1);
  line_max_ = other.line_max_;
  ended_ = other.ended_;
  in_ = std::exchange(other.in_, {});
  out_ = std::exchange(other.out_, {});
  in_begin_ = std::exchange(other.in_begin_, 0);
  out_begin_ = std::exchange(other.out_begin_, 0);
  return *this;
}

ControlSocket::~ControlSocket() {
  if (fd_ >= 0) ::close(fd_);
}

std::pair<ControlSocket, int> ControlSocket::make_pair() {
  int fds[2] = {-1, -1};
  if (::socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0)
    throw Error("no socket pair for a node's control socket: {}", std::strerror(errno));
  ::fcntl(fds[0], F_SETFD, FD_CLOEXEC);
  return {ControlSocket(fds[0]), fds[1]};
}

bool ControlSocket::send(const std::string& line) {
  CHECK(line.size() <= kLineMax, "a control line of {} bytes, at most {} may be sent", line.size(), kLineMax);
  if (out_.size() - out_begin_ > kQueuedMax - line.size()) return false;
  if (out_begin_ > out_.size() / 2) out_.erase(0, std::exchange(out_begin_, 0));
  const auto length = static_cast<std::uint32_t>(line.size());
  char prefix[kLengthSize];
  std::memcpy(prefix, &length, kLengthSize);
  out_.append(prefix, kLengthSize);
  out_.append(line);
  return flush();
}

bool ControlSocket::flush() {
  while (out_begin_ < out_.size()) {
    const ssize_t sent = ::send(fd_, out_.data() + out_begin_, out_.size() - out_begin_, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return errno == EAGAIN || errno == EWOULDBLOCK;
    out_begin_ += static_cast<std::size_t>(sent);
  }
  out_.clear();
  out_begin_ = 0;
  return true;
}

bool ControlSocket::read() {
  in_.erase(0, std::exchange(in_begin_, 0));
  // More than one whole line need not be held: what stays in the socket makes it readable again.
  while (in_.size() <= kLengthSize + line_max_) {
    const std::size_t before = in_.size();
    in_.resize(before + kReadChunk);
    const ssize_t got = ::recv(fd_, in_.data() + before, kReadChunk, MSG_DONTWAIT);
    in_.resize(before + (got > 0 ? static_cast<std::size_t>(got) : 0));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return (errno == EAGAIN || errno == EWOULDBLOCK) && next_length() <= line_max_;
    if (got == 0) {
      ended_ = true;
      return false;
    }
  }
  return next_length() <= line_max_;
}

// Of the line to come; 0 while it isn't known. A length over the limit is no line of ours: there is nobody to listen to.
std::size_t ControlSocket::next_length() const {
  std::uint32_t length = 0;
  if (in_.size() - in_begin_ >= kLengthSize) std::memcpy(&length, in_.data() + in_begin_, kLengthSize);
  return length;
}

std::optional<std::string> ControlSocket::next() {
  if (in_.size() - in_begin_ < kLengthSize) return std::nullopt;
  const std::size_t length = next_length();
  if (length > line_max_ || in_.size() - in_begin_ - kLengthSize < length) return std::nullopt;
  std::string line = in_.substr(in_begin_ + kLengthSize, length);
  in_begin_ += kLengthSize + length;
  return line;
}

}  // namespace troupe
