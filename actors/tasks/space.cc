#include "actors/tasks/space.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "actors/data/arithmetic.h"
#include "kernels/base/check.h"
#include "kernels/base/random.h"

namespace troupe {
namespace {

using Number = std::uint64_t;
__extension__ using Wide = unsigned __int128;

constexpr Number kCountdownTries = 8;  // expressions drawn for each set of numbers

// ---- Arithmetic: unordered pairs u >= v whose larger operand has `level` digits, n = u (u + 1) / 2 + v ----------------

Number first_pair(int level) {
  const Number u = level == 1 ? 0 : power_of_ten(level - 1);
  return u * (u + 1) / 2;
}
Number pairs_count(int level) {
  const Number u = power_of_ten(level);
  return u * (u + 1) / 2 - first_pair(level);
}
std::pair<Number, Number> pair_at(int level, Number unit) { return pair_of_number(first_pair(level) + unit); }

Draft arithmetic_draft(const Space& space, Number position, const std::string& operations, Number key, Number number) {
  auto [x, y] = pair_at(space.level, position);
  const char operation = operations[random_below(operations.size(), key, number, 1)];
  if (operation != '-' && random_below(2, key, number, 2) == 1) std::swap(x, y);
  const Number result = operation == '+' ? x + y : operation == '-' ? x - y : x * y;
  const std::string answer = fmt::format("{}", result);
  return {.plain = fmt::format("{}{}{}=", x, operation, y),
          .question = fmt::format("What is {} {} {}?", x, operation, y),
          .thought = fmt::format("I work out {} {} {}.", x, operation, y),
          .shown = answer,
          .answer = answer};
}

// ---- Reverse and sort: strings of `level` digits ----------------------------------------------------------------------

std::string digits_at(int level, Number unit) { return fmt::format("{:0{}}", unit, level); }

std::string sorted(std::string text) {
  std::sort(text.begin(), text.end());
  return text;
}

Draft digits_draft(const Space& space, Number position) {
  const std::string given = digits_at(space.level, position);
  const bool is_sort = space.task == "sort";
  const std::string answer = is_sort ? sorted(given) : std::string(given.rbegin(), given.rend());
  return {.plain = fmt::format("{}{}=", is_sort ? 's' : 'r', given),
          .question = is_sort ? fmt::format("Write the digits {} in ascending order.", given)
                              : fmt::format("Write the digits {} in reverse order.", given),
          .thought = fmt::format("I {} {}.", is_sort ? "sort" : "reverse", given),
          .shown = answer,
          .answer = answer};
}

// ---- Countdown: `level` numbers, joined two at a time by random exact operations --------------------------------------

Number choose(Number n, Number k) {
  Wide ways = 1;
  for (Number i = 1; i <= k; ++i) ways = ways * (n - k + i) / i;
  return static_cast<Number>(ways);
}

// Multisets of k numbers 1..most, ascending: number i of the set, less 1, plus i is the i-th of k distinct ones.
std::vector<Number> numbers_at(const Space& space, Number unit) {
  const auto k = static_cast<Number>(space.level), most = static_cast<Number>(space.number_max);
  std::vector<Number> numbers(k);
  Number above = most + k - 1;  // the distinct numbers are below
  for (Number i = k; i-- > 0;) {
    Number low = i, high = above - 1;  // the largest member with choose(member, i + 1) <= unit
    while (low < high) {
      const Number middle = (low + high + 1) / 2;
      if (choose(middle, i + 1) <= unit)
        low = middle;
      else
        high = middle - 1;
    }
    unit -= low >= i + 1 ? choose(low, i + 1) : 0;
    numbers[i] = low - i + 1;
    above = low;
  }
  return numbers;
}

struct Join {
  std::size_t left = 0, right = 0;  // places in the pool when it is done; right is counted without left
  char operation = '+';
};
struct Route {
  std::vector<Join> joins;
  Number target = 0;
};

std::optional<Number> join(Number a, char operation, Number b) {
  if (operation == '+') return a + b;
  if (operation == '*') return a * b;
  if (operation == '-') return a < b ? std::nullopt : std::optional(a - b);
  return b == 0 || a % b != 0 ? std::nullopt : std::optional(a / b);
}

template <typename Value>
Value take(std::vector<Value>& pool, std::size_t place) {
  Value taken = std::move(pool[place]);
  pool.erase(pool.begin() + static_cast<std::ptrdiff_t>(place));
  return taken;
}

// Nothing where the draw leads to no target that is allowed.
std::optional<Route> route_at(const Space& space, Number position, const std::vector<Number>& numbers) {
  static const Number key = random_key(0, "task/countdown/expressions");
  Route route;
  std::vector<Number> pool = numbers;
  while (pool.size() > 1) {
    const Number draw = random_word(key, position, pool.size());
    const Join next{.left = (draw & 0xFFFF) % pool.size(),
                    .right = ((draw >> 16) & 0xFFFF) % (pool.size() - 1),
                    .operation = "+-*/"[(draw >> 32) % 4]};
    const Number a = take(pool, next.left), b = take(pool, next.right);
    const std::optional<Number> value = join(a, next.operation, b);
    if (!value) return std::nullopt;
    pool.push_back(*value);
    route.joins.push_back(next);
  }
  route.target = pool[0];
  const bool is_given = std::find(numbers.begin(), numbers.end(), route.target) != numbers.end();
  const bool is_allowed = route.target >= 1 && route.target <= static_cast<Number>(space.target_max) && !is_given;
  return is_allowed ? std::optional(route) : std::nullopt;
}

// An expression and how tightly it binds: 1 sum, 2 product, 3 number.
struct Term {
  std::string text;
  int tightness = 3;
};

std::string expression_of(const Route& route, const std::vector<Number>& numbers, bool is_spaced) {
  std::vector<Term> pool;
  for (const Number number : numbers) pool.push_back({fmt::format("{}", number)});
  for (const Join& next : route.joins) {
    const Term a = take(pool, next.left), b = take(pool, next.right);
    const int tightness = next.operation == '+' || next.operation == '-' ? 1 : 2;
    const bool is_strict = next.operation == '-' || next.operation == '/';
    const auto within = [](const Term& term, bool in_brackets) {
      return in_brackets ? fmt::format("({})", term.text) : term.text;
    };
    const std::string gap = is_spaced ? " " : "";
    pool.push_back({within(a, a.tightness < tightness) + gap + next.operation + gap +
                        within(b, is_strict ? b.tightness <= tightness : b.tightness < tightness),
                    tightness});
  }
  return pool[0].text;
}

Draft countdown_draft(const Space& space, Number position, bool is_spaced, Number key, Number number) {
  const std::vector<Number> numbers = numbers_at(space, position / space.tries);
  const std::optional<Route> route = route_at(space, position, numbers);
  CHECK(route.has_value(), "no countdown at position {}", position);
  std::vector<Number> given(numbers.size());
  const std::uint64_t order = random_word(key, number, 3);
  for (std::size_t i = 0; i < given.size(); ++i) given[random_permute(i, given.size(), order)] = numbers[i];
  const std::string expression = expression_of(*route, numbers, is_spaced);
  return {.plain = fmt::format("c{}:{}=", fmt::join(given, ","), route->target),
          .question = fmt::format("Using the numbers [{}], create an equation that equals {}. You can use + - * / and "
                                  "parentheses, and each number exactly once.",
                                  fmt::join(given, ", "), route->target),
          .thought = fmt::format("I join {} to {}.", fmt::join(given, ", "), route->target),
          .shown = expression,
          .answer = fmt::format("{{\"numbers\":[{}],\"target\":{}}}", fmt::join(given, ","), route->target)};
}

}  // namespace

Space space_of(const TaskConfig& config, const std::string& task, int level) {
  Space space{.task = task, .level = level, .number_max = config.number_max, .target_max = config.target_max};
  if (task == "arithmetic") {
    space.units = pairs_count(level);
  } else if (task == "countdown") {
    const auto k = static_cast<Number>(level);
    space.units = choose(static_cast<Number>(config.number_max) + k - 1, k);
    space.tries = kCountdownTries;
  } else {
    CHECK(task == "reverse" || task == "sort", "task {} has no space", task);
    space.units = power_of_ten(level);
  }
  return space;
}

std::string content_at(const Space& space, std::uint64_t position) {
  if (space.task == "arithmetic") {
    const auto [u, v] = pair_at(space.level, position);
    return fmt::format("arithmetic {} {}", u, v);
  }
  if (space.task != "countdown") return "digits " + sorted(digits_at(space.level, position));
  const std::vector<Number> numbers = numbers_at(space, position / space.tries);
  const std::optional<Route> route = route_at(space, position, numbers);
  return route ? fmt::format("countdown {}:{}", fmt::join(numbers, ","), route->target) : "";
}

Draft draft_at(const Space& space, std::uint64_t position, const TaskConfig& config, std::uint64_t key,
               std::uint64_t number) {
  if (space.task == "arithmetic") return arithmetic_draft(space, position, config.operations, key, number);
  if (space.task == "countdown") return countdown_draft(space, position, config.form == "r1", key, number);
  return digits_draft(space, position);
}

}  // namespace troupe
