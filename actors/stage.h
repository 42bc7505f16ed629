// Stage: the dense part (attention, norms, router, shared experts; embedding or head) of a run of layers for one
// replica. It sends routed rows to the expert shards and residual streams to its neighbours; the schedule is whatever
// the messages, the credits and the ready heap make of it.
//
// A microbatch's way (all phases are segments; arrows are messages):
//   TokenBatch/Activations -> attention(l) -> [dispatch -> results, mlp(l)] -> combine, attention(l+1) ...
//     -> Activations
//   last stage: head, loss, MTP; then backward: gather(l) -> [dispatch -> results, mlp(l)] -> attention(l) ...
//     -> ActivationGradients
//   weight gradients of (unit, lane) strictly in increasing microbatch; then the slot is free and a credit goes
//     upstream.
// A step's end: fold lanes -> PartialSums to twins -> own part added, ReducedSums to twins -> shared tensors' uses -> squares
//   -> Vote; Decision -> apply.
#pragma once

#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "actors/captured.h"
#include "actors/ordered_sender.h"
#include "actors/owner.h"
#include "actors/read_back.h"
#include "actors/restoring.h"
#include "actors/rules/dispatch.h"
#include "actors/rules/trainable.h"
#include "actors/segment_group.h"
#include "actors/stage_memory.h"
#include "actors/twin_sums.h"
#include "actors/wait.h"

namespace troupe {

class Stage {
 public:
  Stage(const Context& context, const Config& config, int replica, int stage, Capture* capture);

  void on(const Inquiry& inquiry, const Address& from) { restoring_.on(inquiry, from); }
  void on(const Restore& restore, const Address& from);
  void on(const Fetch& fetch, const Address& from) { restoring_.on(fetch, from); }
  void on(const SnapshotPart& part, const Address&) { restoring_.on(part); }
  void on(const GradientHeld& held, const Address& from);
  void on(const Credit& credit, const Address& from);
  void on(const TokenBatch& batch, const Address& from);
  void on(const Activations& activations, const Address& from);
  void on(const ActivationGradients& gradients, const Address& from);
  void on(const ExpertResult& result, const Address& from);
  void on(const PartialSums& sums, const Address& from);
  void on(const ReducedSums& sums, const Address& from);
  void on(const SharedGradient& gradient, const Address& from);
  void on(const SharedTensor& tensor, const Address& from);
  void on(const Decision& decision, const Address& from);
  void on(const GenerateBatch& batch, const Address& from);
  void on(const GenerateActivations& activations, const Address& from);
  void on(const SegmentDone& done, const Address& from);
  void on(const Stop&, const Address&) {}
  void waits(Waits& out) const;
  void credits(std::vector<Credits>& out) const;
  std::uint32_t attempt() const { return attempt_; }
  std::int64_t version() const { return owner_.version(); }

 private:
  enum class Phase : std::uint8_t {
    attention,
    mlp,
    head,
    gather,
    mlp_backward,
    layer_backward,
    weights,
    group,
    copy_out,
    copy_in,
    snapshot,
    read_back
  };
  struct Token {
    Phase phase;
    std::uint8_t attempt;
    std::uint16_t slot;
    std::uint16_t unit;
  };
  static std::uint64_t pack(const Token& token);
  static Token unpack(std::uint64_t word);

  struct Piece {
    DispatchChunk chunk;
    Payload rows, dots;
    bool arrived = false;
  };
  // The microbatch in a slot.
  struct Work {
    bool busy = false, started = false, dispatched = false, mlp_done = false, backward = false;
    WorkKey key;
    std::int64_t sequence = 0, train_sequence = 0;  // order of arrival: of all works, of training's alone
    std::int64_t rows = 0, sequences = 0, length = 0;
    bool has_tokens = false, has_policy = false;
    BatchTensors batch, mtp_batch;
    int unit = 0;                                  // layer under way, counted within the stage; MTP layer = layers
    RecycledVector<Piece> pieces;                  // of the dispatch under way
    int awaited = 0;                               // results not yet here
    int segments = 0;                              // under way
    RecycledVector<RecycledVector<char>> stashed;  // per unit and chunk: the shard kept the forward rows
    Payload gathered, gates, inputs;               // rows on their way out
    Payload hidden_in, hidden_out;
    std::int64_t target_tokens = 0, mtp_target_tokens = 0;
    MicrobatchLoss loss;
    int units_left = 0;  // weight gradients not yet done, and the way back itself
    std::optional<GenerateBatch> generate;
    Payload logits;
    std::vector<ExpertCounts> evaluated;  // routing of this microbatch, when evaluating
    Captured captured;
    bool train() const { return key.kind == WorkKind::train; }
  };
  struct UnitLane {
    std::int32_t next = 0;
    RecycledMap<std::int32_t, int> ready;
  };

  // stage.cc: arrivals, slots and release.
  int take_slot(const WorkKey& key, std::int64_t rows, std::int64_t sequences, std::int64_t length);
  int find_work(const WorkKey& key) const;
  void receive_geometry(Work& work, StageSlot& memory, const Payload& positions, const Payload& spans,
                        std::int32_t spans_count);
  void receive_ids(Work& work, StageSlot& memory, const TokenBatch& batch);
  void receive_policy(Work& work, StageSlot& memory, const TokenBatch& batch);
  void prepare_mtp(Work& work, StageSlot& memory, const TokenBatch& batch);
  void try_start(int slot);
  void release(int slot);
  bool stale(std::uint32_t attempt) const { return attempt != attempt_; }
  void submit(SegmentClass segment_class, int slot, int unit, Phase phase, Ops ops, const SegmentWay& way = {});

  // stage_forward.cc
  void begin_forward(int slot);
  void forward_unit(int slot, int unit, Ops ops);
  void submit_routed(int slot, int unit, Ops ops);
  void attention_done(int slot);
  void forward_results(int slot);
  Tensor next_input(int slot, int unit);
  void leave_forward(int slot, Ops ops);
  void send_downstream(int slot);
  void drain_downstream();
  void head_forward_and_loss(int slot, Ops ops);
  void evaluate_head(int slot, Ops ops);
  void receive_generate(const GenerateBatch& batch, const Payload& hidden);
  void generate_head(int slot, Ops ops);
  void fork_ops(Ops& ops, const GenerateBatch& batch, const LayerCache& cache) const;
  PolicyLoss policy_loss(int slot, bool gradient) const;
  void sum_policy(Work& work, const StageSlot& memory) const;
  void head_done(int slot, int unit);
  void finish_evaluation(int slot);
  void finish_generation(int slot);
  LayerCache cache_of(int slot, int unit);
  void count_experts(Work& work, const LayerSlot& view, int layer);

  // stage_backward.cc
  void backward_unit(int slot, int unit, Ops ops);
  Tensor previous_gradient(int slot, int unit);
  void gather_done(int slot);
  void backward_results(int slot);
  void layer_backward_done(int slot, int unit);
  void go_down(int slot, int unit);
  bool recomputes(int unit) const;
  void finish_backward(int slot);
  void part_done(int slot);
  void weights_ready(int slot, int unit);
  void run_weights(int unit, int lane);
  Ops weight_ops(int slot, int unit, int lane);
  void weights_done(int slot, int unit);

  // stage_commit.cc
  void dispatch(int slot, Direction direction);
  OrderedSender<ExpertBatch>& sender(Direction direction, int unit, int shard);
  PayloadPool& shards_pool() const;
  bool ends(int unit) const;
  // Payloads for shards lie where segments alone write; with several nodes a transport may, as soon as one is free.
  bool rows_stay(const Payload& rows) const { return config_.layout.nodes == 1 && rows.on_device; }
  PayloadPool& twins_pool() const;
  void drain(Direction direction, int unit, int shard);
  ExpertBatch expert_batch(const Work& work, const Piece& piece, Direction direction, bool send_inputs) const;
  void fold();
  void share_partial_sums();
  void send_partial_sums();
  void add_own_part();
  void send_own_part();
  void take_parts();
  void sum_shared_uses();
  void send_shared_uses();
  void add_shared();
  void give_gradient();
  void measure();
  void measured();
  void vote();
  void apply_decision(const Decision& decision);
  void encode();
  void applied();
  void send_snapshot();
  void run_all(std::vector<Ops> work, void (Stage::*next)());
  void grant(const Address& to, Channel channel, int layer, int count);

  // stage_waits.cc
  void work_waits(int slot, Waits& out) const;
  void start_waits(const Work& work, Waits& out) const;
  void dispatch_waits(const Work& work, const WorkKey& key, Waits& out) const;
  void sender_waits(Waits& out) const;
  void arrival_waits(Waits& out) const;
  void step_end_waits(Waits& out) const;

  // Weights by what the work is for: the own, or the reference policy's.
  const LayerTensors& weights_of(const Work& work, int unit) const {
    return (work.key.kind == WorkKind::reference ? reference_ : weights_)[static_cast<std::size_t>(unit)];
  }
  const HeadTensors& head_of(const Work& work) const {
    return work.key.kind == WorkKind::reference ? reference_head_ : head_;
  }
  Tensor masters_of(const Work& work, const std::string& name) const {
    return work.key.kind == WorkKind::reference ? owner_.reference_masters(name, name) : owner_.masters(name, name);
  }

  // Views and names.
  LayerSlot layer_view(int slot, int unit) const;
  SlotScratch scratch_view(int slot, int unit) const;
  const BatchTensors& batch_of(int slot, int unit) const;
  void backward_to_previous(Ops& ops, int slot, int unit);
  bool above_begins(int unit) const;
  void bring_batch(Ops& ops, int slot);
  int layer_of(int unit) const {
    return unit == shape_.layers ? config_.model.num_hidden_layers : shape_.first_layer + unit;
  }
  bool is_mtp(int unit) const { return unit == shape_.layers; }
  bool routed(int unit) const { return config_.model.is_moe_layer(layer_of(unit)); }
  int lane_of(std::int32_t microbatch) const {
    return microbatch % config_.train.gradient_lanes / config_.layout.replicas;
  }
  int last_unit() const { return shape_.layers - 1; }
  int head_unit() const { return shape_.layers + 1; }
  int embedding_unit() const { return shape_.layers + 2; }
  // The unit has tensors here that learn; gradients come to it; they go on through it.
  bool trains(int unit) const { return trains_[static_cast<std::size_t>(unit)] != 0; }
  bool goes_back(int unit) const { return troupe::goes_back(config_, layer_of(unit)); }
  bool passes(int unit) const { return passes_gradient(config_, layer_of(unit)); }
  void bring_rope_tables();
  void find_trained();
  void bind_tensors();
  LayerTensors bind_reference(int unit) const;
  void enter(const Restore& restore, const std::string& problem);
  bool sends_copy() const;
  void copy_embedding();
  void send_embedding_copy();
  void begin_snapshot();
  void begin_read_back();
  Tensor copy_digest() const;
  std::uint64_t digest_found() const;
  std::string copy_problem() const;
  void reset();
  void begin_step();
  void capture_unit(Ops& ops, int slot, int unit);
  void capture_logits(Ops& ops, int slot);
  void capture_head(Ops& ops, int slot);
  void capture_mtp_head(Ops& ops, int slot);
  void capture_router_bias();

  Context context_;
  const Config& config_;
  int replica_;
  StageShape shape_;
  Capture* capture_;
  std::vector<SharedUse> uses_;
  Owner owner_;
  Restoring restoring_;
  ReadBack read_back_;
  std::optional<Address> shadow_;
  std::uint32_t attempt_ = kNoAttempt;
  std::vector<std::pair<Credit, Address>> early_credits_;

  Memory slot_memory_, cache_memory_, copy_memory_, copy16_memory_, rope_memory_;
  Memory slot_shared_;
  std::vector<StageSlot> slots_;
  std::vector<Work> works_;
  std::vector<LayerCache> caches_;
  Tensor cosine_, sine_;
  std::vector<LayerTensors> weights_;                    // per unit (layers, then MTP)
  std::vector<std::vector<LayerTensors>> accumulators_;  // [lane][unit]
  std::vector<char> trains_;                             // [unit], head and embedding too
  std::vector<LayerTensors> reference_;                  // the same of the reference policy, if there is one
  HeadTensors head_, mtp_head_, reference_head_;
  MtpTensors mtp_;
  std::int64_t copy_version_ = 0;  // of the embedding's read copy
  bool copying_ = false;           // that copy leaves, or arrives

  std::int64_t next_sequence_ = 0, next_train_sequence_ = 0;
  RecycledMap<std::pair<std::int64_t, std::int32_t>, TokenBatch>
      early_batches_;  // last stage: tokens before activations
  OrderedSender<Message> downstream_;
  std::map<std::pair<int, int>, OrderedSender<ExpertBatch>> forward_, backward_;  // (unit, shard)
  std::vector<std::vector<UnitLane>> unit_lanes_;                                 // [unit][lane]
  int released_ = 0;  // microbatches of the step that are done

  // The step's end.
  SegmentGroup group_{restoring_};
  TwinSums twin_sums_;
  std::vector<std::pair<int, PartialSums>> sums_out_;  // on their way to the twin that adds them
  std::vector<ReducedSums> part_out_;                  // the own part, for all twins
  Payload gradient_out_;                               // for the shadow
  std::vector<std::pair<int, Payload>> shared_out_;    // by use: sums of somebody else's tensor
  // The own sums are with the twins; the own part is added; so are all parts, with the shared tensors' uses.
  bool folded_ = false, added_ = false, reduced_ = false;
  bool measured_ = false, held_ = false;
  RecycledMap<std::pair<std::int64_t, int>, Payload> shared_in_;  // by step and use
  std::map<int, std::vector<std::int64_t>> counts_;               // by layer
  std::vector<MicrobatchLoss> losses_;
  std::optional<Decision> decision_;
  std::optional<SharedTensor> copied_early_;
  Payload copy_source_;  // of the embedding's read copy, as it leaves or arrives
  Memory copy_digest_;   // (1, 4) i32, shared: of what leaves, or of the copy read back; with rollouts
  std::uint64_t copy_wanted_ = 0;
  int snapshot_credits_ = 0, snapshots_left_ = 0;
  Captured step_captured_;
};

}  // namespace troupe
