// Events of Chrome's JSON trace format, which Perfetto reads: slices (X), arrows (s, f), counters (C), names (M).
// A node is a process; its compute threads, its actors, and what actors wait for are threads. The law: of one thread
// slices lie side by side or within one another, and every event names a thread that has a name.
//
// Two places where Perfetto reads less than the format allows: it looks threads up by number alone when they are named,
// so a number is never given twice; and displayTimeUnit changed what older versions took a timestamp for, so it is left
// out (timestamps are microseconds without it).
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <map>
#include <ostream>
#include <string>
#include <tuple>

namespace troupe {

// A thread of the trace.
struct TraceTrack {
  std::uint32_t process = 0, thread = 0;
};

// From `begin_ns` on, by the trace's own clock, which begins at zero.
struct TraceSlice {
  TraceTrack track;
  std::int64_t begin_ns = 0, end_ns = 0;
};

// One end of an arrow: a moment within a slice.
struct TracePoint {
  TraceTrack track;
  std::int64_t at_ns = 0;
};

class TraceEvents {
 public:
  // Writes to `out` as it goes.
  explicit TraceEvents(std::ostream& out);

  // The thread of that name on that node; the lower its order, the higher it stands.
  TraceTrack track(std::uint32_t node, const std::string& name, std::uint32_t order);
  // args: the inside of a JSON object, or "".
  void slice(const TraceSlice& slice, const char* category, std::string_view name, std::string_view args);
  // what: "message", "segment", "end".
  void arrow(const char* what, const TracePoint& from, const TracePoint& to);
  void counter(std::uint32_t node, const std::string& name, const char* unit, std::int64_t at_ns, std::int64_t value);
  // The end of the file; more: the inside of a JSON object of strings, for who wonders where the trace is from.
  void close(std::string_view more);

  std::uint64_t arrows() const { return arrows_; }
  std::size_t tracks() const { return threads_.size(); }

 private:
  void begin_event();
  void name(const TraceTrack& track, const char* what, const std::string& text, std::uint32_t order);
  void flush();
  std::ostream& out_;
  fmt::memory_buffer buffer_;
  std::map<std::tuple<std::uint32_t, std::uint32_t, std::string>, TraceTrack> threads_;  // by node, order, name
  std::map<std::uint32_t, std::uint32_t> threads_of_;                                    // how many, by node
  std::uint64_t arrows_ = 0;
  bool any_ = false;
};

// Of the run's clock: "12.034" of 12034 ns, as the format has them.
std::string trace_us(std::int64_t ns);

std::string trace_text(std::string_view text);  // in quotes

}  // namespace troupe
