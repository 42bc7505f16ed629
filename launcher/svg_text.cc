#include "launcher/svg_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace troupe {

std::string svg_escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else if (static_cast<unsigned char>(c) >= ' ' || c == '\t')
      out += c;
  }
  return out;
}

namespace {

int digits_of(double step) { return std::clamp(static_cast<int>(std::ceil(-std::log10(step) - 1e-9)), 0, 9); }

}  // namespace

std::string mark_text(double value, double step, double size) {
  if (value == 0) return step < 1 && step >= 1e-5 ? fmt::format("{:.{}f}", 0.0, digits_of(step)) : "0";
  if (step < 1e-5) {
    const std::string text = fmt::format("{:.3g}", std::round(value / step) * step);
    const std::size_t exponent = text.find("e-0");
    return exponent == std::string::npos ? text : text.substr(0, exponent + 2) + text.substr(exponent + 3);
  }
  for (const auto& [unit, letter] : {std::pair{1e9, "G"}, std::pair{1e6, "M"}, std::pair{1e3, "k"}})
    if (size >= 10 * unit) return fmt::format("{:.{}f}{}", value / unit, digits_of(step / unit), letter);
  return fmt::format("{:.{}f}", value, digits_of(step));
}

std::string figure_text(double value, bool whole) {
  if (whole && value == std::floor(value)) return mark_text(value, 1, std::abs(value));
  const double step = value == 0 ? 1 : std::pow(10, std::floor(std::log10(std::abs(value))) - 2);
  return mark_text(value, std::abs(value) >= 1e4 ? step : std::min(1.0, step), std::abs(value));
}

std::string counted(double count) {
  std::string text = fmt::format("{:.0f}", count);
  for (auto at = static_cast<std::ptrdiff_t>(text.size()) - 3; at > 0; at -= 3)
    text.insert(static_cast<std::size_t>(at), ",");
  return text;
}

std::size_t letters(const std::string& text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

}  // namespace troupe
