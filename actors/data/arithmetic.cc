// Worked arithmetic. A column is written with its two digits and the carry, lowest column first, and the answer is read
// off the columns: 347+585=7+5+0:12,4+8+1:13,3+5+1:09;932. Every character can be had by looking at a few places before
// it, and all columns have one width, so that the places are the same ones: this is what a small model learns soon.
//   sum         column "a+b+carry:total"
//   difference  larger operand first; column "a-b-borrow:digit", a is 10..18 when it has to borrow itself
//   product     a row "a*b+carry:total,...>row" for each digit of the second operand, then their sums "...>sum"
// One pair of operands in sixteen is held out, whatever seed, order and operation: pairs are numbered, cut into runs of
// sixteen, and one of each run is chosen by hash.
#include "actors/data/arithmetic.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/base/random.h"

namespace troupe {
namespace {

using Number = std::uint64_t;
constexpr Number kRun = 16;

Number number_of_pair(Number x, Number y) {
  const Number u = std::max(x, y), v = std::min(x, y);
  return u * (u + 1) / 2 + v;
}
Number held_out_of_run(Number run) {
  return run * kRun + random_below(kRun, random_key(0, "arithmetic/held-out pairs"), run);
}
bool is_held_out(Number x, Number y) {
  const Number number = number_of_pair(x, y);
  return held_out_of_run(number / kRun) == number;
}

// Decimal digits, lowest first.
std::vector<Number> digits_of(Number number) {
  std::vector<Number> digits;
  do {
    digits.push_back(number % 10);
    number /= 10;
  } while (number > 0);
  return digits;
}
Number digit_at(const std::vector<Number>& digits, std::size_t place) {
  return place < digits.size() ? digits[place] : 0;
}

void separate(std::string& text, char separator) {
  if (!text.empty()) text += separator;
}

std::string work_sum(Number x, Number y) {
  const auto a = digits_of(x), b = digits_of(y);
  std::string text;
  Number carry = 0;
  for (std::size_t place = 0; place < std::max(a.size(), b.size()); ++place) {
    const Number total = digit_at(a, place) + digit_at(b, place) + carry;
    separate(text, ',');
    text += fmt::format("{}+{}+{}:{:02}", digit_at(a, place), digit_at(b, place), carry, total);
    carry = total / 10;
  }
  return text;
}

std::string work_difference(Number x, Number y) {
  const auto a = digits_of(x), b = digits_of(y);
  std::string text;
  Number borrow = 0;
  for (std::size_t place = 0; place < a.size(); ++place) {
    const Number take = digit_at(b, place) + borrow;
    const Number from = a[place] < take ? a[place] + 10 : a[place];
    separate(text, ',');
    text += fmt::format("{:02}-{}-{}:{}", from, digit_at(b, place), borrow, from - take);
    borrow = from > 9 ? 1 : 0;
  }
  return text;
}

std::string work_row(Number x, Number digit) {
  std::string text;
  Number carry = 0;
  for (const Number a : digits_of(x)) {
    const Number total = a * digit + carry;
    separate(text, ',');
    text += fmt::format("{}*{}+{}:{:02}", a, digit, carry, total);
    carry = total / 10;
  }
  return text;
}

std::string work_product(Number x, Number y) {
  std::string rows, sums;
  Number place_value = 1, sum = 0;
  for (const Number digit : digits_of(y)) {
    const Number row = x * digit * place_value;
    separate(rows, ';');
    rows += fmt::format("{}>{}", work_row(x, digit), row);
    if (place_value > 1) sums += fmt::format(";{}>{}", work_sum(sum, row), sum + row);
    sum += row;
    place_value *= 10;
  }
  return rows + sums;
}

Problem write_problem(char operation, Number x, Number y) {
  if (operation == '-' && x < y) std::swap(x, y);
  const Number result = operation == '+' ? x + y : operation == '-' ? x - y : x * y;
  const std::string work = operation == '+'   ? work_sum(x, y)
                           : operation == '-' ? work_difference(x, y)
                                              : work_product(x, y);
  return {.prompt = fmt::format("{}{}{}=", x, operation, y),
          .solution = fmt::format("{};{}\n", work, result),
          .answer = fmt::format("{}", result)};
}

// Three operands in four have all digits; the rest any number of them, so that short ones are met often enough.
Number draw_operand(int digits, std::uint64_t key, std::uint64_t index, std::uint64_t draw) {
  const bool is_full = random_below(4, key, index, draw) != 0;
  const auto shorter = static_cast<int>(random_below(static_cast<std::uint64_t>(digits), key, index, draw + 1));
  return random_below(power_of_ten(is_full ? digits : 1 + shorter), key, index, draw + 2);
}

}  // namespace

Problem make_problem(const DataConfig& config, std::uint64_t seed, std::uint64_t index, bool held_out) {
  const int digits = config.arithmetic_digits;
  const std::string& operations = config.arithmetic_operations;
  CHECK(digits >= 1 && digits <= 9 && !operations.empty(), "{} digits, operations {}", digits, operations);
  const std::uint64_t key = random_key(seed, held_out ? "arithmetic/held out" : "arithmetic/train");
  const char operation = operations[random_below(operations.size(), key, index, 0)];
  if (held_out) {
    const Number operands = power_of_ten(digits), runs = operands * (operands + 1) / 2 / kRun;
    auto [x, y] = pair_of_number(held_out_of_run(random_permute(index % runs, runs, key)));
    if (random_below(2, key, index, 1) == 1) std::swap(x, y);
    return write_problem(operation, x, y);
  }
  for (std::uint64_t draw = 2; draw < 1000; draw += 6) {
    const Number x = draw_operand(digits, key, index, draw), y = draw_operand(digits, key, index, draw + 3);
    if (!is_held_out(x, y)) return write_problem(operation, x, y);
  }
  CHECK(false, "problem {}: every pair drawn is held out", index);
}

std::string answer_of(const std::string& solution) {
  const std::string line = solution.substr(0, solution.find('\n'));
  const std::size_t mark = line.rfind(';');
  if (mark == std::string::npos) return "";
  const std::string answer = line.substr(mark + 1);
  const bool is_number = std::all_of(answer.begin(), answer.end(), [](char c) { return c >= '0' && c <= '9'; });
  return is_number ? answer : "";
}

std::int64_t problem_length_max(const DataConfig& config) {
  constexpr std::int64_t kColumn = 9;  // "9+9+1:19,"
  const std::int64_t digits = config.arithmetic_digits;
  const std::int64_t row = digits * kColumn + 2 * digits + 1, sum = 2 * digits * kColumn + 2 * digits + 1;
  const bool has_product = config.arithmetic_operations.find('*') != std::string::npos;
  const std::int64_t work = has_product ? digits * row + (digits - 1) * sum : digits * kColumn;
  const std::int64_t answer = has_product ? 2 * digits : digits + 1;
  return (2 * digits + 2) + work + answer + 1;  // prompt, work with ';', answer, end of line
}

std::uint64_t power_of_ten(int digits) {
  Number power = 1;
  for (int i = 0; i < digits; ++i) power *= 10;
  return power;
}

std::pair<std::uint64_t, std::uint64_t> pair_of_number(std::uint64_t number) {
  auto u = static_cast<Number>((std::sqrt(8.0 * static_cast<double>(number) + 1) - 1) / 2);
  while (u * (u + 1) / 2 > number) --u;
  while ((u + 1) * (u + 2) / 2 <= number) ++u;
  return {u, number - u * (u + 1) / 2};
}

}  // namespace troupe
