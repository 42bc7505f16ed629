// Pictures are XML: whether they are well-formed, and what stands in them.
#pragma once

#include <cstddef>
#include <string>

namespace troupe::test {

bool has(const std::string& text, const std::string& part);
std::size_t count(const std::string& text, const std::string& part);
// "" or what is wrong: every element closed in order, attributes quoted, no bare '<' or '&'.
std::string why_malformed(const std::string& xml);

}  // namespace troupe::test
