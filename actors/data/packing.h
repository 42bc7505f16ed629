// Packing: how documents become sequences of one length, and sequences a batch.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "actors/data/corpus.h"

namespace troupe {

// One row of a batch before the shift. labels: what is to be learned there (kNoTarget: nothing), at the token's own
// place.
struct Sequence {
  std::vector<std::int32_t> ids, labels, document_starts;
  // Begins a document at the end.
  void start_document();
  // One token a byte; no targets when !is_target.
  void append(std::string_view bytes, bool is_target);
  void append(std::int32_t token, bool is_target);
  void append(std::span<const std::int32_t> tokens, bool is_target);
  // Fills the rest with `token`, as a document of its own without targets.
  void pad(std::int32_t length, std::int32_t token);
};

// Items of these sizes, packed whole and in order, a sequence ending where the next item doesn't fit: the first item of
// each sequence, then the number of items. REQUIRES: every size is 1..length.
std::vector<std::int64_t> pack_in_order(const std::vector<std::int32_t>& sizes, std::int32_t length);

// REQUIRES: every sequence has `length` tokens.
Batch batch_of(const std::vector<Sequence>& sequences, std::int32_t length, bool isolate);

}  // namespace troupe
