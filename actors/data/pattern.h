// A tokenizer's pattern is written for Oniguruma, the regular expressions of Ruby. Its text is put into words that mean
// the same to PCRE2, and what would mean something else there is refused.
#pragma once

#include <string>
#include <string_view>

namespace troupe {

// \s is Unicode's White_Space and \w its letters, marks, digits and connectors in both. Throws Error: which part of the
// pattern is not supported.
std::string pattern_for_pcre2(std::string_view pattern);

}  // namespace troupe
