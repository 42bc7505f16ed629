// Packing: how documents become sequences of one length, and sequences a batch.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "actors/data/corpus.h"
#include "actors/data/cut.h"
#include "kernels/base/random.h"

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

// Items (pieces of documents, examples) in the sequences that hold them.
template <typename Item>
struct Packed {
  std::vector<Item> items;
  std::vector<std::int64_t> starts;  // first item of each sequence, then the number of items
  std::int64_t tokens = 0;
  std::int64_t sequences() const { return static_cast<std::int64_t>(starts.size()) - 1; }
  std::size_t bytes() const { return items.capacity() * sizeof(Item) + starts.capacity() * sizeof(std::int64_t); }
};

// shuffle: the key of an order; nothing: as they are.
template <typename Item, typename SizeOf>
Packed<Item> pack_items(const std::vector<Item>& items, std::optional<std::uint64_t> shuffle, std::int32_t length,
                        const SizeOf& size_of) {
  Packed<Item> packed;
  packed.items.resize(items.size());
  for (std::size_t i = 0; i < items.size(); ++i)
    packed.items[shuffle ? random_permute(i, items.size(), *shuffle) : i] = items[i];
  std::vector<std::int32_t> sizes;
  for (const Item& item : packed.items) {
    sizes.push_back(size_of(item));
    packed.tokens += sizes.back();
  }
  packed.starts = pack_in_order(sizes, length);
  return packed;
}

// Which of `count` packed sequences is the source's number `ordinal`: every epoch goes through them in an order of its
// own.
std::uint64_t place_in_epoch(const Cut& cut, std::int64_t ordinal, std::int64_t count);
// Of `count` documents or examples so many are for training. Throws Error: a part that is wanted has none.
void check_parts(const std::string& path, const char* unit, std::size_t count, std::size_t training, const Cut& cut);

// REQUIRES: every sequence has `length` tokens.
Batch batch_of(const std::vector<Sequence>& sequences, std::int32_t length, bool isolate);

}  // namespace troupe
