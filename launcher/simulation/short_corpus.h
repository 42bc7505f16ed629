// ShortCorpus: another corpus with no more than so many microbatches held out, so that evaluating all of it takes no longer
// than what is seen of it is worth.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "actors/data/corpus.h"

namespace troupe {

class ShortCorpus final : public Corpus {
 public:
  ShortCorpus(std::shared_ptr<const Corpus> all, std::int32_t most) : all_(std::move(all)), most_(most) {}
  Batch train(std::int64_t step, std::int32_t microbatch) const override { return all_->train(step, microbatch); }
  std::int32_t held_out_microbatches(std::int64_t tokens_max) const override {
    return std::min(most_, all_->held_out_microbatches(tokens_max));
  }
  Batch held_out(std::int32_t microbatch) const override { return all_->held_out(microbatch); }
  std::vector<Provenance> provenance() const override { return all_->provenance(); }
  std::size_t bytes() const override { return all_->bytes(); }

 private:
  std::shared_ptr<const Corpus> all_;
  std::int32_t most_;
};

}  // namespace troupe
