// The state that an owner holds, for recovery and for checkpoints: how it is drawn, taken in and given by parts.
#include <utility>

#include "actors/owner.h"
#include "kernels/base/mutant.h"
#include "kernels/base/random.h"

namespace troupe {

namespace {
constexpr std::int64_t kDrawnElements = 16 * 1024;  // random numbers take some fifty nanoseconds
constexpr std::int64_t kDrawnPieces = 16;           // of one tensor, at most: large ones are many
}  // namespace

Standing Owner::standing(std::uint32_t attempt) const {
  Standing s{attempt, version_, voted_ || applying_, last_decision_.has_value(), {}};
  if (last_decision_) s.decision = *last_decision_;
  return s;
}

std::vector<Ops> Owner::clear_sums() const {
  if (sums_zero_ || mutant(Mutant::sums_kept)) return {};
  return by_piece(accumulated_ * lanes_, [&](std::int64_t begin, std::int64_t count) {
    return Fill{flat(floats(gradients_), begin, count), 0};
  });
}

void Owner::entered(const Restore& restore) {
  moments_zero_ = sums_zero_ = false;
  parts_.clear();
  voted_ = applying_ = false;
  if (restore.decided) last_decision_ = restore.decision;
}

std::vector<Ops> Owner::draw() {
  std::vector<Ops> work = clear_moments();
  for (std::size_t i = 0; i < block_.parameters().size(); ++i) {
    const Parameter& p = block_.parameters()[i];
    const Tensor all = block_.at(masters_.data, Dtype::f32, i);
    const std::uint64_t key = random_key(config_.train.seed, "initialize/" + p.name);
    const std::int64_t grain = std::max(kDrawnElements, p.elements() / kDrawnPieces);
    const std::int64_t step = std::max<std::int64_t>(1, grain / p.cols);
    for (std::int64_t row = 0; row < p.rows; row += step)
      work.push_back({Initialize{all.row_range(row, std::min(step, p.rows - row)), key, p.mean, p.std,
                                 static_cast<std::uint64_t>(row * p.cols)}});
  }
  return work;
}

std::vector<Ops> Owner::clear_moments() const {
  if (moments_zero_) return {};
  std::vector<Ops> work;
  each_piece(trained_.elements(), [&](std::int64_t begin, std::int64_t count) {
    work.push_back({Fill{flat(floats(m_), begin, count), 0}, Fill{flat(floats(v_), begin, count), 0}});
  });
  return work;
}

std::vector<Ops> Owner::refresh(bool is_policy) const {
  Grains work;
  for (std::size_t i = 0; i < block_.parameters().size(); ++i) {
    const bool refers = values(i, 3) != nullptr;
    if (copies_.data == nullptr && !(refers && is_policy)) continue;
    const std::int64_t master = block_.offset(i);
    each_piece(block_.parameters()[i].elements(), [&](std::int64_t begin, std::int64_t count) {
      Ops& ops = work.next(count);
      if (copies_.data != nullptr)
        ops.push_back(Copy{flat(floats(masters_), master + begin, count), halves(copies_, master + begin, count)});
      if (!refers) return;
      const std::int64_t at = values(i, 3) - floats(reference_) + begin;
      if (is_policy) return copy_to_reference(ops, master + begin, at, count);
      ops.push_back(Copy{flat(floats(reference_), at, count), halves(reference_copies_, at, count)});
    });
  }
  return work.take();
}

std::vector<Ops> Owner::encode(bool all) const {
  Grains work;
  for (std::size_t i = 0; i < coded_.entries().size(); ++i) {
    const CodedBlock::Entry& entry = coded_.entries()[i];
    if (!all && values(entry.first, 1) == nullptr) continue;
    const std::vector<Parameter>& p = block_.parameters();
    const Tensor copies = block_.range(copies_.data, Dtype::bf16, p[entry.first].name, p[entry.last].name);
    Ops& ops = work.next(copies.elements());
    Quantize& op = std::get<Quantize>(ops.emplace_back(coded_.quantize(codes_.data, entry, copies)));
    if (!digest_pieces_.empty()) op.digests = codes_cells(written_, i);
  }
  return work.take();
}

void Owner::hold(std::int64_t version) {
  written_known_ = false;
  version_ = version;
}

SnapshotPart Owner::empty_part(const StatePart& part, std::int64_t version, std::uint32_t attempt) const {
  return {version,   attempt,    block_.parameters()[part.parameter].name,
          part.kind, part.begin, context_.pool().take(static_cast<std::size_t>(part.count) * 4)};
}

Ops Owner::give_part(const StatePart& part, const SnapshotPart& out) const {
  return {Copy{values(part), tensor_of(out.values, 1, part.count)}};
}

Ops Owner::take_part(const SnapshotPart& part) {
  moments_zero_ = false;
  const std::size_t i = block_.index(part.name);
  const auto count = static_cast<std::int64_t>(part.values.size / 4);
  if (mutant(Mutant::moments_not_fetched) && part.kind == 2) return {};
  if (mutant(Mutant::router_bias_not_fetched) && block_.parameters()[i].kind == ParameterKind::router_bias) return {};
  CHECK(part.kind >= 0 && part.kind < kStateArrays && values(i, part.kind) != nullptr && part.offset >= 0 &&
            part.offset + count <= block_.parameters()[i].elements(),
        "a part of {} that doesn't fit", part.name);
  return {Copy{tensor_of(part.values, 1, count), values({i, part.kind, part.offset, count})}};
}

// A part of this very version that a save before left on its way to the disk is sent again: there is no second copy.
std::vector<Ops> Owner::begin_snapshot(std::uint32_t attempt) {
  std::vector<Ops> work;
  if (std::exchange(snapshot_version_, version_) != version_) snapshot_.clear();
  snapshot_.resize(state_parts_.size());
  for (std::size_t number = 0; number < state_parts_.size(); ++number) {
    const StatePart& part = state_parts_[number];
    SnapshotPart out{version_,  attempt,    block_.parameters()[part.parameter].name,
                     part.kind, part.begin, {snapshot_[number].lock(), static_cast<std::size_t>(part.count) * 4}};
    if (!out.values.data) {
      out = empty_part(part, version_, attempt);
      snapshot_[number] = out.values.data;
      work.push_back(give_part(part, out));
    }
    parts_.push_back(std::move(out));
  }
  return work;
}

}  // namespace troupe
