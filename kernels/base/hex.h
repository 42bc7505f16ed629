// Bytes as hexadecimal text, two digits each, the higher first, in lower case; and back.
#pragma once

#include <string>
#include <string_view>

#include "kernels/base/check.h"

namespace troupe {

inline std::string to_hex(std::string_view bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string hex;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    hex += kDigits[byte >> 4];
    hex += kDigits[byte & 0xf];
  }
  return hex;
}

// REQUIRES: what to_hex gives.
inline std::string from_hex(std::string_view hex) {
  const auto value = [&](char digit) {
    const bool is_letter = digit >= 'a' && digit <= 'f';
    CHECK(is_letter || (digit >= '0' && digit <= '9'), "{} is not hexadecimal", hex);
    return is_letter ? digit - 'a' + 10 : digit - '0';
  };
  CHECK(hex.size() % 2 == 0, "{} hexadecimal digits", hex.size());
  std::string bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2) bytes += static_cast<char>(value(hex[i]) << 4 | value(hex[i + 1]));
  return bytes;
}

}  // namespace troupe
