// Loop: a node in a process of its own. It tells the node the time, and sleeps until something comes: a frame, a finished
// segment, the disk, a descriptor that somebody watches. Waking a thread costs more than a message, so before it sleeps
// it looks for frames a little longer, unless its core has better to do: every compute thread of the node has work.
#pragma once

#include <cstdint>
#include <functional>
#include <map>

#include "actors/node.h"

namespace troupe {

class Loop {
 public:
  // spin_us: how long it looks for frames before it sleeps. Without a transport it never does.
  explicit Loop(Node& node, std::int64_t spin_us = 0);
  ~Loop();
  Loop(const Loop&) = delete;
  // Calls `readable` while the descriptor has something to read.
  void watch(int fd, std::function<void()> readable);
  // Turns, sleeping while nothing happens, until `done` says so.
  void run(const std::function<bool()>& done);

 private:
  void sleep(std::int64_t us);
  bool spin();  // whether something came

  Node& node_;
  std::map<int, std::function<void()>> watched_;
  std::int64_t spin_us_;
  std::size_t threads_;  // of the device
  std::int64_t last_look_us_ = 0;
  int refused_ = 0;  // times in a row that the transport did not arm
  int epoll_fd_ = -1;
};

// Of the machine's monotonic clock.
std::int64_t monotonic_us();
std::int64_t monotonic_ns();
std::int64_t thread_time_ns();  // that the calling thread has computed

}  // namespace troupe
