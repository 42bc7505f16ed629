#include "kernels/completions.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "kernels/base/error.h"

namespace troupe {

Completions::Completions() : event_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  if (event_ < 0)
    throw Error("can't create an event descriptor: {}; raise the limit of open files", std::strerror(errno));
}

Completions::~Completions() { close(event_); }

// The event is written only for the first of a batch: whoever reads it takes them all.
void Completions::add(const std::vector<Segment>& done) {
  std::lock_guard lock(mutex_);
  const bool first = done_.empty();
  for (const Segment& segment : done) done_.push_back(segment.done);
  pending_.fetch_sub(done.size(), std::memory_order_acq_rel);
  if (!first) return;
  const std::uint64_t one = 1;
  CHECK(write(event_, &one, sizeof one) == sizeof one, "the completion event can't be written: {}",
        std::strerror(errno));
}

void Completions::take(std::vector<Completion>& out) {
  std::lock_guard lock(mutex_);
  if (done_.empty()) return;
  out.insert(out.end(), done_.begin(), done_.end());
  done_.clear();
  std::uint64_t count = 0;
  CHECK(read(event_, &count, sizeof count) == sizeof count, "the completion event can't be read: {}",
        std::strerror(errno));
}

}  // namespace troupe
