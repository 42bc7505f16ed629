// UTF-8, as far as tokenizing needs it: what is valid, what is white space.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace troupe {

struct CodePoint {
  char32_t value = 0;
  std::size_t bytes = 0;  // 0: not valid UTF-8 here
};
// REQUIRES: at < text.size(). Overlong forms, surrogates and values above U+10FFFF are not valid.
CodePoint code_point_at(std::string_view text, std::size_t at);
// Bytes from `at` on that are valid (true) or that are not (false), as many as there are together.
std::size_t run_of_utf8(std::string_view text, std::size_t at, bool is_valid);
// Unicode's White_Space.
bool is_white_space(char32_t value);

}  // namespace troupe
