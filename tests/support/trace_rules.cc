#include "tests/support/trace_rules.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>

namespace troupe::test {

using nlohmann::json;

namespace {

constexpr std::size_t kFaultsMax = 20;

struct Keys {
  std::set<std::string> needed, allowed;
};
const std::map<std::string, Keys>& keys_by_phase() {
  static const std::map<std::string, Keys> kKeys = {
      {"X", {{"ph", "name", "cat", "pid", "tid", "ts", "dur", "args"}, {}}},
      {"s", {{"ph", "name", "cat", "pid", "tid", "ts", "id"}, {}}},
      {"f", {{"ph", "name", "cat", "pid", "tid", "ts", "id", "bp"}, {}}},
      {"C", {{"ph", "name", "pid", "ts", "args"}, {}}},
      {"M", {{"ph", "name", "pid", "tid", "args"}, {}}}};
  return kKeys;
}

std::int64_t ns_of(const json& us) { return std::llround(us.get<double>() * 1000); }

struct Span {
  std::int64_t begin_ns = 0, end_ns = 0;
  const json* event = nullptr;
};
using Thread = std::pair<std::int64_t, std::int64_t>;

class Rules {
 public:
  explicit Rules(const json& trace) {
    if (!trace.is_object() || !trace.contains("traceEvents") || !trace["traceEvents"].is_array()) {
      fault("no array of traceEvents");
      return;
    }
    for (const auto& [key, value] : trace.items())
      if (key != "traceEvents" && (key != "otherData" || !value.is_object())) fault("not a key of the format: " + key);
    for (const json& event : trace["traceEvents"]) look(event);
    if (!faults_.empty()) return;
    for (auto& [thread, spans] : spans_) nest(spans);
    for (const auto& [flow, ends] : flows_) pair(ends);
    names();
  }
  std::vector<std::string> faults_;
  std::vector<TraceArrow> arrows_;

 private:
  void fault(const std::string& what) {
    if (faults_.size() < kFaultsMax) faults_.push_back(what);
  }
  void look(const json& event);
  void look_at_values(const json& event, const std::string& phase);
  void look_at_name(const json& event);
  void nest(std::vector<Span>& spans);
  void pair(const std::vector<const json*>& ends);
  const json* about(const json& event) const;
  void names();

  std::map<Thread, std::vector<Span>> spans_;  // of a thread, by begin, as the file has them
  std::map<std::tuple<std::string, std::string, std::uint64_t>, std::vector<const json*>> flows_;
  std::set<Thread> used_, named_;
  std::set<std::int64_t> processes_used_, processes_named_;
};

void Rules::look(const json& event) {
  if (!event.is_object() || !event.contains("ph") || !event["ph"].is_string())
    return fault("an event without a phase: " + event.dump());
  const std::string phase = event["ph"];
  const auto keys = keys_by_phase().find(phase);
  if (keys == keys_by_phase().end()) return fault("not a phase of ours: " + event.dump());
  for (const std::string& key : keys->second.needed)
    if (!event.contains(key)) return fault(key + " is missing: " + event.dump());
  for (const auto& [key, value] : event.items())
    if (!keys->second.needed.contains(key)) return fault(key + " is not a key of this phase: " + event.dump());
  look_at_values(event, phase);
}

void Rules::look_at_values(const json& event, const std::string& phase) {
  const auto number = [](const json& value) { return value.is_number() && std::isfinite(value.get<double>()); };
  if (!event["name"].is_string() || event["name"].get<std::string>().empty()) return fault("no name: " + event.dump());
  for (const char* key : {"pid", "tid"})
    if (event.contains(key) && (!event[key].is_number_integer() || event[key] <= 0))
      return fault(std::string(key) + " is no number above zero: " + event.dump());
  for (const char* key : {"ts", "dur"})
    if (event.contains(key) && (!number(event[key]) || event[key] < 0))
      return fault(std::string(key) + " is negative or no number: " + event.dump());
  if (event.contains("cat") && !event["cat"].is_string()) return fault("cat is no text: " + event.dump());
  if (event.contains("args") && !event["args"].is_object()) return fault("args is no object: " + event.dump());
  processes_used_.insert(event["pid"].get<std::int64_t>());
  if (phase == "M") return look_at_name(event);
  if (phase == "C") {
    for (const json& value : event["args"])
      if (!number(value)) fault("a counter's value is no number: " + event.dump());
    if (event["args"].empty()) fault("a counter without a value: " + event.dump());
    return;
  }
  const Thread thread{event["pid"], event["tid"]};
  used_.insert(thread);
  if (phase == "X") spans_[thread].push_back({ns_of(event["ts"]), ns_of(event["ts"]) + ns_of(event["dur"]), &event});
  if (phase == "X") return;
  if (!event["id"].is_number_unsigned()) return fault("an arrow's id is no number: " + event.dump());
  if (phase == "f" && event["bp"] != "e") return fault("an arrow's end binds to what comes next: " + event.dump());
  flows_[{event["cat"], event["name"], event["id"]}].push_back(&event);
}

void Rules::look_at_name(const json& event) {
  const std::string name = event["name"];
  const json& args = event["args"];
  if (name == "process_sort_index" || name == "thread_sort_index") {
    if (!args.contains("sort_index") || !args["sort_index"].is_number_integer()) fault("no order: " + event.dump());
    return;
  }
  if (name != "process_name" && name != "thread_name") return fault("names nothing of ours: " + event.dump());
  if (!args.contains("name") || !args["name"].is_string()) return fault("names without a name: " + event.dump());
  if (name == "process_name" && !processes_named_.insert(event["pid"].get<std::int64_t>()).second)
    fault("a process is named twice: " + event.dump());
  if (name == "thread_name" && !named_.insert(Thread{event["pid"], event["tid"]}).second)
    fault("a thread is named twice: " + event.dump());
}

// As a reader of the format does it: by begin, of those that begin together as the file has them.
void Rules::nest(std::vector<Span>& spans) {
  std::stable_sort(spans.begin(), spans.end(), [](const Span& p, const Span& q) { return p.begin_ns < q.begin_ns; });
  std::vector<const Span*> open;
  for (const Span& span : spans) {
    while (!open.empty() && open.back()->end_ns <= span.begin_ns) open.pop_back();
    if (!open.empty() && open.back()->end_ns < span.end_ns)
      fault("a slice reaches out of the one about it: " + span.event->dump() + " in " + open.back()->event->dump());
    open.push_back(&span);
  }
}

// The innermost slice about an arrow's end.
const json* Rules::about(const json& event) const {
  const auto spans = spans_.find({event["pid"], event["tid"]});
  if (spans == spans_.end()) return nullptr;
  const std::int64_t at_ns = ns_of(event["ts"]);
  auto span = std::upper_bound(spans->second.begin(), spans->second.end(), at_ns,
                               [](std::int64_t at, const Span& s) { return at < s.begin_ns; });
  while (span != spans->second.begin())
    if (--span; at_ns < span->end_ns) return span->event;
  return nullptr;
}

void Rules::pair(const std::vector<const json*>& ends) {
  const auto count = [&](const char* phase) {
    return std::count_if(ends.begin(), ends.end(), [&](const json* e) { return (*e)["ph"] == phase; });
  };
  if (count("s") != 1 || count("f") != 1) return fault("an arrow without two ends: " + ends.front()->dump());
  const json &from = (*ends[0])["ph"] == "s" ? *ends[0] : *ends[1], &to = &from == ends[0] ? *ends[1] : *ends[0];
  if (ns_of(from["ts"]) > ns_of(to["ts"])) return fault("an arrow runs backwards: " + from.dump());
  const json *cause = about(from), *effect = about(to);
  if (cause == nullptr) return fault("an arrow begins in no slice: " + from.dump());
  if (effect == nullptr) return fault("an arrow ends in no slice: " + to.dump());
  arrows_.push_back({from["name"], cause, effect});
}

void Rules::names() {
  std::set<std::int64_t> threads;
  for (const Thread& thread : used_) {
    if (!named_.contains(thread)) fault("a thread has no name: " + std::to_string(thread.second));
    if (!threads.insert(thread.second).second) fault("two processes have a thread " + std::to_string(thread.second));
  }
  for (const std::int64_t process : processes_used_)
    if (!processes_named_.contains(process)) fault("a process has no name: " + std::to_string(process));
}

}  // namespace

std::vector<std::string> trace_faults(const json& trace) { return Rules(trace).faults_; }
std::vector<TraceArrow> trace_arrows(const json& trace) { return Rules(trace).arrows_; }

}  // namespace troupe::test
