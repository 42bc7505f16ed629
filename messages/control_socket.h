// The control socket between the launcher's process and a node process: length-prefixed text lines over a stream, of a
// Unix socket pair or TCP. Its end of file is the dependable news of a dead process.
#pragma once

#include <optional>
#include <string>
#include <utility>

namespace troupe {

class ControlSocket {
 public:
  static constexpr std::size_t kLineMax = std::size_t{64} << 20;
  // A longer line than that ends the conversation. Takes the descriptor.
  explicit ControlSocket(int fd, std::size_t line_max = kLineMax) : fd_(fd), line_max_(line_max) {}
  ControlSocket(ControlSocket&& other) noexcept;
  ControlSocket& operator=(ControlSocket&& other) noexcept;
  ~ControlSocket();
  // A connected pair; the second descriptor survives exec.
  static std::pair<ControlSocket, int> make_pair();

  // Queues and writes what fits; the rest goes with flush(). False: the other side is gone.
  bool send(const std::string& line);
  bool flush();
  // Reads what is there. Returns false at end of file.
  bool read();
  std::optional<std::string> next();
  // The other side has closed it, or its process is dead; not that the way there broke.
  bool ended() const { return ended_; }
  int fd() const { return fd_; }
  void trust() { line_max_ = kLineMax; }  // it may say long lines from here on
  bool wants_write() const { return !out_.empty(); }

 private:
  std::size_t next_length() const;
  int fd_ = -1;
  bool ended_ = false;
  std::size_t line_max_ = kLineMax;
  std::string in_, out_;
  std::size_t in_begin_ = 0, out_begin_ = 0;  // what lies before was handed over, or sent
};

}  // namespace troupe
