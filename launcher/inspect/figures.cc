#include "launcher/inspect/figures.h"

#include <fstream>

namespace troupe {

using nlohmann::json;

const LiveFigures& MetricsTail::look() {
  std::ifstream file(path_, std::ios::binary | std::ios::ate);
  if (!file) return figures_;
  const auto size = static_cast<std::uint64_t>(file.tellg());
  if (size < offset_) *this = MetricsTail(path_);
  if (size == offset_) return figures_;
  file.seekg(static_cast<std::streamoff>(offset_));
  std::string text(size - offset_, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(file.gcount()));
  offset_ += text.size();
  rest_ += text;
  std::size_t begin = 0;
  for (std::size_t end = rest_.find('\n'); end != std::string::npos; end = rest_.find('\n', begin)) {
    std::string line = rest_.substr(begin, end - begin);
    begin = end + 1;
    const json told = json::parse(line, nullptr, false);
    if (!told.is_object() || !told.contains("kind")) continue;
    hear(told);
    lines_.emplace_back(number_++, std::move(line));
    if (lines_.size() > kLinesMax) lines_.pop_front();
  }
  rest_.erase(0, begin);
  return figures_;
}

void MetricsTail::hear(const json& line) {
  const std::string kind = line.at("kind");
  if (kind == "step") figures_.step = line;
  if (kind == "evaluation") figures_.evaluation = line;
  if (kind == "bill") figures_.bill = line;
  if (kind == "step") figures_.finished = false;
  if (kind == "tainted") figures_.tainted = line.value("sentence", "");
  if (kind == "finished") {
    figures_.finished = true;
    figures_.reason = line.value("reason", "");
  }
  if (kind != "step" || !line.contains("expert_rows")) return;
  figures_.experts.push_back({line.at("step"), line.at("expert_layers"), line.at("expert_rows")});
  if (figures_.experts.size() > kExpertSteps) figures_.experts.pop_front();
}

}  // namespace troupe
