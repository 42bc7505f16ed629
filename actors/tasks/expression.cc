#include "actors/tasks/expression.h"

namespace troupe {
namespace {

__extension__ using Integer = __int128;

constexpr std::size_t kTextMax = 200;
constexpr int kDepthMax = 50;
constexpr Integer kMost = (Integer{1} << 126) - 1 + (Integer{1} << 126);
constexpr std::uint64_t kNumberMax = std::uint64_t{1} << 62;

Integer magnitude(Integer value) { return value < 0 ? -value : value; }

bool multiply(Integer a, Integer b, Integer& product) {
  if (b != 0 && magnitude(a) > kMost / magnitude(b)) return false;
  product = a * b;
  return true;
}
bool add(Integer a, Integer b, Integer& sum) {
  if (b > 0 ? a > kMost - b : a < -kMost - b) return false;
  sum = a + b;
  return true;
}

struct Rational {
  Integer top = 0, bottom = 1;  // in lowest terms, bottom above 0
};

Rational lowest(Integer top, Integer bottom) {
  Integer a = magnitude(top), b = magnitude(bottom);
  while (b != 0) {
    const Integer rest = a % b;
    a = b;
    b = rest;
  }
  if (bottom < 0) a = -a;
  return {top / a, bottom / a};
}

bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Any failure is told in problem_, and ends the reading.
class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  Evaluated read() {
    if (text_.size() > kTextMax) return failed("the expression is longer than 200 characters");
    for (const char c : text_)
      if (!is_blank(c) && !is_digit(c) && std::string_view("()+-*/").find(c) == std::string_view::npos)
        return failed("the expression has other characters than digits, ()+-*/ and blanks");
    const Rational value = sum(0);
    if (evaluated_.problem.empty() && peek() != '\0') fail("the expression goes on after its end");
    if (!evaluated_.problem.empty()) return evaluated_;
    evaluated_.is_whole = value.bottom == 1 && value.top >= 0 && value.top <= Integer{kNumberMax};
    if (evaluated_.is_whole) evaluated_.value = static_cast<std::uint64_t>(value.top);
    return evaluated_;
  }

 private:
  Rational fail(const char* problem) {
    if (evaluated_.problem.empty()) evaluated_.problem = problem;
    at_ = text_.size();
    return {};
  }
  Evaluated failed(const char* problem) {
    fail(problem);
    return evaluated_;
  }

  // The next character that isn't blank; 0 at the end.
  char peek() {
    while (at_ < text_.size() && is_blank(text_[at_])) ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }

  Rational sum(int depth) {
    Rational value = product(depth);
    for (char sign = peek(); sign == '+' || sign == '-'; sign = peek()) {
      ++at_;
      const Rational other = product(depth);
      Integer left = 0, right = 0, top = 0, bottom = 0;
      const bool fits = multiply(value.top, other.bottom, left) && multiply(other.top, value.bottom, right) &&
                        add(left, sign == '+' ? right : -right, top) && multiply(value.bottom, other.bottom, bottom);
      if (!fits) return fail("the value is too large");
      value = lowest(top, bottom);
    }
    return value;
  }

  Rational product(int depth) {
    Rational value = atom(depth);
    for (char sign = peek(); sign == '*' || sign == '/'; sign = peek()) {
      ++at_;
      Rational other = atom(depth);
      if (sign == '/' && other.top == 0) return fail("a division by zero");
      if (sign == '/') other = {other.bottom, other.top};
      Integer top = 0, bottom = 0;
      if (!multiply(value.top, other.top, top) || !multiply(value.bottom, other.bottom, bottom))
        return fail("the value is too large");
      value = lowest(top, bottom);
    }
    return value;
  }

  Rational atom(int depth) {
    if (peek() == '(') {
      if (depth > kDepthMax) return fail("the expression has more than 50 brackets within each other");
      ++at_;
      const Rational value = sum(depth + 1);
      if (peek() != ')') return fail("a bracket isn't closed");
      ++at_;
      return value;
    }
    if (!is_digit(peek())) return fail("a number is missing");
    std::uint64_t number = 0;
    for (; at_ < text_.size() && is_digit(text_[at_]); ++at_) {
      number = number * 10 + static_cast<std::uint64_t>(text_[at_] - '0');
      if (number > kNumberMax) return fail("a number is too large");
    }
    evaluated_.numbers.push_back(number);
    return {Integer{number}, 1};
  }

  std::string_view text_;
  std::size_t at_ = 0;
  Evaluated evaluated_;
};

}  // namespace

Evaluated evaluate_expression(std::string_view text) { return Reader(text).read(); }

}  // namespace troupe
