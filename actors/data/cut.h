// How a source of data is cut into sequences.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <memory>

#include "actors/data/tokenizer.h"
#include "kernels/base/random.h"

namespace troupe {

struct Cut {
  std::int32_t length = 0;  // tokens of a sequence
  std::uint64_t seed = 0;
  std::size_t number = 0;  // the source's number: part of its random draws
  double held_out = 0;     // last part; 1: nothing is for training
  std::int32_t eos = 0;    // ends a document, fills a sequence
  std::shared_ptr<const Tokenizer> tokenizer = nullptr;

  std::int64_t training_part(std::size_t count) const {
    return static_cast<std::int64_t>(static_cast<double>(count) * (1 - held_out));
  }
  std::uint64_t key(const char* purpose) const { return random_key(seed, fmt::format("data/{}/{}", purpose, number)); }
};

}  // namespace troupe
