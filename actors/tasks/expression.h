// Expressions over whole numbers: + - * / and brackets, exact rational values. The text comes from outside: it is read
// by recursive descent, never run, and its length, its depth and its values are limited.
//   sum = product (('+' | '-') product)*    product = atom (('*' | '/') atom)*    atom = digits | '(' sum ')'
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace troupe {

struct Evaluated {
  std::string problem;                 // why it has no value; empty: it has
  std::vector<std::uint64_t> numbers;  // that it is written with, in its order
  bool is_whole = false;
  std::uint64_t value = 0;  // REQUIRES: is_whole, and the value isn't negative
};

// Values beyond 127 bits are a problem, as is a division by zero.
Evaluated evaluate_expression(std::string_view text);

}  // namespace troupe
