#include "actors/tasks/verify.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "actors/data/r1.h"
#include "actors/tasks/expression.h"
#include "actors/tasks/jsonl.h"

namespace troupe {
namespace {

using Json = nlohmann::json;

constexpr double kBlockReward = 0.1;  // of a countdown that is answered wrongly
constexpr std::size_t kDetailMax = 200;

// ---- Text -----------------------------------------------------------------------------------------------------------

bool is_digit(char c) { return c >= '0' && c <= '9'; }
// As Python strips ASCII text: with the separators 0x1c to 0x1f.
bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r') || (c >= '\x1c' && c <= '\x1f'); }

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

bool is_number(std::string_view text) {
  if (text.starts_with('-')) text.remove_prefix(1);
  return !text.empty() && std::all_of(text.begin(), text.end(), is_digit);
}

// The last block, from the first tag after the block before to the next closing one.
std::optional<std::string_view> last_answer(std::string_view response) {
  std::optional<std::string_view> found;
  for (std::size_t at = response.find(kAnswer); at != std::string_view::npos; at = response.find(kAnswer, at)) {
    const std::size_t begin = at + kAnswer.size(), end = response.find(kAnswerEnd, begin);
    if (end == std::string_view::npos) break;
    found = response.substr(begin, end - begin);
    at = end + kAnswerEnd.size();
  }
  return found;
}

// The place where a tag stands, if it does so once.
std::size_t only(std::string_view text, std::string_view tag) {
  const std::size_t at = text.find(tag);
  if (at == std::string_view::npos) return at;
  return text.find(tag, at + tag.size()) == std::string_view::npos ? at : std::string_view::npos;
}

// <think>...</think> <answer>...</answer> and nothing else but blanks.
bool is_formatted(std::string_view response) {
  const std::string_view text = trimmed(response);
  const std::size_t think = only(text, kThink), think_end = only(text, kThinkEnd), answer = only(text, kAnswer),
                    answer_end = only(text, kAnswerEnd);
  if (std::max({think, think_end, answer, answer_end}) == std::string_view::npos) return false;
  if (think != 0 || answer_end + kAnswerEnd.size() != text.size()) return false;
  if (think_end < kThink.size() || answer < think_end + kThinkEnd.size() || answer_end < answer + kAnswer.size())
    return false;
  const std::size_t between = think_end + kThinkEnd.size();
  return trimmed(text.substr(between, answer - between)).empty();
}

// ---- Numbers as text: "1,250.0" is "1250" -----------------------------------------------------------------------------

// The last number of a text, commas within it: -?digits(.digits)?; "" if there is none.
std::string last_number(std::string_view text) {
  std::size_t end = text.size();
  while (end > 0 && !is_digit(text[end - 1])) --end;
  std::size_t begin = end;
  const auto is_inside = [&](std::size_t at) {
    return is_digit(text[at]) || ((text[at] == ',' || text[at] == '.') && at > 0 && is_digit(text[at - 1]));
  };
  bool has_point = false;
  while (begin > 0 && is_inside(begin - 1)) {
    if (text[begin - 1] == '.' && has_point) break;
    has_point = has_point || text[begin - 1] == '.';
    --begin;
  }
  std::string number(text.substr(begin, end - begin));
  std::erase(number, ',');
  const std::size_t sign = begin > 0 && text[begin - 1] == '$' ? begin - 1 : begin;  // -$5
  const bool is_minus = sign > 0 && text[sign - 1] == '-' && (sign < 2 || !is_digit(text[sign - 2]));
  return is_minus && !number.empty() ? "-" + number : number;
}

std::string plainest(std::string number) {
  const bool is_negative = number.starts_with('-');
  if (is_negative) number.erase(0, 1);
  if (number.find('.') != std::string::npos) {
    number.erase(number.find_last_not_of('0') + 1);
    if (number.ends_with('.')) number.pop_back();
  }
  number.erase(0, std::min(number.find_first_not_of('0'), number.size()));
  if (number.starts_with('.')) number.insert(0, "0");
  if (number.empty()) return "0";
  return is_negative ? "-" + number : number;
}

// ---- Tasks ----------------------------------------------------------------------------------------------------------

Score right() { return {.reward = 1, .correct = true, .formatted = true, .detail = "right"}; }
Score wrong(bool formatted, std::string detail) { return {.formatted = formatted, .detail = std::move(detail)}; }

Score verify_exact(const std::string& answer, std::string_view given) {
  const std::string_view text = trimmed(given);
  if (text == trimmed(answer)) return right();
  return is_number(text) ? wrong(true, "another answer") : wrong(false, "no number");
}

// After the last mark, where there is one.
std::string given_number(std::string_view given) {
  const std::size_t mark = given.rfind(kAnswerMark);
  return last_number(mark == std::string_view::npos ? given : given.substr(mark + kAnswerMark.size()));
}

Score verify_number(const std::string& answer, std::string_view given) {
  const std::string known = last_number(answer);
  if (known.empty()) {
    return trimmed(given) == trimmed(answer) ? right() : wrong(!trimmed(given).empty(), "another answer");
  }
  const std::string number = given_number(given);
  if (number.empty()) return wrong(false, "no number");
  return plainest(number) == plainest(known) ? right() : wrong(true, "another number");
}

Score verify_countdown(const std::string& answer, std::string_view given, bool is_block) {
  const Json known = Json::parse(answer, nullptr, false);
  const auto is_count = [](const Json& value) { return value.is_number_unsigned(); };
  const bool is_known = known.is_object() && known.contains("numbers") && known["numbers"].is_array() &&
                        std::all_of(known["numbers"].begin(), known["numbers"].end(), is_count) &&
                        known.contains("target") && is_count(known["target"]);
  if (!is_known) return wrong(false, "the known answer is not {\"numbers\":[...],\"target\":...}");
  Evaluated evaluated = evaluate_expression(trimmed(given));
  Score score = wrong(evaluated.problem.empty(), evaluated.problem);
  if (is_block || score.formatted) score.reward = kBlockReward;
  if (!score.formatted) return score;
  auto numbers = known["numbers"].get<std::vector<std::uint64_t>>();
  std::sort(numbers.begin(), numbers.end());
  std::sort(evaluated.numbers.begin(), evaluated.numbers.end());
  if (evaluated.numbers != numbers) {
    score.detail = "other numbers than those given";
  } else if (!evaluated.is_whole || evaluated.value != known["target"].get<std::uint64_t>()) {
    score.detail = "another value than the target";
  } else {
    score = right();
  }
  return score;
}

Score verify_answer(const std::string& task, const std::string& answer, std::string_view given, bool is_block) {
  if (task == "countdown") return verify_countdown(answer, given, is_block);
  if (task == "jsonl") return verify_number(answer, given);
  return verify_exact(answer, given);
}

std::string text_of(const Json& json, const char* key) {
  return json.is_object() && json.contains(key) && json[key].is_string() ? json[key].get<std::string>() : "";
}

std::string dumped(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace

VerifyRules verify_rules(const Config& config) {
  return {.has_tags = config.task.form == "r1", .format_reward = config.judge.format_reward};
}

Score verify(const std::string& task, const std::string& answer, const std::string& response,
             const VerifyRules& rules) {
  if (level_most(task) == 0) return wrong(false, "no such task is built in");
  if (!rules.has_tags) return verify_answer(task, answer, response, false);
  const std::optional<std::string_view> block = last_answer(response);
  Score score = block ? verify_answer(task, answer, *block, true) : wrong(false, "no <answer> block");
  score.formatted = is_formatted(response);
  if (score.formatted) score.reward += rules.format_reward;
  return score;
}

std::string said(const std::string& task, const std::string& response, const VerifyRules& rules) {
  const std::optional<std::string_view> given =
      rules.has_tags ? last_answer(response) : std::optional<std::string_view>(response);
  if (!given) return "";
  if (task != "jsonl") return std::string(trimmed(*given));
  const std::string number = given_number(*given);
  return number.empty() ? "" : plainest(number);
}

std::string request_line(const TaskProblem& problem, const std::string& response) {
  return dumped({{"task", problem.task},
                 {"prompt", problem.prompt},
                 {"answer", problem.answer},
                 {"response", response},
                 {"level", problem.level}});
}

std::string verdict_line(const Score& score) {
  return dumped(
      {{"reward", score.reward}, {"correct", score.correct}, {"formatted", score.formatted}, {"detail", score.detail}});
}

std::string read_verdict(const std::string& line, Score& score) {
  const Json json = Json::parse(line, nullptr, false);
  if (!json.is_object()) return "not a JSON object";
  if (!json.contains("reward") || !json["reward"].is_number()) return "no number \"reward\"";
  const auto flag = [&](const char* key, bool absent) {
    return json.contains(key) && json[key].is_boolean() ? json[key].get<bool>() : absent;
  };
  score.reward = json["reward"].get<double>();
  if (!std::isfinite(score.reward)) return "a reward that is not finite";
  score.correct = flag("correct", score.reward >= 1);
  score.formatted = flag("formatted", false);
  score.detail.clear();
  for (const char c : text_of(json, "detail"))
    if (c >= ' ' && c <= '~' && score.detail.size() < kDetailMax) score.detail += c;
  return "";
}

std::string verdict_on(const std::string& request, const VerifyRules& rules) {
  const Json json = Json::parse(request, nullptr, false);
  if (!json.is_object()) return verdict_line(wrong(false, "the request is not a JSON object"));
  return verdict_line(verify(text_of(json, "task"), text_of(json, "answer"), text_of(json, "response"), rules));
}

}  // namespace troupe
