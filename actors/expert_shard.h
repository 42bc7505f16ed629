// ExpertShard: owns some experts of a stage's layers and serves all replicas of that stage. It computes whatever has
// arrived and never waits for the slowest sender; only its weight gradients keep a strict order: one sum over
// (microbatch, chunk), one accumulator an expert.
//
// Memory is a pool of chunk slots, bounded by the credits it grants. A forward chunk's rows stay for the backward while
// the stash has room; otherwise the backward request brings them again, and the same bits are recomputed.
#pragma once

#include <map>
#include <optional>
#include <tuple>
#include <vector>

#include "actors/captured.h"
#include "actors/owner.h"
#include "actors/read_back.h"
#include "actors/restoring.h"
#include "actors/rules/placement.h"
#include "actors/segment_group.h"
#include "actors/wait.h"
#include "kernels/model/expert.h"

namespace troupe {

// Chunk slots of a shard: in flight by credits, and the stash.
struct ShardPool {
  std::int64_t rows = 0;  // of one chunk
  int in_flight = 0, stash = 0;
  std::size_t chunk_bytes = 0;
  // Rows that came stay where they are, in their payload, in place of a copy; a chunk's are so many bytes.
  bool keeps_rows = false;
  std::size_t rows_bytes = 0;
};
ShardPool shard_pool(const Config& config, const StageShape& shape);

class ExpertShard {
 public:
  ExpertShard(const Context& context, const Config& config, int stage, int shard, Capture* capture);

  void on(const Inquiry& inquiry, const Address& from) { restoring_.on(inquiry, from); }
  void on(const Restore& restore, const Address& from);
  void on(const Fetch& fetch, const Address& from) { restoring_.on(fetch, from); }
  void on(const SnapshotPart& part, const Address&) { restoring_.on(part); }
  void on(const GradientHeld& held, const Address& from);
  void on(const Credit& credit, const Address& from);
  void on(const ExpertBatch& batch, const Address& from);
  void on(const Decision& decision, const Address& from);
  void on(const SegmentDone& done, const Address& from);
  void on(const Stop&, const Address&) {}
  void waits(Waits& out) const;
  std::uint32_t attempt() const { return attempt_; }
  std::int64_t version() const { return owner_.version(); }

 private:
  enum class Phase : std::uint8_t { forward, backward, weights, group, snapshot, read_back };
  // One chunk under way or stashed.
  struct Chunk {
    ExpertBatch batch;
    Address from;
    int slot = -1;  // -1: no rows
    bool stashed = false;
    Payload rows, slopes;     // that are kept
    Payload hidden, dots;     // the answer
    std::int64_t number = 0;  // for completions
    int weights_left = 0;     // segments of its weight gradients
  };
  struct Stashed {
    int slot;
    Payload rows;
  };
  using ChunkKey = std::tuple<std::int32_t, std::int32_t, std::int32_t>;  // layer, microbatch, chunk
  struct LayerTurn {
    std::int32_t microbatch = 0, chunk = 0;  // whose turn it is in the strict sum
    int under_way = 0;                       // chunks that had their turn and are not done
    RecycledMap<std::pair<std::int32_t, std::int32_t>, std::int64_t> ready;  // (microbatch, chunk) -> chunk number
  };

  // expert_shard_waits.cc
  void turn_waits(Waits& out) const;
  void step_end_waits(Waits& out) const;

  void begin(const ExpertBatch& batch, const Address& from);
  void begin_forward(Chunk& chunk);
  void begin_backward(Chunk& chunk);
  void forward_done(Chunk& chunk);
  void backward_done(Chunk& chunk);
  void run_weights(int layer);
  void submit_weights(Chunk& chunk);
  void weights_done(Chunk& chunk);
  void enter(const Restore& restore, const std::string& problem);
  void begin_snapshot();
  void step_done();
  void measure();
  void measured();
  void vote();
  void apply_decision();
  void encode();
  void applied();
  void send_snapshot();
  void bring_rows(Ops& ops, Chunk& chunk, const Payload& rows);
  ChunkSlot memory_of(const Chunk& chunk) const;
  int take_slot();
  void free_slot(int slot);
  void grant(const Address& to, Direction direction, int layer);
  bool goes_early(const Chunk& chunk) const;
  void submit(SegmentClass segment_class, const Chunk& chunk, Phase phase, Ops ops, const SegmentWay& way = {});
  void run_all(std::vector<Ops> work, void (ExpertShard::*next)());
  const std::vector<ExpertTensors>& weights_of(const WorkKey& key) const {
    return (key.kind == WorkKind::reference ? reference_ : weights_).at(key.layer);
  }

  Context context_;
  const Config& config_;
  StageShape shape_;
  Capture* capture_;
  std::vector<int> layers_;
  Owner owner_;
  Restoring restoring_;
  ReadBack read_back_;
  std::optional<Address> shadow_;
  ShardPool pool_;
  Memory memory_;
  std::vector<ChunkSlot> slots_;
  std::vector<int> free_;
  int stash_used_ = 0;
  std::map<int, std::vector<ExpertTensors>> weights_, accumulators_, reference_;

  std::uint32_t attempt_ = kNoAttempt;
  std::vector<Credit> early_credits_;
  std::int64_t next_number_ = 0;
  RecycledMap<std::int64_t, Chunk> chunks_;  // under way, by number
  RecycledMap<ChunkKey, Stashed> stash_;     // kept for the backward
  RecycledMap<int, LayerTurn> turns_;
  std::vector<std::pair<ExpertBatch, Address>> early_;  // of the next version
  int layers_done_ = 0;
  SegmentGroup group_{restoring_};
  bool measured_ = false, held_ = false;  // what the vote waits for
  std::optional<Decision> decision_;
  int snapshot_credits_ = 0, snapshots_left_ = 0;
  Payload gradient_;  // for the shadow
  Captured captured_;
};

}  // namespace troupe
