// What is alike in both is passed on: literals, | * + ? {m,n}, groups, look-ahead and look-behind, classes, (?i:...).
// What differs and is rewritten: \s has U+180E in PCRE2; \w has no marks there; \p{Han} means script extensions there;
// \v is the vertical tab here. What differs and is refused: \b, \h, \R and their like, options other than i, (?i) but
// at the beginning (in Ruby a(?i)b|c is a(?i:b|c)), a class within a class, &&, {m,n}+, references.
#include "actors/data/pattern.h"

#include <string>

#include "actors/data/utf8.h"
#include "kernels/base/error.h"

namespace troupe {
namespace {

constexpr const char* kSpace =
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}";
constexpr const char* kNotSpace =
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}"
    "\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}";
constexpr const char* kWord = "\\p{L}\\p{M}\\p{Nd}\\p{Pc}";

class Translation {
 public:
  explicit Translation(std::string_view pattern) : pattern_(pattern) {}

  std::string run() {
    while (at_ < pattern_.size()) {
      const char c = pattern_[at_];
      if (c == '\\') {
        escape();
      } else if (is_in_class_) {
        in_class(c);
      } else {
        outside(c);
      }
    }
    return out_;
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    throw Error("{} is not supported (place {} of the pattern {})", what, at_ + 1, pattern_);
  }
  bool goes_on_with(std::string_view text) const { return pattern_.substr(at_).starts_with(text); }
  void pass(std::size_t bytes) {
    out_ += pattern_.substr(at_, bytes);
    at_ += bytes;
  }
  void put(std::size_t bytes, const std::string& text) {
    out_ += text;
    at_ += bytes;
  }

  void in_class(char c) {
    if (c == '[') refuse("a class within a class");
    if (goes_on_with("&&")) refuse("&& in a class");
    if (c == ']') is_in_class_ = false;
    pass(1);
  }

  void outside(char c) {
    if (c == '(' && goes_on_with("(?")) return group();
    if (c == '[') {
      is_in_class_ = true;
      pass(goes_on_with("[^") ? 2 : 1);
      if (goes_on_with("]")) refuse("a class that begins with ]");
      return;
    }
    const bool was_counted = c == '}';
    pass(1);
    if (was_counted && goes_on_with("+")) refuse("+ after {m,n}");
  }

  void group() {
    for (const std::string_view option : {"(?i)", "(?-i)"})
      if (at_ > 0 && goes_on_with(option)) refuse(std::string(option) + " but at the beginning");
    for (const std::string_view known : {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?i:", "(?i)", "(?-i:", "(?-i)"})
      if (goes_on_with(known)) return pass(known.size());
    refuse(std::string(pattern_.substr(at_, 4)) + "...");
  }

  void escape() {
    if (at_ + 1 == pattern_.size()) refuse("a \\ at the end");
    const char c = pattern_[at_ + 1];
    const auto as_class = [&](const std::string& members, bool negated) {
      put(2, is_in_class_ ? members : (negated ? "[^" : "[") + members + "]");
    };
    switch (c) {
      case 's':
        return as_class(kSpace, false);
      case 'S':
        return as_class(kNotSpace, false);
      case 'w':
        return as_class(kWord, false);
      case 'd':
        return as_class("\\p{Nd}", false);
      case 'D':
        return as_class("\\P{Nd}", false);
      case 'W':
        if (is_in_class_) refuse("\\W in a class");
        return as_class(kWord, true);
      case 'v':
        return put(2, "\\x{b}");
      case 'p':
      case 'P':
        return property();
      case 'u':
      case 'x':
        return number();
      case 'r':
      case 'n':
      case 't':
      case 'f':
      case 'e':
      case 'a':
        return pass(2);
      default:
        break;
    }
    const bool is_letter_or_digit = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (is_letter_or_digit) refuse(std::string("\\") + c);
    pass(1);
    pass(code_point_at(pattern_, at_).bytes);
  }

  // \p{L}, \p{^L}, \p{Lu}: categories, alike. Longer names are scripts; PCRE2 refuses those that it doesn't know.
  void property() {
    const std::size_t end = pattern_.find('}', at_);
    if (!pattern_.substr(at_ + 2).starts_with('{') || end == std::string_view::npos) refuse("\\p without {}");
    const std::size_t begin = at_ + (pattern_[at_ + 3] == '^' ? 4 : 3);
    const std::string name(pattern_.substr(begin, end - begin));
    const bool is_category = name.size() <= 2 || name == "Any";
    put(end + 1 - at_, std::string(pattern_.substr(at_, begin - at_)) + (is_category ? "" : "sc:") + name + "}");
  }

  // \uHHHH, \xHH, \x{H...}.
  void number() {
    const bool has_braces = pattern_[at_ + 1] == 'x' && at_ + 2 < pattern_.size() && pattern_[at_ + 2] == '{';
    const std::size_t begin = at_ + (has_braces ? 3 : 2);
    const std::size_t digits = has_braces ? pattern_.find('}', begin) - begin : pattern_[at_ + 1] == 'u' ? 4 : 2;
    if (begin + digits > pattern_.size() || digits > 6) refuse("this number");
    const std::string_view text = pattern_.substr(begin, digits);
    if (text.empty() || text.find_first_not_of("0123456789abcdefABCDEF") != std::string_view::npos)
      refuse("this number");
    put(begin + digits + (has_braces ? 1 : 0) - at_, "\\x{" + std::string(text) + "}");
  }

  std::string_view pattern_;
  std::string out_;
  std::size_t at_ = 0;
  bool is_in_class_ = false;
};

}  // namespace

std::string pattern_for_pcre2(std::string_view pattern) { return Translation(pattern).run(); }

}  // namespace troupe
