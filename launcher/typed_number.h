// What is wrong with a number that somebody typed; "" if nothing is. For numbers that a parser would take: it knows nan as
// a number within any range, and -1 as the largest without a sign.
#pragma once

#include <string>

namespace troupe {

std::string why_not_finite(const std::string& text);
std::string why_not_unsigned(const std::string& text);

}  // namespace troupe
