#include "launcher/inspect/line.h"

#include <wchar.h>

#include <algorithm>
#include <string_view>

#include "actors/data/utf8.h"

namespace troupe {

namespace {

struct Shown {
  std::string_view text;
  int columns = 1;
  bool harmless = true;
  bool ascii = true;
};

// The next of what a terminal shows; a byte that is none of UTF-8 counts as one column.
Shown next_of(std::string_view text, std::size_t at) {
  const CodePoint point = code_point_at(text, at);
  if (point.bytes == 0) return {text.substr(at, 1), 1, false, false};
  const int columns = wcwidth(static_cast<wchar_t>(point.value));
  const bool control = point.value < 0x20 || (point.value >= 0x7f && point.value < 0xa0);
  return {text.substr(at, point.bytes), columns < 0 ? 1 : columns, !control, point.value < 0x80};
}

// Cut to at most so many columns; `columns` is what is left of them.
std::string cut(std::string_view text, int& columns) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const Shown next = next_of(text, at);
    if (next.columns > columns) break;
    columns -= next.columns;
    out += next.text;
    at += next.text.size();
  }
  return out;
}

std::string harmless(std::string_view text, bool utf8) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const Shown next = next_of(text, at);
    out += next.harmless && (next.ascii || utf8) ? next.text : std::string_view("?");
    at += next.text.size();
  }
  return out;
}

}  // namespace

int columns_of(const std::string& text) {
  int columns = 0;
  for (std::size_t at = 0; at < text.size();) {
    const Shown next = next_of(text, at);
    columns += next.columns;
    at += next.text.size();
  }
  return columns;
}

std::string fitted(const std::string& text, int columns, bool at_right) {
  int left = std::max(0, columns);
  const std::string out = cut(text, left);
  const std::string blanks(static_cast<std::size_t>(left), ' ');
  return at_right ? blanks + out : out + blanks;
}

Line fitted(const Line& line, int columns, bool utf8) {
  Line out;
  int left = std::max(0, columns);
  for (const Span& span : line) out.push_back({cut(harmless(span.text, utf8), left), span.tone, span.filled});
  const bool filled = !line.empty() && line.back().filled;
  if (left > 0) out.push_back({std::string(static_cast<std::size_t>(left), ' '), Tone::plain, filled});
  return out;
}

std::vector<std::string> wrapped(const std::string& text, int columns, int indent) {
  const std::size_t begin = std::min(text.find_first_not_of(' '), text.size());
  std::vector<std::string> lines{text.substr(0, begin)};
  const int most = std::max(columns, indent + 1);
  for (std::size_t at = begin; at < text.size();) {
    const std::size_t end = std::min(text.find(' ', at), text.size());
    std::string word = text.substr(at, end - at);
    at = end + 1;
    const bool first = lines.back().find_first_not_of(' ') == std::string::npos;
    if (!first && columns_of(lines.back()) + 1 + columns_of(word) <= most) {
      lines.back() += " " + word;
      continue;
    }
    if (!first) lines.emplace_back(static_cast<std::size_t>(indent), ' ');
    while (columns_of(lines.back()) + columns_of(word) > most) {  // longer than a whole line
      int left = most - columns_of(lines.back());
      const std::string part = cut(word, left);
      if (part.empty()) break;
      lines.back() += part;
      word.erase(0, part.size());
      lines.emplace_back(static_cast<std::size_t>(indent), ' ');
    }
    lines.back() += word;
  }
  return lines;
}

std::string plain_text(const Line& line) {
  std::string text;
  for (const Span& span : line) text += span.text;
  return text;
}

}  // namespace troupe
