// What an owner computes with, read back from memory. The law: a version's weights are what its update wrote, all of it
// and nothing else, or nobody learns from what they sample. AdamW notes the digest of what it writes (written_); the
// segments here read the memory that products read (read_). What is frozen keeps the digest that it had. So with codes
// (FP8): Quantize notes them.
#include <cstring>

#include "actors/owner.h"
#include "kernels/base/random.h"

namespace troupe {

namespace {

constexpr std::size_t kCellBytes = 4 * sizeof(std::int32_t);
constexpr std::size_t kCodesCells = 4;  // of an entry: Quantize::digests

// Sums of the masters and of the copies.
struct Sums {
  std::uint64_t masters = 0, copies = 0;
  friend bool operator==(const Sums&, const Sums&) = default;
};

Sums sums_of(const Memory& memory, std::size_t piece) {
  Sums sums;
  std::memcpy(&sums, static_cast<const char*>(memory.data) + piece * kCellBytes, kCellBytes);
  return sums;
}

}  // namespace

void Owner::cut_digests() {
  for (std::size_t i = 0; i < block_.parameters().size(); ++i) {
    const Parameter& p = block_.parameters()[i];
    const std::uint64_t key = random_key(0, "digest/" + p.name);
    first_piece_.push_back(digest_pieces_.size());
    for (std::int64_t begin = 0; begin < p.elements(); begin += kPieceElements)
      digest_pieces_.push_back(
          {i, begin, std::min(kPieceElements, p.elements() - begin), key + static_cast<std::uint64_t>(begin)});
  }
  first_codes_piece_ = digest_pieces_.size();
  for (const CodedBlock::Entry& entry : coded_.entries())
    digest_pieces_.insert(digest_pieces_.end(), kCodesCells, {.parameter = entry.first, .codes = true});
  written_ = context_.allocate(digest_pieces_.size() * kCellBytes, Place::shared);
  read_ = context_.allocate(digest_pieces_.size() * kCellBytes, Place::shared);
}

std::size_t Owner::digest_bytes(const Config& config, const ParameterBlock& block, const CodedBlock& coded) {
  std::size_t pieces = kCodesCells * coded.entries().size();
  for (const Parameter& p : block.parameters())
    pieces += static_cast<std::size_t>((p.elements() + kPieceElements - 1) / kPieceElements);
  return config.has_rollouts() ? 2 * pieces * kCellBytes : 0;
}

Tensor Owner::digest_cell(const Memory& memory, std::size_t piece) const {
  return {static_cast<char*>(memory.data) + piece * kCellBytes, 1, 4, 4, Dtype::i32};
}

// What an update doesn't get to write keeps no digest.
void Owner::begin_writing() {
  for (std::size_t i = 0; i < digest_pieces_.size(); ++i)
    if (values(digest_pieces_[i].parameter, 1) != nullptr)  // has moments: AdamW writes it
      std::memset(digest_cell(written_, i).data, 0, kCellBytes);
}

// Products never read the copy of a router's bias.
void Owner::note_router_bias(Ops& ops, std::size_t parameter) const {
  if (digest_pieces_.empty()) return;
  const std::size_t cell = first_piece_[parameter];
  const DigestPiece& piece = digest_pieces_[cell];
  ops.push_back(
      Digest{flat(floats(masters_), place_of(piece), piece.count), {}, digest_cell(written_, cell), piece.first});
}

Tensor Owner::codes_cells(const Memory& memory, std::size_t entry) const {
  Tensor cells = digest_cell(memory, first_codes_piece_ + kCodesCells * entry);
  cells.rows = kCodesCells;
  return cells;
}

std::vector<Ops> Owner::read_back() const {
  Grains work;
  for (std::size_t i = 0; i < coded_.entries().size() && !digest_pieces_.empty(); ++i) {
    const auto tensors = digested(coded_.quantize(codes_.data, coded_.entries()[i], {}));
    for (std::size_t cell = 0; cell < kCodesCells; ++cell)
      work.next(tensors[cell].elements())
          .push_back(Digest{tensors[cell], {}, codes_cells(read_, i).row_range(static_cast<std::int64_t>(cell), 1)});
  }
  for (std::size_t i = 0; i < first_codes_piece_; ++i) {
    const DigestPiece& piece = digest_pieces_[i];
    const std::int64_t at = place_of(piece);
    Digest op{flat(floats(masters_), at, piece.count), {}, digest_cell(read_, i), piece.first};
    if (copies_.data != nullptr) op.copy = halves(copies_, at, piece.count);
    work.next(piece.count).push_back(op);
  }
  return work.take();
}

std::uint64_t Owner::digest() const {
  std::uint64_t all = 0;
  for (std::size_t i = 0; i < first_codes_piece_; ++i) all += sums_of(read_, i).masters;
  return all;
}

std::string Owner::compare_digests() {
  for (std::size_t i = 0; i < digest_pieces_.size() && written_known_; ++i) {
    const DigestPiece& piece = digest_pieces_[i];
    const bool is_bias = block_.parameters()[piece.parameter].kind == ParameterKind::router_bias;
    const Sums wrote = sums_of(written_, i), found = sums_of(read_, i);
    if (wrote == found || (is_bias && wrote.masters == found.masters)) continue;
    const std::string which =
        piece.codes ? "its codes" : fmt::format("elements {} to {}", piece.begin, piece.begin + piece.count - 1);
    return fmt::format(
        "{} of {} ({}) isn't what the update to version {} wrote: it was skipped, came "
        "late, was half applied, or memory is damaged; nothing was learned from it; resume from the "
        "last checkpoint, on other hardware if it happens again",
        block_.parameters()[piece.parameter].name, to_string(context_.self()), which, version_);
  }
  std::memcpy(written_.data, read_.data, digest_pieces_.size() * kCellBytes);
  written_known_ = true;
  return "";
}

}  // namespace troupe
