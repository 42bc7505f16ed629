// Device: allocates memory, runs segments, tells once when each is done. One per process, shared by its actors.
// A segment is a short list of ops run one after another, by a compute thread or on a GPU's stream; segments run in any
// order that their keys allow.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "kernels/op.h"
#include "kernels/usage.h"

namespace troupe {

// Classes from most to least urgent, as a rule. The order is the whole schedule: see priority() in ready_heap.h.
enum class SegmentClass : std::uint8_t { apply, backward, forward, weight_gradient, evaluate };

struct SegmentKey {
  SegmentClass segment_class = SegmentClass::forward;
  std::int64_t step = 0;
  std::int32_t microbatch = 0;
  std::int32_t layer = 0;
  bool snapshot = false;  // copies for a checkpoint: for the bill, no order looks at it
  // Of a forward or a weight gradient: it is as urgent as the backward so many microbatches before it (after it, if
  // negative); kNoLead: less urgent than any backward.
  static constexpr std::int32_t kNoLead = std::numeric_limits<std::int32_t>::min();
  std::int32_t lead = kNoLead;
  bool loading = false;      // first values of weights: likewise
  Use side = Use::evaluate;  // of the class evaluate: what it is for: likewise
  friend bool operator==(const SegmentKey&, const SegmentKey&) = default;
};

inline Use use_of(const SegmentKey& key) {
  if (key.snapshot) return Use::snapshot;
  if (key.loading) return Use::load;
  return key.segment_class == SegmentClass::evaluate ? key.side : Use::learn;
}

// Whom to tell: the actor's place in the process's directory, and a word of the actor's own. For the journal: the
// segment's number, and that of the message whose handler submitted it (actors/journal.h).
struct Completion {
  std::uint32_t actor = 0;
  std::uint64_t token = 0;
  std::uint64_t id = 0, cause = 0;
};

// Segments of one strand run one after another, in the order in which they were submitted. Weight gradients of one add to
// the same sums, and those that wait when a thread takes the first may run together (kernels/strand.h).
struct Segment {
  SegmentKey key;
  Ops ops;
  Completion done;
  std::uint64_t strand = 0;  // 0: none
  // Who is told reads nothing that it wrote, writes nothing that it reads, and sends it nowhere: all that follows are other
  // segments. A device that runs segments in the order in which it takes them may tell as soon as it has taken it.
  bool early = false;
};

// Where memory lies, and who touches it. `device`: ops alone. `shared`: ops, and the loop thread, which writes what an op
// reads before it submits it, and reads what an op wrote when its segment is done. On a GPU ops reach shared memory over
// the bus: it is for what is small or passes by. An op takes each of its operands in either.
enum class Place : std::uint8_t { device, shared };

// Owned memory, zeroed, aligned to 64 bytes. Freed with the Memory.
struct Memory {
  std::shared_ptr<void> owner;
  void* data = nullptr;
  std::size_t size = 0;
};

class Device {
 public:
  virtual ~Device() = default;
  virtual Memory allocate(std::size_t size, Place place) = 0;
  virtual void submit(Segment segment) = 0;
  // Moves finished completions out; called on the loop thread.
  virtual void take_completions(std::vector<Completion>& out) = 0;
  // A file descriptor that is readable while completions wait (-1 when there is none, as in simulation).
  virtual int completion_fd() const = 0;
  // Segments submitted and not yet finished.
  virtual std::size_t pending() const = 0;
  // A thread idles beside a segment of evaluation or generation: the next one waits for what comes of this one.
  virtual bool hurries() const = 0;
  // Of all compute threads, until now. REQUIRES: now_us is of the clock that the device runs by.
  virtual Usage usage(std::int64_t now_us) const = 0;
};

}  // namespace troupe
