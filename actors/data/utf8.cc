#include "actors/data/utf8.h"

namespace troupe {

CodePoint code_point_at(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[at + i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return {first, 1};
  const std::size_t bytes = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || at + bytes > text.size()) return {};
  char32_t value = first & (0x7fU >> bytes);
  for (std::size_t i = 1; i < bytes; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return {};
    value = value << 6 | (byte(i) & 0x3fU);
  }
  const bool is_overlong = value < (bytes == 2 ? 0x80U : bytes == 3 ? 0x800U : 0x10000U);
  if (is_overlong || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff)) return {};
  return {value, bytes};
}

std::size_t run_of_utf8(std::string_view text, std::size_t at, bool is_valid) {
  std::size_t end = at;
  while (end < text.size()) {
    const std::size_t bytes = code_point_at(text, end).bytes;
    if ((bytes > 0) != is_valid) break;
    end += bytes > 0 ? bytes : 1;
  }
  return end - at;
}

bool is_white_space(char32_t value) {
  return (value >= 0x9 && value <= 0xd) || value == 0x20 || value == 0x85 || value == 0xa0 || value == 0x1680 ||
         (value >= 0x2000 && value <= 0x200a) || value == 0x2028 || value == 0x2029 || value == 0x202f ||
         value == 0x205f || value == 0x3000;
}

}  // namespace troupe
