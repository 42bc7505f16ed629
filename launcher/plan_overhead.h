// Overhead: what a node takes beside the tensors, rows and sums that the plan counts by size: pages that payloads don't
// fill, the places of messages and segments, and the tables of actors. Of most runs it is a percent; of one that
// has many actors or many small messages in a process it may be half.
// The law: it is counted by what makes it (actors, tensors, chunks, messages), so that no layout outgrows its plan.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "actors/config.h"
#include "messages/address.h"

namespace troupe {

struct Overhead {
  std::size_t pages = 0;   // of payloads that only ops read; a GPU's where it is there
  std::size_t blocks = 0;  // of the heap, and pages of other payloads
  std::size_t total() const { return pages + blocks; }
  Overhead& operator+=(const Overhead& more) {
    pages += more.pages;
    blocks += more.blocks;
    return *this;
  }
  Overhead operator*(std::size_t count) const { return {pages * count, blocks * count}; }
};

// Of the exchange of sums that one stage's twins have, on a node with `here` of them. elements: that each accumulates.
Overhead sums_overhead(const Config& config, std::int64_t elements, int here);

// Of every node. places: where all actors are (place_actors).
std::vector<Overhead> overheads(const Config& config, const std::map<Address, std::uint32_t>& places);

}  // namespace troupe
