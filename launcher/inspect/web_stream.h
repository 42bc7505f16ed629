// WebStream: server-sent events to one watcher, between the thread that has something to say and the one that sends. The
// law: it holds at most what is being sent and one event more; a watcher who reads slowly misses views, and nobody waits.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "launcher/inspect/view.h"

namespace troupe {

class WebStream {
 public:
  // sleep, wake: the connection has nothing to send, has something again. Both are called under this stream's lock.
  WebStream(ViewPart shown, std::function<void()> sleep, std::function<void()> wake)
      : part(std::move(shown)), sleep_(std::move(sleep)), wake_(std::move(wake)) {}

  // Of the one who speaks.
  void say(std::shared_ptr<const std::string> text);             // instead of what has not begun to be sent
  void comment(const std::shared_ptr<const std::string>& text);  // if nothing waits to be sent
  void end();
  bool left() const;  // nobody reads it any more
  // Of the one who sends.
  struct Read {
    std::size_t bytes = 0;  // 0: it sleeps, or it is over
    bool over = false;
  };
  Read read(char* to, std::size_t most);
  void leave();

  const ViewPart part;
  // Of the one who speaks.
  std::uint64_t experts_heard = 0;
  std::int64_t said_us = 0;
  std::uint64_t look = 0;  // whose view it was told

 private:
  mutable std::mutex mutex_;
  std::function<void()> sleep_, wake_;
  std::shared_ptr<const std::string> sending_, next_;
  std::size_t sent_ = 0;  // of sending_
  bool asleep_ = false, over_ = false, left_ = false;
};

}  // namespace troupe
