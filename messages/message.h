// What actors say. A closed variant of plain structs; facts or requests. schema.capnp tells the same story in prose,
// and codec.h turns one into bytes and back. Payloads ride beside the struct and are frozen once sent.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "kernels/base/recycled.h"
#include "messages/address.h"
#include "messages/payload.h"

namespace troupe {

// score, reference: log-probabilities of tokens that were sampled, by the weights themselves or the reference policy's.
enum class WorkKind : std::uint8_t { train, evaluate, generate, score, reference };
constexpr std::uint8_t kWorkKinds = 5;
enum class Direction : std::uint8_t { forward, backward };

// What a piece of work is. One struct, used everywhere; a key of another attempt is dropped.
struct WorkKey {
  WorkKind kind = WorkKind::train;
  Direction direction = Direction::forward;
  std::int64_t step = 0;        // optimizer step, or number of the evaluation or request
  std::uint32_t attempt = 0;    // raised by the supervisor only
  std::int32_t microbatch = 0;  // global, 0..M-1
  std::int32_t layer = 0;
  std::int32_t chunk = 0;
  friend bool operator==(const WorkKey&, const WorkKey&) = default;
  friend auto operator<=>(const WorkKey&, const WorkKey&) = default;
};
std::string to_string(const WorkKey& key);  // "train forward step 3 attempt 0 microbatch 2 layer 1 chunk 0"

// ---- Decisions ------------------------------------------------------------------------------------------------------
struct ExpertCounts {
  std::int32_t layer = 0;
  std::vector<std::int64_t> counts;
};
enum class Verdict : std::uint8_t { commit, skip, stop };
// A pure function of the votes. The step is committed; state `step` becomes state `step + 1`.
struct Decision {
  std::int64_t step = 0;
  std::uint32_t attempt = 0;
  Verdict verdict = Verdict::commit;
  std::int64_t updates = 0;  // committed updates, this one included: AdamW's bias correction
  double clip_scale = 1, learning_rate = 0, gradient_norm = 0;
  std::vector<ExpertCounts> counts;  // of the whole step, for the router bias
  bool checkpoint = false;           // snapshot the version this decision makes
  bool last = false;
  std::string state;  // the conductor's TrainingState after it, JSON: whoever saw the decision can tell a new conductor
};

// ---- Starting, restoring, ending ------------------------------------------------------------------------------------
// Supervisor to conductor: all nodes are there; bring everybody to one state, enter this attempt and go on. `version` and
// `path` are the state to load if nobody holds a later one; path empty: initialize from the seed (version 0).
struct Recover {
  std::uint32_t attempt = 0;
  std::int64_t version = 0;
  std::string path;
  bool weights_only = false;
  std::int64_t allowance_us = 0;  // wall time that the budget leaves from here on; 0: no limit
};
// Conductor to owners and shadows: what do you hold?
struct Inquiry {
  std::uint32_t attempt = 0;
};
struct Standing {
  std::uint32_t attempt = 0;
  std::int64_t version = -1;  // -1: no state
  bool voted = false;         // the gradient of step `version` is complete here
  bool decided = false;       // `decision` is the last one seen
  Decision decision;
};
// To every owner and shadow: come to `version`, clear accumulators, ledgers and credits, enter the attempt, then grant
// credits. Who holds `version` - 1 and has voted applies `decision`; others ask `source` for the state (Fetch), or, where
// that is the supervisor, load `path` (empty: initialize from the seed).
struct Restore {
  std::int64_t version = 0;
  std::uint32_t attempt = 0;
  std::string path;
  bool weights_only = false;
  Role source_role = Role::supervisor;
  std::uint32_t source_index = 0;
  bool decided = false;
  bool checkpoint = false;  // snapshot this version once more: its save was cut short
  Decision decision;
};
struct Restored {
  std::int64_t version = 0;
  std::uint32_t attempt = 0;
  std::string problem;
};  // problem empty: done
// The next piece of a state that somebody else holds; answered by a SnapshotPart.
struct Fetch {
  std::int64_t version = 0;
  std::uint32_t attempt = 0;
  std::int32_t part = 0;
};
struct Stop {
  std::string reason;
};

// ---- Credits --------------------------------------------------------------------------------------------------------
enum class Channel : std::uint8_t { microbatch, dispatch_forward, dispatch_backward, snapshot };
constexpr std::uint8_t kChannels = 4;
// The receiver lets the sender send `count` more requests on (channel, layer) in this attempt.
struct Credit {
  Channel channel = Channel::microbatch;
  std::int32_t layer = 0;
  std::int32_t count = 0;
  std::uint32_t attempt = 0;
};

// ---- Data -----------------------------------------------------------------------------------------------------------
// Conductor to loader: make the batches of this step (train) or of this evaluation (evaluate).
struct StartStep {
  std::int64_t step = 0;
  std::uint32_t attempt = 0;
};
struct StartEvaluation {
  std::int64_t version = 0;
  std::uint32_t attempt = 0;
};
// Loader to conductor before the first batch: what the step holds. Divisors of the losses.
struct StepPlan {
  WorkKind kind = WorkKind::train;
  std::int64_t step = 0;
  std::uint32_t attempt = 0;
  std::int32_t microbatches = 0;
  std::int64_t target_tokens = 0, mtp_target_tokens = 0, tokens = 0;
};
// Loader to the first stage (and to the last, when it is another actor). All i32 payloads, `sequences` rows of `length`
// tokens. targets[t] is the token to predict at t (-100: none); mtp_targets one further; positions restart with each
// isolated document; spans: (S,4) {q_begin, q_count, k_begin, k_count} as Attention wants them. With rollouts the rollout
// buffer sends it to the loader, and it carries policy (rows, 4) f32 and, if sampling was truncated, kept (rows, words)
// i32, both as PolicyLoss wants them.
struct TokenBatch {
  WorkKey key;
  std::int32_t sequences = 0, length = 0, spans_count = 0;
  std::int64_t target_tokens = 0, mtp_target_tokens = 0;  // of the whole step
  Payload ids, targets, mtp_targets, positions, spans, policy, kept;
};

// ---- Forward and backward -------------------------------------------------------------------------------------------
// Residual stream after a stage's last layer, (rows, hidden) f32, with what later stages need of the batch.
struct Activations {
  WorkKey key;
  std::int32_t rows = 0, sequences = 0, length = 0, spans_count = 0;
  Payload hidden, positions, spans;
};
struct ActivationGradients {
  WorkKey key;
  std::int32_t rows = 0;
  Payload gradient;
};  // (rows, hidden) f32
// Rows sorted by (expert, token); counts: rows of each expert of the shard that this chunk holds, in expert order.
// backward: rows are dL/d(combined) of each token, gates the routing weights (f32); inputs are the forward rows again
// when the shard has not stashed them.
struct ExpertBatch {
  WorkKey key;
  std::int32_t rows = 0;
  bool last_chunk = false;
  RecycledVector<std::int32_t> counts;
  Payload hidden, gates, inputs;
};
// forward: outputs (rows, hidden) in wire type; backward: input gradients, and dots (rows) f32.
struct ExpertResult {
  WorkKey key;
  std::int32_t rows = 0;
  bool stashed = false;
  Payload hidden, dots;
};

// ---- Gradients across replicas and shared tensors -------------------------------------------------------------------
// The elements that a stage accumulates (its parameters' in order, then other uses of shared tensors) are cut into as many
// parts as there are replicas (actors/rules/sum_range.h). First a replica's folded lanes of a part go to the twin that adds
// it, then what that twin added goes to all others: payloads of float32, from element `begin` on.
struct PartialSums {
  std::int64_t step = 0;
  std::uint32_t attempt = 0;
  std::int32_t replica = 0;  // the sender's
  Payload sums;
  std::int64_t begin = 0;
};
struct ReducedSums {
  std::int64_t step = 0;
  std::uint32_t attempt = 0;
  std::int64_t begin = 0;
  Payload sums;
};
// Gradient of a shared tensor's use (0 embedding, 1 head, 2 MTP embedding, 3 MTP head) to the tensor's owner; the
// owner's new version of the tensor back to the holders of read copies.
struct SharedGradient {
  std::int64_t step = 0;
  std::uint32_t attempt = 0;
  std::int32_t use = 0;
  Payload sums;
};
struct SharedTensor {
  std::int64_t version = 0;
  std::uint32_t attempt = 0;
  Payload values;
  std::uint64_t digest = 0;  // of the values, as its owner holds them
};

// An owner's folded gradients to its shadow, before it votes; and the shadow's answer.
struct ShadowGradient {
  std::int64_t step = 0;
  std::uint32_t attempt = 0;
  Payload sums;  // f32, in the owner's parameter order
};
struct GradientHeld {
  std::int64_t step = 0;
  std::uint32_t attempt = 0;
};

// ---- Commit ---------------------------------------------------------------------------------------------------------
struct TensorSquares {
  std::string name;
  double sum = 0;
  std::uint32_t bits = 0;  // the sum of the gradient's bit patterns, modulo 2^32
};
struct MicrobatchLoss {
  std::int32_t microbatch = 0;
  double loss_sum = 0, mtp_loss_sum = 0, balance_sum = 0;
  std::int64_t targets = 0, mtp_targets = 0;
  // With rollouts, over the microbatch's targets: sums of PolicyLoss's results, and how far log-probabilities are from
  // those recorded at sampling: the largest difference, and how many differ in any bit.
  double kl_sum = 0, clipped = 0, entropy_sum = 0, gap_max = 0;
  std::int64_t gaps = 0;
};
// An owner's gradients are folded and reduced.
struct Vote {
  std::int64_t step = 0;
  std::uint32_t attempt = 0;
  std::vector<TensorSquares> squares;
  std::vector<ExpertCounts> counts;  // from the router's side
  std::vector<MicrobatchLoss> losses;
};

// What an owner computes with at `version`: the digest of all its tensors (Digest, summed over them), read back from
// memory. problem: memory doesn't hold what the update wrote.
struct WeightsDigest {
  std::int64_t version = 0;
  std::uint32_t attempt = 0;
  std::uint64_t digest = 0;
  std::string problem;
};

// ---- Evaluation and generation --------------------------------------------------------------------------------------
struct EvaluationLoss {
  WorkKey key;
  double loss_sum = 0;
  std::int64_t targets = 0;
  std::vector<ExpertCounts> counts;
};
// Rollout to the first stage: the next tokens of some sequences. spans as in Attention with key rows in the cache;
// cache_rows: where each row's key and value go; sample_rows: the rows whose next token is wanted. forks (F,3) i32, done
// first: {from, to, count}, cached rows that become another sequence's beginning.
struct GenerateBatch {
  WorkKey key;
  std::int32_t rows = 0, spans_count = 0, samples = 0;
  float temperature = 0, top_p = 1;
  std::uint64_t seed = 0;
  bool want_logits = false;
  Payload ids, positions, spans, cache_rows, sample_rows, counters;
  std::int32_t forks_count = 0;
  bool want_kept = false;
  Payload forks;
};
// Between stages: GenerateBatch with the residual stream.
struct GenerateActivations {
  GenerateBatch batch;
  Payload hidden;
};
struct Generated {
  WorkKey key;
  std::int32_t samples = 0;
  Payload tokens, logprobs, logits, kept;
};

// ---- Rollouts -------------------------------------------------------------------------------------------------------
// Conductor to rollout buffer: have this rollout sampled, judged and kept (kind train), or answers to held-out problems
// (kind evaluate; `rollout` is the version). By weights of `version`, whose digest is `digest`.
struct StartRollout {
  WorkKind kind = WorkKind::train;
  std::int64_t rollout = 0;
  std::uint32_t attempt = 0;
  std::int64_t version = 0;
  std::uint64_t digest = 0;
};
// Rollout buffer to every rollout: sample these prompts, each rollout those that fall to it; `samples` answers each.
struct SamplePrompts {
  StartRollout of;
  std::int32_t first_prompt = 0, prompts = 0, samples = 0;
  float temperature = 1, top_p = 1;
};
// Rollout to judge: an answer. tokens i32, logprobs f32, kept (tokens, words) i32 if sampling was truncated. truncated:
// it has no end token. With the verdict, from the judge to the rollout buffer.
struct Sampled {
  StartRollout of;
  std::int32_t prompt = 0, sample = 0;
  bool greedy = false, truncated = false;
  Payload tokens, logprobs, kept;
};
struct Judged {
  Sampled sampled;
  double reward = 0;
  bool correct = false, formatted = false;
  std::string detail;
};
// Last stage to rollout buffer: of each row of a TokenBatch (kinds score and reference), the log-probability of its target.
struct Scored {
  WorkKey key;
  Payload logprobs;  // (rows) f32
};
// Rollout buffer to conductor: the loader has the batches (durable: and the journal has the rollout); metrics: JSON.
struct RolloutDone {
  StartRollout of;
  bool durable = false;
  std::string metrics;
};

// ---- Checkpoints ----------------------------------------------------------------------------------------------------
// An owner's part of a snapshot: consecutive bytes of one tensor. kind 0 weights, 1 first moment, 2 second moment, 3 the reference
// policy's weights.
struct SnapshotPart {
  std::int64_t version = 0;
  std::uint32_t attempt = 0;
  std::string name;
  std::int32_t kind = 0;
  std::int64_t offset = 0;  // in elements
  Payload values;           // f32
};
struct SnapshotBegin {
  std::int64_t version = 0;
  std::string state;
};  // conductor to checkpointer; state: JSON
struct CheckpointDone {
  std::int64_t version = 0;
  std::string path, problem;
};

// ---- To the person --------------------------------------------------------------------------------------------------
// Conductor to supervisor: a JSON line of metrics, news or an answer; the kind says which (step, evaluation, checkpoint,
// finished, problem, ready, experts, answers, rollout, ...).
struct Report {
  std::string kind, json;
};

// ---- The inspector --------------------------------------------------------------------------------------------------
// To the conductor: don't begin the next step, or only so many, or go on.
struct Pause {
  bool on = false;
  std::uint32_t steps = 0;  // that are still begun before it holds
};

// ---- On the node itself ---------------------------------------------------------------------------------------------
struct SegmentDone {
  std::uint64_t token = 0;
};  // never on the wire
struct DiskDone {
  std::uint64_t token = 0;
  std::string problem;
};  // never on the wire
struct JuryDone {
  std::uint64_t token = 0;
  std::string verdict, problem;
};  // never on the wire

using Message = std::variant<Recover, Inquiry, Standing, Restore, Restored, Fetch, ShadowGradient, GradientHeld, Stop,
                             Credit, StartStep, StartEvaluation, StepPlan, TokenBatch, Activations, ActivationGradients,
                             ExpertBatch, ExpertResult, PartialSums, SharedGradient, SharedTensor, Vote, Decision,
                             EvaluationLoss, GenerateBatch, GenerateActivations, Generated, SnapshotPart, SnapshotBegin,
                             CheckpointDone, Report, WeightsDigest, StartRollout, SamplePrompts, Sampled, Judged,
                             RolloutDone, Scored, Pause, ReducedSums, SegmentDone, DiskDone, JuryDone>;

const char* kind_of(const Message& message);  // "TokenBatch"
const char* kind_name(std::size_t index);     // of its place in Message

// The key of the work that a message is of; of what is a step's, version's or rollout's, its number. Empty: of none.
std::optional<WorkKey> work_of(const Message& message);

struct Envelope {
  Address from, to;
  Message message;
  // For the journal (actors/journal.h): the message's number in its run, that of the message whose handler posted it (0:
  // nobody's did), and when it was posted, by its sender's clock.
  std::uint64_t id = 0, cause = 0;
  std::int64_t sent_us = 0;
};

}  // namespace troupe
