// InspectSource: where the inspector looks: a run's folder, nodes that are asked, or a simulated world. Its users (the
// terminal, the page, scripts) know no more of it than this.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "launcher/inspect/view.h"

namespace troupe {

// What somebody wants done to a run.
struct Control {
  // A live run knows the first five. step: of a live run one training step, of a simulated world one message.
  enum class Do : std::uint8_t { pause, resume, kill, step, inject, restart, run, back, drop, delay };
  Do what = Do::pause;
  std::uint32_t node = 0;      // kill, restart
  std::uint64_t messages = 1;  // step, run, back
  // run: until this instead, whichever comes first of what is asked for.
  std::optional<std::int64_t> until_step{};
  std::optional<double> until_seconds{};
  // run: until a message of this kind (empty: any) has reached this actor.
  std::optional<Address> receiver{};
  std::string receives{};
  std::uint64_t id = 0;  // drop, delay, inject (once more): of a simulated world's messages under way
  double delay_seconds = 0;
  std::string message{};  // inject into a live run: an Envelope as JSON (messages/codec.h)
};

class InspectSource {
 public:
  virtual ~InspectSource() = default;
  // Rates are of the time since the last look. Never waits for an actor.
  virtual View look() = 0;
  // What the journals hold, of each of at most so many last records.
  virtual std::vector<JournalPage> journals(std::uint64_t most) = 0;
  virtual MetricsTail& metrics() = 0;
  // The run's, for whoever may control it. Throws Error: it can't be had.
  virtual std::string token() = 0;
  // A sentence that says what was done. Throws Error: it can't be, or may not.
  virtual std::string control(const Control& control) = 0;
};

}  // namespace troupe
