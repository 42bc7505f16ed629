#include "launcher/inspect/trace_events.h"

#include <iterator>
#include <nlohmann/json.hpp>

namespace troupe {

namespace {

constexpr std::size_t kBufferBytes = 1 << 20;
// A process's number, and its threads' numbers behind it. Never zero, which is the idle thread to Perfetto.
constexpr std::uint32_t kThreadsMax = 100'000;

std::uint32_t process_of(std::uint32_t node) { return (node + 1) * kThreadsMax; }

}  // namespace

std::string trace_us(std::int64_t ns) {
  return ns % 1000 == 0 ? fmt::format("{}", ns / 1000) : fmt::format("{}.{:03}", ns / 1000, ns % 1000);
}

std::string trace_text(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

TraceEvents::TraceEvents(std::ostream& out) : out_(out) {
  fmt::format_to(std::back_inserter(buffer_), "{{\"traceEvents\":[");
}

void TraceEvents::begin_event() {
  if (buffer_.size() > kBufferBytes) flush();
  fmt::format_to(std::back_inserter(buffer_), "{}\n", any_ ? "," : "");
  any_ = true;
}

void TraceEvents::flush() {
  out_.write(buffer_.data(), static_cast<std::streamsize>(buffer_.size()));
  buffer_.clear();
}

void TraceEvents::name(const TraceTrack& track, const char* what, const std::string& text, std::uint32_t order) {
  const std::string place = fmt::format("\"pid\":{},\"tid\":{}", track.process, track.thread);
  begin_event();
  fmt::format_to(std::back_inserter(buffer_), R"({{"name":"{}_name","ph":"M",{},"args":{{"name":{}}}}})", what, place,
                 trace_text(text));
  begin_event();
  fmt::format_to(std::back_inserter(buffer_), R"({{"name":"{}_sort_index","ph":"M",{},"args":{{"sort_index":{}}}}})",
                 what, place, order);
}

TraceTrack TraceEvents::track(std::uint32_t node, const std::string& name_text, std::uint32_t order) {
  const auto [known, fresh] = threads_.try_emplace({node, order, name_text});
  if (!fresh) return known->second;
  const std::uint32_t number = ++threads_of_[node];
  known->second = {process_of(node), process_of(node) + number};
  if (number == 1) name({process_of(node), process_of(node) + 1}, "process", fmt::format("node {}", node), node);
  name(known->second, "thread", name_text, order);
  return known->second;
}

void TraceEvents::slice(const TraceSlice& slice, const char* category, std::string_view name_text,
                        std::string_view args) {
  begin_event();
  fmt::format_to(std::back_inserter(buffer_),
                 R"({{"ph":"X","pid":{},"tid":{},"ts":{},"dur":{},"cat":"{}","name":{},"args":{{{}}}}})",
                 slice.track.process, slice.track.thread, trace_us(slice.begin_ns),
                 trace_us(slice.end_ns - slice.begin_ns), category, trace_text(name_text), args);
}

void TraceEvents::arrow(const char* what, const TracePoint& from, const TracePoint& to) {
  ++arrows_;
  for (const bool first : {true, false}) {
    const TracePoint& point = first ? from : to;
    begin_event();
    fmt::format_to(std::back_inserter(buffer_),
                   R"({{"ph":"{}","id":{},"pid":{},"tid":{},"ts":{},"cat":"arrow","name":"{}"{}}})", first ? "s" : "f",
                   arrows_, point.track.process, point.track.thread, trace_us(point.at_ns), what,
                   first ? "" : ",\"bp\":\"e\"");
  }
}

void TraceEvents::counter(std::uint32_t node, const std::string& name_text, const char* unit, std::int64_t at_ns,
                          std::int64_t value) {
  begin_event();
  fmt::format_to(std::back_inserter(buffer_), R"({{"ph":"C","pid":{},"ts":{},"name":{},"args":{{"{}":{}}}}})",
                 process_of(node), trace_us(at_ns), trace_text(name_text), unit, value);
}

void TraceEvents::close(std::string_view more) {
  fmt::format_to(std::back_inserter(buffer_), "\n],\"otherData\":{{{}}}}}\n", more);
  flush();
}

}  // namespace troupe
