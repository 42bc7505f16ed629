#include "launcher/inspect/web_answers.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "launcher/inspect/control_json.h"
#include "launcher/inspect/prometheus.h"
#include "launcher/inspect/timeline_json.h"
#include "launcher/loop.h"

namespace troupe {

using nlohmann::json;

namespace {

constexpr const char* kJson = "application/json";
constexpr std::size_t kFilterBytesMax = 200, kTextsMax = 64;
constexpr std::uint64_t kRecordsFirst = 50'000;  // of each journal; eight times as many if that is too few
constexpr std::uint64_t kTornRecords = 1000;     // that may be under way while they are read

// Bytes that are no UTF-8, of somebody's question, must not end the program.
std::string dumped(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

template <typename Number>
Number number_in(const WebQuery& query, const std::string& key, Number least, Number most, Number otherwise) {
  const auto found = query.find(key);
  if (found == query.end()) return otherwise;
  const std::string& text = found->second;
  Number number{};
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || problem != std::errc() || end != text.data() + text.size() || number < least || number > most)
    throw Misasked("{} must be a whole number, {} to {}", key, least, most);
  return number;
}

// Reads more and more of the journals until `make` lacks nothing, or all is read.
template <typename Make>
auto from_journals(InspectSource& source, Make make) {
  std::size_t read = 0;
  for (std::uint64_t most = kRecordsFirst;; most *= 8) {
    const std::vector<JournalPage> pages = source.journals(most);
    const bool all = std::none_of(pages.begin(), pages.end(), [&](const JournalPage& page) {
      return page.written - page.first + kTornRecords >= most;
    });
    std::size_t records = 0;
    for (const JournalPage& page : pages) records += page.records.size();
    auto made = make(pages);
    if (all || records <= read || (made && !made->lacking)) return made;
    read = records;
  }
}

}  // namespace

WebAnswer web_error(int status, const std::string& sentence) { return {status, kJson, dumped({{"error", sentence}})}; }

ViewPart view_part(const WebQuery& query) {
  ViewPart part;
  part.limit = number_in<std::size_t>(query, "limit", 0, kActorsMax, kActorsUsual);
  part.offset = number_in<std::size_t>(query, "offset", 0, 1'000'000'000, 0);
  if (const auto sort = query.find("sort"); sort != query.end()) {
    const auto order = actor_order(sort->second);
    if (!order) throw Misasked("sort must be actor, queue, oldest, messages, busy, waits or memory");
    part.order = *order;
  }
  if (const auto filter = query.find("filter"); filter != query.end()) part.filter = filter->second;
  if (part.filter.size() > kFilterBytesMax) throw Misasked("filter must have at most {} bytes", kFilterBytesMax);
  return part;
}

WebAnswer WebAnswers::answer(const WebQuestion& question) try {
  if (question.path == "/api/view") return view_answer(question);
  if (question.path == "/api/timeline") return timeline_answer(question);
  if (question.path == "/api/event") return event_answer(question);
  if (question.path == "/api/metrics") return metrics_answer(question);
  if (question.path == "/api/control") return control_answer(question);
  if (question.path == "/metrics") return {200, kPrometheusType, prometheus_text(view())};
  return web_error(404, "there is nothing of this name");
} catch (const Misasked& problem) {
  return web_error(400, problem.what());
} catch (const std::exception& problem) {
  return web_error(500, fmt::format("the run can't be looked at: {}", problem.what()));
}

bool WebAnswers::must_look() const {
  return changed_ || monotonic_us() - looked_us_ >= (brief_ ? kBriefLookUs : kLookUs);
}

void WebAnswers::look() {
  texts_.clear();
  view_ = source_.look();
  looked_us_ = monotonic_us();
  brief_ = std::exchange(changed_, false);
  ++looks_;
  // Most of the bytes, of a large model, and the same for several looks: told apart.
  View only;
  std::swap(only.figures.experts, view_.figures.experts);
  std::string experts = dumped(view_json(only)["experts"]);
  if (experts == experts_) return;
  experts_ = std::move(experts);
  ++experts_version_;
}

const View& WebAnswers::view() {
  if (must_look()) look();
  return view_;
}

std::shared_ptr<const std::string> WebAnswers::text(const ViewPart& part, Form form) {
  view();
  const std::string key = fmt::format("{} {} {} {} {}", static_cast<int>(form), static_cast<int>(part.order),
                                      part.offset, part.limit, part.filter);
  if (const auto known = texts_.find(key); known != texts_.end()) return known->second;
  json whole = view_json(view_, part);
  whole.erase("experts");
  whole["can_control"] = view_.options.can_control && may_control_;
  std::string text = dumped(whole);
  if (form != Form::event_without_experts) {
    text.back() = ',';
    text += fmt::format("\"experts\":{}}}", experts_);
  }
  if (form != Form::plain) text = fmt::format("event: view\ndata: {}\n\n", text);
  if (texts_.size() >= kTextsMax) texts_.clear();
  return texts_[key] = std::make_shared<const std::string>(std::move(text));
}

WebAnswers::Event WebAnswers::event(const ViewPart& part, std::uint64_t experts_heard) {
  view();
  return {text(part, experts_heard == experts_version_ ? Form::event_without_experts : Form::event), experts_version_};
}

WebAnswer WebAnswers::view_answer(const WebQuestion& question) {
  return {200, kJson, *text(view_part(question.query), Form::plain)};
}

WebAnswer WebAnswers::timeline_answer(const WebQuestion& question) {
  constexpr std::int64_t kLeast = std::numeric_limits<std::int64_t>::min(),
                         kMost = std::numeric_limits<std::int64_t>::max();
  TimelinePart part;
  part.from_us = number_in(question.query, "from_us", kLeast, kMost, kLeast);
  part.to_us = number_in(question.query, "to_us", kLeast, kMost, kMost);
  part.limit = number_in<std::size_t>(question.query, "limit", 1, kRowsMax, part.limit);
  if (const auto name = question.query.find("actor"); name != question.query.end()) {
    part.actor = actor_named(name->second);
    if (!part.actor) throw Misasked("actor must be one's name, such as stage 0");
  }
  const auto made = from_journals(
      source_, [&](const std::vector<JournalPage>& pages) { return std::optional(timeline_json(pages, part)); });
  return {200, kJson, made->json};
}

WebAnswer WebAnswers::event_answer(const WebQuestion& question) {
  const auto id = number_in<std::uint64_t>(question.query, "id", 0, std::numeric_limits<std::uint64_t>::max(), 0);
  if (id == 0) throw Misasked("id must be an event's number");
  const auto made =
      from_journals(source_, [&](const std::vector<JournalPage>& pages) { return event_json(pages, id); });
  if (!made) return web_error(404, fmt::format("the journals don't know of an event {}, or have forgotten it", id));
  return {200, kJson, made->json};
}

WebAnswer WebAnswers::metrics_answer(const WebQuestion& question) {
  const auto after = number_in<std::size_t>(question.query, "after", 0, std::numeric_limits<std::int64_t>::max(), 0);
  MetricsTail& metrics = source_.metrics();
  metrics.look();
  const auto& lines = metrics.lines();
  std::size_t next = after, told = 0;
  std::string text;
  const std::size_t first = lines.empty() ? 0 : lines.front().first;
  const bool anew = after > first + lines.size();  // the file is shorter than it was
  for (std::size_t i = after > first && !anew ? after - first : 0; i < lines.size(); ++i) {
    if (told == kMetricsLinesMax || (told > 0 && text.size() + lines[i].second.size() > kMetricsBytesMax)) break;
    if (told++ > 0) text += ',';
    text += lines[i].second;
    next = lines[i].first + 1;
  }
  return {200, kJson, fmt::format("{{\"lines\":[{}],\"next\":{}}}", text, next)};
}

// Whatever came of it, the next look is at the run as it is then.
WebAnswer WebAnswers::control_answer(const WebQuestion& question) {
  const Control control = control_of(question.body);
  try {
    const std::string said = source_.control(control);
    changed_ = true;
    return {200, kJson, dumped({{"said", said}})};
  } catch (const Error& problem) {
    changed_ = true;
    return web_error(409, problem.what());
  }
}

}  // namespace troupe
