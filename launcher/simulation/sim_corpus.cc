#include "launcher/simulation/sim_corpus.h"

#include <algorithm>

#include "kernels/base/random.h"

namespace troupe {

namespace {

constexpr std::uint64_t kMaskedOneIn = 5;    // labels without a target
constexpr std::uint64_t kCutOneIn = 4;       // rows that begin a document
constexpr std::int32_t kHeldOutRowsMax = 3;  // microbatches held out

class SimCorpus final : public Corpus {
 public:
  explicit SimCorpus(const Config& config) : config_(config), key_(random_key(config.train.seed, "simulated corpus")) {}

  Batch train(std::int64_t step, std::int32_t microbatch) const override {
    return draw(static_cast<std::uint64_t>(step * config_.train.microbatches + microbatch),
                config_.microbatch_sequences());
  }
  // The last one holds fewer sequences.
  std::int32_t held_out_microbatches(std::int64_t tokens_max) const override {
    const auto all = static_cast<std::int32_t>(random_below(kHeldOutRowsMax + 1, key_, 1));
    return tokens_max > 0 ? std::min(all, 1) : all;
  }
  Batch held_out(std::int32_t microbatch) const override {
    const bool last = microbatch + 1 == held_out_microbatches(0);
    return draw(~static_cast<std::uint64_t>(microbatch), last ? 1 : config_.microbatch_sequences());
  }
  std::vector<Provenance> provenance() const override { return {}; }
  std::size_t bytes() const override { return 0; }

 private:
  Batch draw(std::uint64_t index, int sequences) const {
    const auto rows = static_cast<std::size_t>(sequences) * static_cast<std::size_t>(config_.train.sequence_length);
    const std::uint64_t key = random_word(key_, index, 1);
    std::vector<std::int32_t> ids(rows), labels(rows);
    std::vector<std::vector<std::int32_t>> starts(static_cast<std::size_t>(sequences));
    for (std::size_t row = 0; row < rows; ++row) {
      const auto length = static_cast<std::size_t>(config_.train.sequence_length);
      ids[row] =
          static_cast<std::int32_t>(random_below(static_cast<std::uint64_t>(config_.model.vocab_size), key, row, 0));
      labels[row] = random_below(kMaskedOneIn, key, row, 1) == 0 ? kNoTarget : ids[row];
      const std::size_t place = row % length;
      if (place == 0 || random_below(kCutOneIn, key, row, 2) == 0)
        starts[row / length].push_back(static_cast<std::int32_t>(place));
    }
    return make_batch(sequences, config_.train.sequence_length, std::move(ids), labels, starts,
                      config_.data.mask_documents);
  }

  const Config config_;
  const std::uint64_t key_;
};

}  // namespace

std::shared_ptr<const Corpus> make_sim_corpus(const Config& config) { return std::make_shared<SimCorpus>(config); }

}  // namespace troupe
