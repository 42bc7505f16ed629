// Times within the trace are nanoseconds: the journals' clocks have microseconds, in which much may happen, and each
// slice must have a moment of its own for its arrows. So what a node handled in one microsecond stands a nanosecond
// apart, in the order in which it was handled.
#include "launcher/inspect/trace.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <tuple>
#include <vector>

#include "kernels/base/error.h"
#include "kernels/profile.h"
#include "launcher/inspect/trace_events.h"
#include "launcher/inspect/trace_queue.h"
#include "launcher/inspect/wait_lanes.h"
#include "messages/message.h"

namespace troupe {

namespace {

constexpr std::uint64_t kProgressEvery = 1 << 16;
constexpr std::uint32_t kActorsOrder = 1000, kIndicesMax = 4096, kLanesMax = 64;
const std::size_t kSegmentDone = Message(SegmentDone{}).index();

// A step is as long as its forward, backward and weight gradients, and what applies them. Others are applied too: what a
// run begins with, and the versions between.
void hold_step(TraceSurvey& survey, const JournalRecord& record, std::int64_t begin_us) {
  const auto phase = static_cast<SegmentClass>(record.kind);
  if (record.entry != JournalEntry::segment || phase == SegmentClass::evaluate) return;
  if (phase != SegmentClass::apply) return survey.steps[record.step].hold(begin_us, begin_us + record.took_us);
  if (const auto step = survey.steps.find(record.step); step != survey.steps.end())
    step->second.end_us = std::max(step->second.end_us, begin_us + record.took_us);
}

std::uint32_t order_of(const Address& actor, std::size_t lane) {
  const auto role = static_cast<std::uint32_t>(actor.role);
  const std::uint32_t place = role * kIndicesMax + std::min(actor.index, kIndicesMax - 1);
  return (kActorsOrder + place) * kLanesMax + std::min<std::uint32_t>(static_cast<std::uint32_t>(lane), kLanesMax - 1);
}

const char* name_of(WorkKind kind) {
  constexpr std::array<const char*, kWorkKinds> kNames = {"train", "evaluate", "generate", "score", "reference"};
  return kNames[std::min<std::size_t>(static_cast<std::size_t>(kind), kNames.size() - 1)];
}

std::string place_args(const JournalRecord& r) {
  std::string text;
  const auto add = [&](const char* name, std::int64_t value) {
    if (value >= 0) text += fmt::format(",\"{}\":{}", name, value);
  };
  add("step", r.step);
  add("microbatch", r.microbatch);
  add("layer", r.layer);
  return text;
}

std::string work_args(const JournalRecord& r) {
  if (r.step < 0) return "";
  std::string text = place_args(r);
  if (r.chunk >= 0) text += fmt::format(",\"chunk\":{}", r.chunk);
  return text + fmt::format(R"(,"attempt":{},"work":"{}","direction":"{}")", r.attempt,
                            name_of(static_cast<WorkKind>(r.work)), r.direction == 0 ? "forward" : "backward");
}

// Where a message was handled or a segment ran, and what made it. widths are cut at four seconds, arrows begin before.
struct Placed {
  std::uint64_t id = 0, cause = 0;
  std::int64_t posted_ns = 0, begin_ns = 0;
  std::uint32_t width_ns = 0;
  std::uint32_t track = 0;
};

const Placed* find(const std::vector<Placed>& by_id, std::uint64_t id) {
  const auto found = std::lower_bound(by_id.begin(), by_id.end(), id,
                                      [](const Placed& p, std::uint64_t wanted) { return p.id < wanted; });
  return found == by_id.end() || found->id != id ? nullptr : &*found;
}

class Writer {
 public:
  Writer(const TraceSpan& part, std::ostream& out)
      : part_(part), events_(out), queues_((part.end_us - part.begin_us) * 1000) {}

  void hear(const JournalOwner& owner, const JournalRecord& record) {
    const std::int64_t begin_us = record.begin_us, end_us = begin_us + record.took_us;
    if (record.entry == JournalEntry::wait) {
      if (begin_us < part_.end_us && end_us > part_.begin_us) waited(owner.node, record, begin_us, end_us);
      return;
    }
    if (begin_us < part_.begin_us || begin_us >= part_.end_us) return;
    if (record.entry == JournalEntry::handled) handled(owner, record, begin_us);
    if (record.entry == JournalEntry::segment) ran(owner.node, record, begin_us);
  }
  TraceCounts close(const std::string& title);

 private:
  using Thread = std::pair<std::uint32_t, std::uint32_t>;  // of a node
  struct Group {                                           // segments that ran together are one slice
    TraceSlice slice;
    std::int64_t begin_us = -1;
    std::uint32_t track = 0;
    int together = 0;
    const char* name = "";
    std::string args, others;
  };

  std::int64_t trace_ns(std::int64_t us) const { return (us - part_.begin_us) * 1000; }
  std::uint32_t track(std::uint32_t node, const std::string& name, std::uint32_t order);
  // The next on this thread, after what stands there.
  TraceSlice next(std::int64_t& free_ns, std::uint32_t track, std::int64_t begin_us, std::uint32_t took_us);
  Placed placed(const JournalRecord& record, const TraceSlice& slice, std::uint32_t track) const;
  void handled(const JournalOwner& owner, const JournalRecord& record, std::int64_t begin_us);
  void ran(std::uint32_t node, const JournalRecord& record, std::int64_t begin_us);
  void waited(std::uint32_t node, const JournalRecord& record, std::int64_t begin_us, std::int64_t end_us);
  void end_group(Group& group);
  void draw_arrows();
  void draw(const char* what, const Placed* cause, const Placed& effect);

  const TraceSpan part_;
  TraceEvents events_;
  TraceQueues queues_;
  TraceCounts counts_;
  std::vector<TraceTrack> tracks_;
  std::map<std::tuple<std::uint32_t, std::uint32_t, std::string>, std::uint32_t> numbers_;  // in tracks_
  std::map<std::uint32_t, std::int64_t> loops_;                                             // free from, by node
  std::map<Thread, std::int64_t> threads_;
  std::map<Thread, Group> groups_;
  std::map<std::pair<std::uint32_t, Address>, WaitLanes> lanes_;
  std::vector<Placed> messages_, ends_, segments_;  // ends: messages that tell a segment's end, with its number
};

std::uint32_t Writer::track(std::uint32_t node, const std::string& name, std::uint32_t order) {
  const auto [known, fresh] = numbers_.try_emplace({node, order, name}, static_cast<std::uint32_t>(tracks_.size()));
  if (fresh) tracks_.push_back(events_.track(node, name, order));
  return known->second;
}

TraceSlice Writer::next(std::int64_t& free_ns, std::uint32_t track, std::int64_t begin_us, std::uint32_t took_us) {
  const std::int64_t begin_ns = std::max(trace_ns(begin_us), free_ns);
  free_ns = std::max(begin_ns + 1, trace_ns(begin_us + took_us));
  return {tracks_[track], begin_ns, free_ns};
}

Placed Writer::placed(const JournalRecord& record, const TraceSlice& slice, std::uint32_t track) const {
  const auto width = static_cast<std::uint32_t>(std::min<std::int64_t>(UINT32_MAX, slice.end_ns - slice.begin_ns));
  return {record.id, record.cause, 0, slice.begin_ns, width, track};
}

void Writer::handled(const JournalOwner& owner, const JournalRecord& record, std::int64_t begin_us) {
  const std::uint32_t own = track(owner.node, to_string(record.to()), order_of(record.to(), 0));
  const TraceSlice slice = next(loops_[owner.node], own, begin_us, record.took_us);
  Placed place = placed(record, slice, own);
  place.posted_ns = trace_ns(record.sent_us);
  events_.slice(slice, "handler", kind_name(record.kind),
                fmt::format(R"("id":"{}","from":"{}"{},"bytes":{},"since_posted_us":{})", record.id,
                            to_string(record.from()), work_args(record), record.bytes, begin_us - record.sent_us));
  queues_.add(owner.node, record.to(), place.posted_ns, slice.begin_ns);
  (record.kind == kSegmentDone ? ends_ : messages_).push_back(place);
  ++counts_.messages;
}

// Of a group the first is told first, as they ran; a ring may have forgotten it, and then the others have no slice.
void Writer::ran(std::uint32_t node, const JournalRecord& record, std::int64_t begin_us) {
  const Thread thread{node, record.thread};
  Group& group = groups_[thread];
  if (record.chunk == 0) {
    end_group(group);
    group.track = track(node, fmt::format("compute thread {}", record.thread), record.thread);
    group.slice = next(threads_[thread], group.track, begin_us, record.took_us);
    group.begin_us = record.begin_us;
    group.name = to_string(static_cast<SegmentClass>(record.kind));
    group.args = fmt::format(R"("id":"{}","actor":"{}"{})", record.id, to_string(record.from()), place_args(record));
    group.others.clear();
    group.together = 0;
  }
  if (group.begin_us != record.begin_us) return;
  if (group.together > 0)
    group.others +=
        fmt::format("{}microbatch {} layer {}", group.together > 1 ? "; " : "", record.microbatch, record.layer);
  ++group.together;
  segments_.push_back(placed(record, group.slice, group.track));
  ++counts_.segments;
}

void Writer::end_group(Group& group) {
  if (group.together == 0) return;
  if (group.together > 1)
    group.args += fmt::format(R"(,"together":{},"others":{})", group.together, trace_text(group.others));
  events_.slice(group.slice, "segment", group.name, group.args);
  group.together = 0;
}

// A wait that reaches over the part's edge is cut there.
void Writer::waited(std::uint32_t node, const JournalRecord& record, std::int64_t begin_us, std::int64_t end_us) {
  const std::int64_t begin_ns = trace_ns(std::max(begin_us, part_.begin_us));
  const std::int64_t end_ns = trace_ns(std::min(end_us, part_.end_us));
  if (begin_ns >= end_ns) return;
  const Address who = record.from(), holder = record.to();
  const std::size_t lane = lanes_[{node, who}].lane_of(begin_ns, end_ns);
  const std::string name = fmt::format("{} waits{}", to_string(who), lane > 0 ? fmt::format(" {}", lane + 1) : "");
  const char* what = to_string(static_cast<Awaited>(std::min<std::uint8_t>(record.kind, kAwaited - 1)));
  events_.slice({tracks_[track(node, name, order_of(who, lane + 1))], begin_ns, end_ns}, "wait", what,
                fmt::format(R"("holder":"{}"{}{})", holder == who ? "itself" : to_string(holder), work_args(record),
                            begin_us < part_.begin_us || end_us > part_.end_us ? ",\"cut\":true" : ""));
  ++counts_.waits;
}

// An arrow begins when its message was posted, as far as that lies within the slice of its cause and before its end.
void Writer::draw(const char* what, const Placed* cause, const Placed& effect) {
  if (cause == nullptr) {
    ++counts_.forgotten;
    return;
  }
  const std::int64_t last_ns = cause->begin_ns + cause->width_ns - 1;
  const std::int64_t wanted_ns = std::min(effect.posted_ns != 0 ? effect.posted_ns : last_ns, effect.begin_ns);
  const std::int64_t from_ns = std::clamp(wanted_ns, cause->begin_ns, last_ns);
  const std::int64_t to_ns = std::max(effect.begin_ns, from_ns);
  if (to_ns >= effect.begin_ns + effect.width_ns) {
    ++counts_.backwards;
    return;
  }
  events_.arrow(what, {tracks_[cause->track], from_ns}, {tracks_[effect.track], to_ns});
}

void Writer::draw_arrows() {
  for (auto* all : {&messages_, &ends_, &segments_})
    std::sort(all->begin(), all->end(), [](const Placed& p, const Placed& q) { return p.id < q.id; });
  const auto cause_of = [&](const Placed& effect) {
    const Placed* message = find(messages_, effect.cause);
    return message != nullptr ? message : find(ends_, effect.cause);
  };
  for (const auto& [what, effects] : {std::pair{"message", &messages_}, std::pair{"segment", &segments_}})
    for (const Placed& effect : *effects)
      if (effect.cause != 0) draw(what, cause_of(effect), effect);
  for (const Placed& end : ends_) draw("end", find(segments_, end.id), end);
}

TraceCounts Writer::close(const std::string& title) {
  for (auto& [thread, group] : groups_) end_group(group);
  draw_arrows();
  queues_.write(events_);
  events_.close(fmt::format(R"("run":{},"zero_us":"{}")", trace_text(title), part_.begin_us));
  std::set<std::uint32_t> nodes;
  for (const auto& [place, number] : numbers_) nodes.insert(std::get<0>(place));
  counts_.nodes = nodes.size();
  counts_.arrows = events_.arrows();
  return counts_;
}

}  // namespace

void TraceSpan::hold(std::int64_t begin, std::int64_t end) {
  begin_us = std::min(begin_us, begin);
  end_us = std::max(end_us, end);
}

TraceSurvey survey_journals(const VisitRecords& visit) {
  TraceSurvey survey;
  visit([&](const JournalOwner&, const JournalRecord& record) {
    ++survey.records;
    if (record.entry != JournalEntry::handled && record.entry != JournalEntry::segment) return;
    survey.all.hold(record.begin_us, record.begin_us + record.took_us + 1);
    hold_step(survey, record, record.begin_us);
  });
  return survey;
}

TraceSpan chosen_part(const TraceSurvey& survey, const TraceChoice& choice) {
  if (survey.all.begin_us >= survey.all.end_us) throw Error("its journals are empty; nothing has happened yet");
  TraceSpan part = survey.all;
  if (choice.last_seconds)
    part.begin_us =
        std::max<std::int64_t>(part.begin_us, part.end_us - std::llround(std::min(1e9, *choice.last_seconds) * 1e6));
  if (!choice.from_step) return part;
  const std::int64_t from = *choice.from_step, to = choice.to_step.value_or(from);
  if (!survey.steps.contains(from) || !survey.steps.contains(to)) {
    if (survey.steps.empty()) throw Error("its journals tell of no step of training");
    throw Error("its journals tell of steps {} to {}, not of all from {} to {}; inspect.journal_mib makes them longer",
                survey.steps.begin()->first, survey.steps.rbegin()->first, from, to);
  }
  return {survey.steps.at(from).begin_us, survey.steps.at(to).end_us};
}

TraceCounts write_trace(const VisitRecords& visit, const TraceSpan& part, std::ostream& out, const std::string& title,
                        const std::function<void(std::uint64_t)>& progress) {
  Writer writer(part, out);
  std::uint64_t read = 0;
  visit([&](const JournalOwner& owner, const JournalRecord& record) {
    if (progress && ++read % kProgressEvery == 0) progress(read);
    writer.hear(owner, record);
  });
  return writer.close(title);
}

}  // namespace troupe
