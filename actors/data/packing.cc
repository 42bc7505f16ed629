// Packing. The law: targets and multi-token targets are looked up within one sequence, and within one document when
// documents are isolated; so no row learns from, or attends to, what it must not see.
#include "actors/data/packing.h"

#include <algorithm>

#include "kernels/base/check.h"
#include "kernels/base/error.h"

namespace troupe {
namespace {

std::int64_t count_targets(const std::vector<std::int32_t>& targets) {
  return std::count_if(targets.begin(), targets.end(), [](std::int32_t target) { return target != kNoTarget; });
}

// Rows begin..end-1 of the batch belong together: positions, targets and a span of their own.
void add_document(Batch& batch, const std::vector<std::int32_t>& labels, std::int32_t begin, std::int32_t end) {
  for (std::int32_t row = begin; row < end; ++row) {
    const auto at = static_cast<std::size_t>(row);
    batch.positions[at] = row - begin;
    if (row + 1 < end) batch.targets[at] = labels[at + 1];
    if (row + 2 < end) batch.mtp_targets[at] = labels[at + 2];
  }
  batch.spans.insert(batch.spans.end(), {begin, end - begin, begin, end - begin});
}

}  // namespace

std::int64_t Batch::target_count() const { return count_targets(targets); }
std::int64_t Batch::mtp_target_count() const { return count_targets(mtp_targets); }

Batch make_batch(std::int32_t sequences, std::int32_t length, std::vector<std::int32_t> ids,
                 const std::vector<std::int32_t>& labels, const std::vector<std::vector<std::int32_t>>& document_starts,
                 bool isolate) {
  const std::size_t rows = static_cast<std::size_t>(sequences) * static_cast<std::size_t>(length);
  CHECK(ids.size() == rows && labels.size() == rows, "{} ids and {} labels for {} rows", ids.size(), labels.size(),
        rows);
  CHECK(!isolate || document_starts.size() == static_cast<std::size_t>(sequences),
        "document starts of {} of {} sequences", document_starts.size(), sequences);
  Batch batch{.sequences = sequences,
              .length = length,
              .ids = std::move(ids),
              .targets = {},
              .mtp_targets = {},
              .positions = std::vector<std::int32_t>(rows),
              .spans = {}};
  batch.targets.assign(rows, kNoTarget);
  batch.mtp_targets.assign(rows, kNoTarget);
  for (std::int32_t sequence = 0; sequence < sequences; ++sequence) {
    const std::int32_t first = sequence * length;
    std::vector<std::int32_t> bounds{0};
    if (isolate) bounds = document_starts[static_cast<std::size_t>(sequence)];
    CHECK(!bounds.empty() && bounds.front() == 0, "the first document of sequence {} must start at 0", sequence);
    bounds.push_back(length);
    for (std::size_t i = 0; i + 1 < bounds.size(); ++i) {
      CHECK(bounds[i] < bounds[i + 1], "document {} of sequence {} is empty", i, sequence);
      add_document(batch, labels, first + bounds[i], first + bounds[i + 1]);
    }
  }
  return batch;
}

void Sequence::start_document() { document_starts.push_back(static_cast<std::int32_t>(ids.size())); }

void Sequence::append(std::int32_t token, bool is_target) {
  ids.push_back(token);
  labels.push_back(is_target ? token : kNoTarget);
}

void Sequence::append(std::span<const std::int32_t> tokens, bool is_target) {
  for (const std::int32_t token : tokens) append(token, is_target);
}

void Sequence::append(std::string_view bytes, bool is_target) {
  ids.reserve(ids.size() + bytes.size());
  labels.reserve(labels.size() + bytes.size());
  for (const char byte : bytes) append(std::int32_t{static_cast<unsigned char>(byte)}, is_target);
}

void Sequence::pad(std::int32_t length, std::int32_t token) {
  const auto wanted = static_cast<std::size_t>(length);
  CHECK(ids.size() <= wanted, "{} tokens in a sequence of {}", ids.size(), length);
  if (ids.size() == wanted) return;
  start_document();
  while (ids.size() < wanted) append(token, false);
}

std::vector<std::int64_t> pack_in_order(const std::vector<std::int32_t>& sizes, std::int32_t length) {
  std::vector<std::int64_t> starts;
  std::int32_t used = length;
  for (std::size_t item = 0; item < sizes.size(); ++item) {
    CHECK(sizes[item] >= 1 && sizes[item] <= length, "an item of {} tokens for sequences of {}", sizes[item], length);
    if (used + sizes[item] > length) {
      starts.push_back(static_cast<std::int64_t>(item));
      used = 0;
    }
    used += sizes[item];
  }
  starts.push_back(static_cast<std::int64_t>(sizes.size()));
  return starts;
}

std::uint64_t place_in_epoch(const Cut& cut, std::int64_t ordinal, std::int64_t count) {
  CHECK(count > 0, "no training part was opened");
  const auto at = static_cast<std::uint64_t>(ordinal), all = static_cast<std::uint64_t>(count);
  return random_permute(at % all, all, random_word(cut.key("epoch"), at / all));
}

void check_parts(const std::string& path, const char* unit, std::size_t count, std::size_t training, const Cut& cut) {
  if (cut.held_out < 1 && training == 0)
    throw Error("{} has {} {}, none of them for training: lower data.held_out", path, count, unit);
  if (cut.held_out > 0 && training == count)
    throw Error("{} has {} {}, none of them held out: raise data.held_out", path, count, unit);
}

Batch batch_of(const std::vector<Sequence>& sequences, std::int32_t length, bool isolate) {
  std::vector<std::int32_t> ids, labels;
  std::vector<std::vector<std::int32_t>> document_starts;
  for (const Sequence& sequence : sequences) {
    ids.insert(ids.end(), sequence.ids.begin(), sequence.ids.end());
    labels.insert(labels.end(), sequence.labels.begin(), sequence.labels.end());
    document_starts.push_back(sequence.document_starts);
  }
  return make_batch(static_cast<std::int32_t>(sequences.size()), length, std::move(ids), labels, document_starts,
                    isolate);
}

}  // namespace troupe
