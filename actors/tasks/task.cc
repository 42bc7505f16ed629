// Tasks. Held-out problems are found by looking: a space is gone through in an order of the seed's, in blocks, and
// held-out problem number n is the (n / blocks)-th that block n % blocks holds. No list is kept, and no problem that
// comes before another has to be known.
#include "actors/tasks/task.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <optional>

#include "actors/data/r1.h"
#include "actors/tasks/jsonl.h"
#include "actors/tasks/space.h"
#include "actors/tasks/verify.h"
#include "kernels/base/check.h"
#include "kernels/base/error.h"
#include "kernels/base/random.h"

namespace troupe {
namespace {

__extension__ using Wide = unsigned __int128;

constexpr std::uint64_t kHeldOutShare = 16;      // one in so many
constexpr std::uint64_t kBlockPositions = 2048;  // looked at to find one held-out problem
constexpr std::uint64_t kDrawsMax = 4096;        // of a training problem

constexpr int kCountdownLeast = 2;  // numbers

// An order of 0..units-1 that jumps about: unit -> offset + unit * stride.
class Order {
 public:
  Order(std::uint64_t units, std::uint64_t key) : units_(units), offset_(random_below(units, key, 0)) {
    stride_ = static_cast<std::uint64_t>(static_cast<Wide>(units) * 618'034 / 1'000'000) | 1;
    while (std::gcd(stride_, units_) != 1) stride_ += 2;
  }
  std::uint64_t at(std::uint64_t unit) const {
    return static_cast<std::uint64_t>((static_cast<Wide>(unit) * stride_ + offset_) % units_);
  }

 private:
  std::uint64_t units_, offset_, stride_ = 1;
};

// Positions of the held-out problems in a block, each problem once, until there are `enough`.
std::vector<std::uint64_t> held_out_of_block(const Space& space, const Order& order, std::uint64_t begin,
                                             std::uint64_t end, std::uint64_t enough) {
  std::vector<std::uint64_t> found;
  std::vector<std::string> seen;  // in this unit
  for (std::uint64_t at = begin; at < end; ++at) {
    seen.clear();
    for (std::uint64_t attempt = 0; attempt < space.tries; ++attempt) {
      const std::uint64_t position = order.at(at) * space.tries + attempt;
      std::string content = content_at(space, position);
      if (content.empty() || !is_held_out(content)) continue;
      if (std::find(seen.begin(), seen.end(), content) != seen.end()) continue;
      found.push_back(position);
      if (found.size() == enough) return found;
      seen.push_back(std::move(content));
    }
  }
  return found;
}

std::optional<std::uint64_t> held_out_position(const Space& space, std::uint64_t key, std::uint64_t number) {
  const Order order(space.units, key);
  const std::uint64_t block_units = kBlockPositions / space.tries;
  const std::uint64_t blocks = (space.units + block_units - 1) / block_units;
  const auto edge = [&](std::uint64_t block) {
    return static_cast<std::uint64_t>(static_cast<Wide>(space.units) * block / blocks);
  };
  for (std::uint64_t empty = 0; empty < std::min<std::uint64_t>(blocks, 16); ++empty) {
    const std::uint64_t block = (number + empty) % blocks, within = number / blocks;
    const auto found = held_out_of_block(space, order, edge(block), edge(block + 1), within + 1);
    if (!found.empty()) return found[within % found.size()];
  }
  return std::nullopt;
}

std::optional<std::uint64_t> training_position(const Space& space, std::uint64_t key, std::uint64_t number) {
  for (std::uint64_t draw = 0; draw < kDrawsMax; ++draw) {
    const std::uint64_t position = random_below(space.positions(), key, number, 16 + draw);
    const std::string content = content_at(space, position);
    if (!content.empty() && !is_held_out(content)) return position;
  }
  return std::nullopt;
}

// Every digit is another one with probability 1/2, one at least.
std::string scrambled(std::string text, std::uint64_t key, std::uint64_t index) {
  std::vector<std::size_t> digits;
  for (std::size_t i = 0; i < text.size(); ++i)
    if (text[i] >= '0' && text[i] <= '9') digits.push_back(i);
  if (digits.empty()) return text;
  const std::size_t certain = digits[random_below(digits.size(), key, index, 1)];
  for (const std::size_t i : digits) {
    if (i != certain && random_below(2, key, index, 2 + 2 * i) == 0) continue;
    const auto step = static_cast<int>(1 + random_below(9, key, index, 3 + 2 * i));
    text[i] = static_cast<char>('0' + (text[i] - '0' + step) % 10);
  }
  return text;
}

// The solution with its answer written wrong. The digits of an expression may come out as the same numbers in another
// order, and right again; then they are drawn once more.
std::string corrupted(const TaskProblem& problem, const TaskConfig& config, std::uint64_t key, std::uint64_t number) {
  const std::string_view mark = config.form == "r1" ? kAnswer : problem.task == "jsonl" ? kAnswerMark : "";
  const std::size_t begin = mark.empty() ? 0 : std::min(problem.solution.rfind(mark), problem.solution.size());
  std::string wrong;
  for (std::uint64_t attempt = 0; attempt < 16; ++attempt) {
    wrong = problem.solution.substr(0, begin) +
            scrambled(problem.solution.substr(begin), random_word(key, number, attempt), number);
    if (!verify(problem.task, problem.answer, wrong, {.has_tags = config.form == "r1"}).correct) break;
  }
  return wrong;
}

}  // namespace

int level_most(const std::string& task) {
  if (task == "arithmetic") return 9;
  if (task == "countdown") return 6;
  return task == "reverse" || task == "sort" || task == "jsonl" ? 18 : 0;
}

bool is_held_out(const std::string& content) { return random_key(0, "task/held out/" + content) % kHeldOutShare == 0; }

Tasks::Tasks(const TaskConfig& config, const std::function<bool(const TaskProblem&)>& fits) : config_(config) {
  if (config.names.empty()) throw Error("task.names is empty, must name a task: --set 'task.names=[\"reverse\"]'");
  const bool has_file = std::find(config.names.begin(), config.names.end(), "jsonl") != config.names.end();
  if (has_file) jsonl_ = std::make_unique<JsonlTask>(config, fits);
  for (const std::string& name : config.names) {
    if (config.level_min < 1 || config.level_max < config.level_min || config.level_max > level_most(name))
      throw Error("task.level_min..level_max are {}..{}, must be within 1..{} for task {}", config.level_min,
                  config.level_max, level_most(name), name);
    if (name == "jsonl") continue;
    // A level without problems is told here, not at the first that is asked for.
    for (int i = 0; i <= config.level_max - config.level_min; ++i)
      for (const Split split : {Split::train, Split::held_out})
        generated(name, 0, split, static_cast<std::uint64_t>(i));
  }
}

Tasks::~Tasks() = default;

std::int64_t Tasks::left_out() const { return jsonl_ ? jsonl_->left_out() : 0; }
std::size_t Tasks::bytes() const { return jsonl_ ? jsonl_->bytes() : 0; }

TaskProblem Tasks::generated(const std::string& name, std::uint64_t seed, Split split, std::uint64_t number) const {
  const int least = name == "countdown" ? std::max(kCountdownLeast, config_.level_min) : config_.level_min;
  const int most = std::max(least, config_.level_max);
  const std::uint64_t levels = static_cast<std::uint64_t>(most) - static_cast<std::uint64_t>(least) + 1;
  const int level = least + static_cast<int>(number % levels);
  const std::uint64_t key =
      random_key(seed, fmt::format("task/{}/{}/{}", name, level, split == Split::train ? "train" : "held out"));
  const Space space = space_of(config_, name, level);
  const std::uint64_t within = number / levels;
  const std::optional<std::uint64_t> position =
      split == Split::train ? training_position(space, key, within) : held_out_position(space, key, within);
  if (!position) {
    throw Error("task {} of level {} has no problems {}: {}", name, level,
                split == Split::train ? "to train on" : "held out",
                name == "countdown" ? "raise task.number_max or task.target_max"
                                    : "choose task.level_min and task.level_max without it");
  }
  const Draft draft = draft_at(space, *position, config_, key, within);
  const bool is_r1 = config_.form == "r1";
  return {.task = name,
          .prompt = is_r1 ? r1_prompt(draft.question, name == "countdown" ? "expression" : "answer") : draft.plain,
          .solution = is_r1 ? r1_solution(draft.thought, draft.shown) : draft.shown,
          .answer = draft.answer,
          .level = level,
          .index = 0};
}

TaskProblem Tasks::problem(std::uint64_t seed, Split split, std::uint64_t index) const {
  const std::string& name = config_.names[index % config_.names.size()];
  const std::uint64_t number = index / config_.names.size();
  TaskProblem problem = name == "jsonl" ? jsonl_->problem(seed, split, number) : generated(name, seed, split, number);
  problem.index = index;
  const std::uint64_t dirt = random_key(seed, "task/corrupt/" + name);
  if (split == Split::train && random_uniform(dirt, number) < config_.corrupt)
    problem.solution = corrupted(problem, config_, random_word(dirt, number, 1), number);
  return problem;
}

}  // namespace troupe
