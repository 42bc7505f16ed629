#include "launcher/typed_number.h"

#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdlib>

namespace troupe {

std::string why_not_finite(const std::string& text) {
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  if (!text.empty() && *end == '\0' && std::isfinite(number)) return "";
  return text + " is not a finite number";
}

std::string why_not_unsigned(const std::string& text) {
  std::uint64_t number = 0;
  const char* const text_end = text.data() + text.size();
  const auto [end, problem] = std::from_chars(text.data(), text_end, number);
  return problem == std::errc() && end == text_end ? "" : text + " is not a whole number from 0 to 2^64 - 1";
}

}  // namespace troupe
