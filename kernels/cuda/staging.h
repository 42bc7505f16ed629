// Staging: which operands of ops in pinned memory stand in the GPU's memory while the ops run, so that their bytes travel
// by a copy engine and not from within kernels. A pure rule, of ops that are put on the stream together (a flight).
// The laws: ops compute what they would in place, to the bit; of pinned memory only what an op reads is read, and only
// what an op writes is written. In doubt an operand stays where it is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/op.h"

namespace troupe::cuda {

// Bytes: addresses of pinned memory. Empty: begin == end.
struct Stretch {
  std::uintptr_t begin = 0, end = 0;
  std::size_t size() const { return end - begin; }
  friend bool operator==(const Stretch&, const Stretch&) = default;
};

// Pinned memory that the flight's ops touch in the GPU's memory instead, all of it or nothing.
struct Staged {
  Stretch place;
  std::vector<Stretch> in;   // what is copied there before the flight: read before any op of it writes it
  std::vector<Stretch> out;  // what is copied back behind it: what ops write
  friend bool operator==(const Staged&, const Staged&) = default;
};

// Of an address: the allocation of pinned memory that it lies in; empty if it lies in none.
using PinnedAt = std::function<Stretch(std::uintptr_t address)>;

constexpr std::size_t kStagedTogether = std::size_t{8} << 20;  // neighbours become one up to so many bytes
constexpr std::size_t kStagedMost = 128;                       // of a flight; more of them stay where they are

// In increasing order, apart from each other. `ops` in the order in which they run. least: fewer bytes are never worth it.
// What overlaps in pinned memory is one: it is staged if each operand of it has no gaps, holds floating-point numbers and
// is one that its op reads or writes whole (kernels/op_touches.h).
std::vector<Staged> choose_staged(const std::vector<const Op*>& ops, const PinnedAt& pinned, std::size_t least);

// Puts the tensors of `op` that lie in `from` where it stands now: at `to`.
void move_operands(Op& op, const Stretch& from, void* to);

}  // namespace troupe::cuda
