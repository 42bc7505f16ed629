// What the inspector's server answers to paths below /api and to /metrics: from an InspectSource, without HTTP. Not for
// several threads. The law: however many watch, the source is looked at once a second; every answer has a bound.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "launcher/inspect/source.h"

namespace troupe {

using WebQuery = std::map<std::string, std::string>;
struct WebQuestion {
  std::string path;
  WebQuery query;
  std::string body;
};
struct WebAnswer {
  int status = 200;
  std::string type, body;
  std::string allow{};  // with 405: the methods
};
WebAnswer web_error(int status, const std::string& sentence);

constexpr std::int64_t kLookUs = 1'000'000;
constexpr std::int64_t kBriefLookUs = 250'000;  // of a look that knows no rates
constexpr std::size_t kActorsMax = 1000, kActorsUsual = 200;
constexpr std::size_t kRowsMax = 100'000;
constexpr std::size_t kMetricsLinesMax = 5000, kMetricsBytesMax = 8 << 20;

// Of /api/view and /api/stream. Throws Misasked.
ViewPart view_part(const WebQuery& query);

class WebAnswers {
 public:
  // may_control: the server was started for it.
  WebAnswers(InspectSource& source, bool may_control) : source_(source), may_control_(may_control) {}
  // What goes wrong is told in the answer.
  WebAnswer answer(const WebQuestion& question);

  // For streams. Each throws what the source throws.
  void look();
  bool must_look() const;  // the last look is too old
  std::uint64_t looks() const { return looks_; }
  struct Event {
    std::shared_ptr<const std::string> text;  // "event: view" and its data; one text for all who ask alike
    std::uint64_t experts = 0;                // which it has, or leaves out because these were heard
  };
  Event event(const ViewPart& part, std::uint64_t experts_heard);

 private:
  const View& view();
  enum class Form : std::uint8_t { plain, event, event_without_experts };
  std::shared_ptr<const std::string> text(const ViewPart& part, Form form);
  WebAnswer view_answer(const WebQuestion& question);
  WebAnswer timeline_answer(const WebQuestion& question);
  WebAnswer event_answer(const WebQuestion& question);
  WebAnswer metrics_answer(const WebQuestion& question);
  WebAnswer control_answer(const WebQuestion& question);

  InspectSource& source_;
  bool may_control_;
  View view_;
  std::uint64_t looks_ = 0;
  bool changed_ = true;  // since the last look, by somebody who controls
  bool brief_ = true;    // the last look's rates are of no time, or a short one
  std::int64_t looked_us_ = 0;
  std::string experts_;
  std::uint64_t experts_version_ = 0;
  std::map<std::string, std::shared_ptr<const std::string>> texts_;  // of this look, by what was asked for
};

}  // namespace troupe
