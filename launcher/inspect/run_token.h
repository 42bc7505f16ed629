// A run's token: who knows it may control the run, and read it from elsewhere. RUN/token, which its owner alone can read.
#pragma once

#include <string>

namespace troupe {

constexpr std::size_t kTokenBytes = 32;  // random; written as twice as many hexadecimal digits

// Made if it isn't there. Throws Error: it can't be, or others could read it.
std::string run_token(const std::string& run_folder);
// Takes as long whatever the words are.
bool same_secret(const std::string& a, const std::string& b);

}  // namespace troupe
