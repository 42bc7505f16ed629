// Owner: the part that stages and expert shards have in common: tensors with masters, moments, copies and gradient
// accumulators; from a Restore to state n, from folded gradients and a Decision to state n+1, and a snapshot of it.
// Between commits only accumulators change; state n stays untouched until Decision(n). A frozen tensor has its weights
// alone: moments, accumulators and the reference policy's weights have a layout of their own, without it.
// All of it is device memory, so whatever is done to it is a list of ops for the actor to submit; squares, digests and the
// router bias's moves are shared memory.
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/config.h"
#include "actors/grains.h"
#include "actors/node.h"
#include "actors/rules/state_arrays.h"
#include "actors/rules/sum_range.h"
#include "kernels/model/coded_block.h"
#include "kernels/model/layer.h"
#include "kernels/model/parameter_block.h"

namespace troupe {

// The memory of an owner, by kind, in bytes: what the plan prints and the constructor takes.
struct OwnerMemory {
  std::size_t weights = 0, moments = 0, gradients = 0;
  std::size_t copies = 0, codes = 0;  // what products read: bfloat16 copies; in FP8 codes of theirs
  std::size_t reference = 0;          // weights and copies of the reference policy
  std::size_t shared = 0;             // cells, and parts of the state on their way in or out
};

constexpr std::int64_t kPartElements = 1024 * 1024;
constexpr std::size_t kPartsAsked = 2;  // of a state that comes: one travels, or is read, while one is written
// A run of at most so many elements of one array of the state: what a SnapshotPart holds.
struct StatePart {
  std::size_t parameter = 0;
  int kind = 0;
  std::int64_t begin = 0, count = 0;
};

// All of a state of these parameters, in order.
std::vector<StatePart> state_parts_of(const Config& config, const std::vector<Parameter>& parameters);

class Owner {
 public:
  enum class Use : std::uint8_t { computes, keeps };  // a shadow keeps its state and computes with none of it
  // lanes: accumulators kept here; extra_elements: more accumulated elements behind those of the tensors that learn (other
  // uses of shared tensors), reduced with them.
  Owner(const Context& context, const Config& config, std::vector<Parameter> parameters, int lanes, int replicas,
        std::int64_t extra_elements, Use use = Use::computes);
  static OwnerMemory memory(const Config& config, const ParameterBlock& block, int lanes, int replicas,
                            std::int64_t extra_elements, Use use = Use::computes);

  const ParameterBlock& block() const { return block_; }
  const ParameterBlock& trained() const { return trained_; }  // the tensors that learn
  // Views of consecutive tensors: what products read; masters; one lane's accumulators.
  Matrix matrices(const std::string& first, const std::string& last) const;
  Tensor masters(const std::string& first, const std::string& last) const;
  // The same of the reference policy; of frozen tensors they are the own. REQUIRES: config.has_reference().
  Tensor reference_matrices(const std::string& first, const std::string& last) const;
  Tensor reference_masters(const std::string& first, const std::string& last) const;
  // Empty where they are frozen.
  Tensor accumulators(int lane, const std::string& first, const std::string& last) const;
  Tensor extra(int lane, std::int64_t begin, std::int64_t rows, std::int64_t cols) const;
  // The whole accumulation of a lane as one row.
  Tensor lane(int lane) const;
  Tensor gradient(std::size_t index) const;  // folded (lane 0), of trained().parameters()[index]
  // All folded gradients into a payload of gradient_bytes(), for a shadow; and taken in by it.
  std::size_t gradient_bytes() const { return static_cast<std::size_t>(trained_.elements()) * 4; }
  std::vector<Ops> give_gradient(const Payload& sums) const;
  std::vector<Ops> take_gradient(const Payload& sums) const;
  std::int64_t version() const { return version_; }

  // ---- What is held, for recovery (owner_state.cc) ----
  // The answer to an Inquiry.
  Standing standing(std::uint32_t attempt) const;
  bool voted() const { return voted_; }
  bool applying() const { return applying_; }  // state version() is being overwritten
  const Decision& last_decision() const { return *last_decision_; }
  void set_voted() { voted_ = true; }
  void decided(const Decision& decision) { last_decision_ = decision; }
  // A state comes: forget() the own; draw() it, or take_part() every part of it; refresh(); encode(); hold() its version.
  // Each list is one segment, and what follows waits for all of them.
  void forget() { version_ = -1; }
  void forget_decision() { last_decision_.reset(); }
  std::vector<Ops> draw();  // state 0, from the seed
  std::vector<Ops> clear_moments() const;
  const std::vector<StatePart>& state_parts() const { return state_parts_; }
  SnapshotPart empty_part(const StatePart& part, std::int64_t version, std::uint32_t attempt) const;
  Ops give_part(const StatePart& part, const SnapshotPart& out) const;
  Ops take_part(const SnapshotPart& part);
  // What is made of the masters: the products' copies, and the reference policy's (is_policy: its weights too).
  std::vector<Ops> refresh(bool is_policy) const;
  // Codes of the copies, in FP8; after an update of what it changed (`all`: of what is frozen too).
  std::vector<Ops> encode(bool all) const;
  void hold(std::int64_t version);
  // The attempt begins when this is done: nothing is accumulated, voted or copied.
  std::vector<Ops> clear_sums() const;
  void entered(const Restore& restore);

  // The fixed tree over the local lanes, as independent pieces of work: each list is one segment.
  std::vector<Ops> fold_lanes() const;
  // A range of lane 0 into a payload, for a twin; and what a twin has added, taken in.
  void give_sums(const SumRange& range, const Payload& out, std::vector<Ops>& work) const;
  void take_sums(const SumRange& range, const Payload& sums, std::vector<Ops>& work) const;
  // Adds all replicas' sums of a range of `part`, the own, in the fixed tree, into lane 0 and from there into `out`.
  // terms: by replica, from the range's beginning on; null: lane 0 itself.
  void add_twins(const SumRange& part, const SumRange& range, const std::vector<const float*>& terms,
                 const Payload& out, std::vector<Ops>& work) const;
  // Squares and bits of all gradients, one of each a parameter; read with squares() when done.
  std::vector<Ops> measure() const;
  std::vector<TensorSquares> squares() const;
  // Applies the decision and clears the accumulators (segments); then encode(); then committed() moves to the next version.
  std::vector<Ops> apply(const Decision& decision);
  void committed(const Decision& decision);

  // ---- What is computed with, read back (with rollouts; owner_digest.cc) ----
  // An update notes the digest of what it writes; these segments read the same memory.
  std::vector<Ops> read_back() const;
  // When they are done: the digest over all tensors, equal for equal weights whatever the layout.
  std::uint64_t digest() const;
  // Empty, or which tensor isn't what the update wrote. After a load what is read is what counts from then on.
  std::string compare_digests();

  // Copies state for the checkpointer: the ops to run, then parts to send in order.
  std::vector<Ops> begin_snapshot(std::uint32_t attempt);
  std::deque<SnapshotPart>& snapshot_parts() { return parts_; }
  std::size_t snapshot_parts_count() const { return parts_.size(); }

 private:
  // A run of elements of one parameter with a digest of its own; or the codes from that parameter on.
  struct DigestPiece {
    std::size_t parameter = 0;
    std::int64_t begin = 0, count = 0;
    std::uint64_t first = 0;  // of the digest: every tensor has indices of its own
    bool codes = false;
  };
  void cut_digests();
  static std::size_t digest_bytes(const Config& config, const ParameterBlock& block, const CodedBlock& coded);
  void begin_writing();
  Tensor digest_cell(const Memory& memory, std::size_t piece) const;
  Tensor codes_cells(const Memory& memory, std::size_t entry) const;
  std::int64_t place_of(const DigestPiece& piece) const { return block_.offset(piece.parameter) + piece.begin; }
  void note_router_bias(Ops& ops, std::size_t parameter) const;

  void find_values();
  float* values(std::size_t parameter, int kind) const;  // of the state
  Tensor values(const StatePart& part) const;
  void copy_to_reference(Ops& ops, std::int64_t master, std::int64_t begin, std::int64_t count) const;
  Ops move_router_bias(const Decision& decision) const;

  Context context_;
  const Config& config_;
  ParameterBlock block_, trained_;
  CodedBlock coded_;
  std::vector<std::size_t> places_;                       // in block_, of each trained tensor
  std::vector<std::array<float*, kStateArrays>> values_;  // of each parameter by kind; null: it has no such array
  std::vector<StatePart> state_parts_;                    // of all of them, in order
  int lanes_;
  std::int64_t accumulated_ = 0;  // elements of a lane
  Memory masters_, m_, v_, copies_, codes_, gradients_;
  Memory reference_, reference_copies_;
  Memory squares_, bits_, bias_moves_;  // shared
  std::int64_t version_ = -1;
  bool moments_zero_ = true, sums_zero_ = true;  // as the device gave them
  bool voted_ = false, applying_ = false;
  std::optional<Decision> last_decision_;
  std::deque<SnapshotPart> parts_;
  std::vector<DigestPiece> digest_pieces_;  // by parameter, in order, then of codes; empty without rollouts
  std::vector<std::size_t> first_piece_;    // of each parameter
  std::size_t first_codes_piece_ = 0;
  Memory written_, read_;  // (pieces, 4) i32 each, shared
  bool written_known_ = false;
  std::int64_t snapshot_version_ = -1;
  std::vector<std::weak_ptr<std::byte>> snapshot_;  // its parts, while anybody holds them
};

}  // namespace troupe
