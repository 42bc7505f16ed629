// What each message carries on the wire, once for both directions: fields(direction, w, m) hands `direction` every
// member of the message m with the accessors of its wire struct w, in declared order, which is also the order of the
// payloads. Law: a member not listed here does not travel. Included by codec.cc only.
#pragma once

#include <type_traits>

#include "messages/message.h"

namespace troupe {

// A message being written is const, one being read is not.
template <typename Direction, typename T>
using Subject = std::conditional_t<Direction::kWrites, const T&, T&>;

// clang-format off: a message's fields read better in a few lines than one a line.
// FIELD(weights_only, WeightsOnly): the member, and how the wire struct gets, sets and initializes it. The lambdas are
// generic: each direction instantiates only what it calls.
#define FIELD(member, Name)                                                                              \
  d(                                                                                                     \
      m.member, w, [](auto s) { return s.get##Name(); }, [](auto s, auto value) { s.set##Name(value); }, \
      [](auto s, auto... count) { return s.init##Name(count...); })

template <typename D, typename W>
void fields(D& d, W w, Subject<D, WorkKey> m) {
  FIELD(kind, Kind);
  FIELD(direction, Direction);
  FIELD(step, Step);
  FIELD(attempt, Attempt);
  FIELD(microbatch, Microbatch);
  FIELD(layer, Layer);
  FIELD(chunk, Chunk);
}

// ---- Decisions ------------------------------------------------------------------------------------------------------
template <typename D, typename W>
void fields(D& d, W w, Subject<D, ExpertCounts> m) {
  FIELD(layer, Layer);
  FIELD(counts, Counts);
}
template <typename D, typename W>
void fields(D& d, W w, Subject<D, Decision> m) {
  FIELD(step, Step);
  FIELD(attempt, Attempt);
  FIELD(verdict, Verdict);
  FIELD(clip_scale, ClipScale);
  FIELD(learning_rate, LearningRate);
  FIELD(gradient_norm, GradientNorm);
  FIELD(counts, Counts);
  FIELD(checkpoint, Checkpoint);
  FIELD(last, Last);
  FIELD(updates, Updates);
  FIELD(state, State);
}

// ---- Starting, restoring, ending ------------------------------------------------------------------------------------
template <typename D, typename W>
void fields(D& d, W w, Subject<D, Recover> m) {
  FIELD(attempt, Attempt);
  FIELD(version, Version);
  FIELD(path, Path);
  FIELD(weights_only, WeightsOnly);
  FIELD(allowance_us, AllowanceUs);
}
template <typename D, typename W>
void fields(D& d, W w, Subject<D, Inquiry> m) {
  FIELD(attempt, Attempt);
}
template <typename D, typename W>
void fields(D& d, W w, Subject<D, Standing> m) {
  FIELD(attempt, Attempt);
  FIELD(version, Version);
  FIELD(voted, Voted);
  FIELD(decided, Decided);
  FIELD(decision, Decision);
}
template <typename D, typename W>
void fields(D& d, W w, Subject<D, Restore> m) {
  FIELD(version, Version);
  FIELD(attempt, Attempt);
  FIELD(path, Path);
  FIELD(weights_only, WeightsOnly);
  FIELD(source_role, SourceRole);
  FIELD(source_index, SourceIndex);
  FIELD(decided, Decided);
  FIELD(checkpoint, Checkpoint);
  FIELD(decision, Decision);
}
template <typename D, typename W>
void fields(D& d, W w, Subject<D, Fetch> m) {
  FIELD(version, Version);
  FIELD(attempt, Attempt);
  FIELD(part, Part);
}
template <typename D, typename W>
void fields(D& d, W w, Subject<D, ShadowGradient> m) {
  FIELD(step, Step);
  FIELD(attempt, Attempt);
  FIELD(sums, Sums);
}
template <typename D, typename W>
void fields(D& d, W w, Subject<D, GradientHeld> m) {
  FIELD(step, Step);
  FIELD(attempt, Attempt);
}
template <typename D, typename W>
void fields(D& d, W w, Subject<D, Restored> m) {
  FIELD(version, Version);
  FIELD(attempt, Attempt);
  FIELD(problem, Problem);
}
template <typename D, typename W>
void fields(D& d, W w, Subject<D, Stop> m) {
  FIELD(reason, Reason);
}

// ---- Credits and data -----------------------------------------------------------------------------------------------
template <typename D, typename W>
void fields(D& d, W w, Subject<D, Credit> m) {
  FIELD(channel, Channel);
  FIELD(layer, Layer);
  FIELD(count, Count);
  FIELD(attempt, Attempt);
}
template <typename D, typename W>
void fields(D& d, W w, Subject<D, StartStep> m) {
  FIELD(step, Step);
  FIELD(attempt, Attempt);
}
template <typename D, typename W>
void fields(D& d, W w, Subject<D, StartEvaluation> m) {
  FIELD(version, Version);
  FIELD(attempt, Attempt);
}
template <typename D, typename W>
void fields(D& d, W w, Subject<D, StepPlan> m) {
  FIELD(kind, Kind);
  FIELD(step, Step);
  FIELD(attempt, Attempt);
  FIELD(microbatches, Microbatches);
  FIELD(target_tokens, TargetTokens);
  FIELD(mtp_target_tokens, MtpTargetTokens);
  FIELD(tokens, Tokens);
}
template <typename D, typename W>
void fields(D& d, W w, Subject<D, TokenBatch> m) {
  FIELD(key, Key);
  FIELD(sequences, Sequences);
  FIELD(length, Length);
  FIELD(spans_count, SpansCount);
  FIELD(target_tokens, TargetTokens);
  FIELD(mtp_target_tokens, MtpTargetTokens);
  FIELD(ids, Ids);
  FIELD(targets, Targets);
  FIELD(mtp_targets, MtpTargets);
  FIELD(positions, Positions);
  FIELD(spans, Spans);
  FIELD(policy, Policy);
  FIELD(kept, Kept);
}

// ---- Forward and backward -------------------------------------------------------------------------------------------
template <typename D, typename W>
void fields(D& d, W w, Subject<D, Activations> m) {
  FIELD(key, Key);
  FIELD(rows, Rows);
  FIELD(sequences, Sequences);
  FIELD(length, Length);
  FIELD(spans_count, SpansCount);
  FIELD(hidden, Hidden);
  FIELD(positions, Positions);
  FIELD(spans, Spans);
}
template <typename D, typename W>
void fields(D& d, W w, Subject<D, ActivationGradients> m) {
  FIELD(key, Key);
  FIELD(rows, Rows);
  FIELD(gradient, Gradient);
}
template <typename D, typename W>
void fields(D& d, W w, Subject<D, ExpertBatch> m) {
  FIELD(key, Key);
  FIELD(rows, Rows);
  FIELD(last_chunk, LastChunk);
  FIELD(counts, Counts);
  FIELD(hidden, Hidden);
  FIELD(gates, Gates);
  FIELD(inputs, Inputs);
}
template <typename D, typename W>
void fields(D& d, W w, Subject<D, ExpertResult> m) {
  FIELD(key, Key);
  FIELD(rows, Rows);
  FIELD(stashed, Stashed);
  FIELD(hidden, Hidden);
  FIELD(dots, Dots);
}

// ---- Gradients across replicas and shared tensors -------------------------------------------------------------------
template <typename D, typename W>
void fields(D& d, W w, Subject<D, PartialSums> m) {
  FIELD(step, Step);
  FIELD(attempt, Attempt);
  FIELD(replica, Replica);
  FIELD(sums, Sums);
  FIELD(begin, Begin);
}
template <typename D, typename W>
void fields(D& d, W w, Subject<D, ReducedSums> m) {
  FIELD(step, Step);
  FIELD(attempt, Attempt);
  FIELD(begin, Begin);
  FIELD(sums, Sums);
}
template <typename D, typename W>
void fields(D& d, W w, Subject<D, SharedGradient> m) {
  FIELD(step, Step);
  FIELD(attempt, Attempt);
  FIELD(use, Use);
  FIELD(sums, Sums);
}
template <typename D, typename W>
void fields(D& d, W w, Subject<D, SharedTensor> m) {
  FIELD(version, Version);
  FIELD(attempt, Attempt);
  FIELD(values, Values);
  FIELD(digest, Digest);
}

// ---- Commit ---------------------------------------------------------------------------------------------------------
template <typename D, typename W>
void fields(D& d, W w, Subject<D, TensorSquares> m) {
  FIELD(name, Name);
  FIELD(sum, Sum);
  FIELD(bits, Bits);
}
template <typename D, typename W>
void fields(D& d, W w, Subject<D, MicrobatchLoss> m) {
  FIELD(microbatch, Microbatch);
  FIELD(loss_sum, LossSum);
  FIELD(mtp_loss_sum, MtpLossSum);
  FIELD(balance_sum, BalanceSum);
  FIELD(targets, Targets);
  FIELD(mtp_targets, MtpTargets);
  FIELD(kl_sum, KlSum);
  FIELD(clipped, Clipped);
  FIELD(entropy_sum, EntropySum);
  FIELD(gap_max, GapMax);
  FIELD(gaps, Gaps);
}
template <typename D, typename W>
void fields(D& d, W w, Subject<D, WeightsDigest> m) {
  FIELD(version, Version);
  FIELD(attempt, Attempt);
  FIELD(digest, Digest);
  FIELD(problem, Problem);
}
template <typename D, typename W>
void fields(D& d, W w, Subject<D, Vote> m) {
  FIELD(step, Step);
  FIELD(attempt, Attempt);
  FIELD(squares, Squares);
  FIELD(counts, Counts);
  FIELD(losses, Losses);
}

// ---- Evaluation and generation --------------------------------------------------------------------------------------
template <typename D, typename W>
void fields(D& d, W w, Subject<D, EvaluationLoss> m) {
  FIELD(key, Key);
  FIELD(loss_sum, LossSum);
  FIELD(targets, Targets);
  FIELD(counts, Counts);
}
template <typename D, typename W>
void fields(D& d, W w, Subject<D, GenerateBatch> m) {
  FIELD(key, Key);
  FIELD(rows, Rows);
  FIELD(spans_count, SpansCount);
  FIELD(samples, Samples);
  FIELD(temperature, Temperature);
  FIELD(top_p, TopP);
  FIELD(seed, Seed);
  FIELD(want_logits, WantLogits);
  FIELD(ids, Ids);
  FIELD(positions, Positions);
  FIELD(spans, Spans);
  FIELD(cache_rows, CacheRows);
  FIELD(sample_rows, SampleRows);
  FIELD(counters, Counters);
  FIELD(forks_count, ForksCount);
  FIELD(want_kept, WantKept);
  FIELD(forks, Forks);
}
template <typename D, typename W>
void fields(D& d, W w, Subject<D, GenerateActivations> m) {
  FIELD(batch, Batch);
  FIELD(hidden, Hidden);
}
template <typename D, typename W>
void fields(D& d, W w, Subject<D, Generated> m) {
  FIELD(key, Key);
  FIELD(samples, Samples);
  FIELD(tokens, Tokens);
  FIELD(logprobs, Logprobs);
  FIELD(logits, Logits);
  FIELD(kept, Kept);
}

// ---- Rollouts -------------------------------------------------------------------------------------------------------
template <typename D, typename W>
void fields(D& d, W w, Subject<D, StartRollout> m) {
  FIELD(kind, Kind);
  FIELD(rollout, Rollout);
  FIELD(attempt, Attempt);
  FIELD(version, Version);
  FIELD(digest, Digest);
}
template <typename D, typename W>
void fields(D& d, W w, Subject<D, SamplePrompts> m) {
  FIELD(of, Of);
  FIELD(first_prompt, FirstPrompt);
  FIELD(prompts, Prompts);
  FIELD(samples, Samples);
  FIELD(temperature, Temperature);
  FIELD(top_p, TopP);
}
template <typename D, typename W>
void fields(D& d, W w, Subject<D, Sampled> m) {
  FIELD(of, Of);
  FIELD(prompt, Prompt);
  FIELD(sample, Sample);
  FIELD(greedy, Greedy);
  FIELD(truncated, Truncated);
  FIELD(tokens, Tokens);
  FIELD(logprobs, Logprobs);
  FIELD(kept, Kept);
}
template <typename D, typename W>
void fields(D& d, W w, Subject<D, Judged> m) {
  FIELD(sampled, Sampled);
  FIELD(reward, Reward);
  FIELD(correct, Correct);
  FIELD(formatted, Formatted);
  FIELD(detail, Detail);
}
template <typename D, typename W>
void fields(D& d, W w, Subject<D, Scored> m) {
  FIELD(key, Key);
  FIELD(logprobs, Logprobs);
}
template <typename D, typename W>
void fields(D& d, W w, Subject<D, Pause> m) {
  FIELD(on, On);
  FIELD(steps, Steps);
}
template <typename D, typename W>
void fields(D& d, W w, Subject<D, RolloutDone> m) {
  FIELD(of, Of);
  FIELD(durable, Durable);
  FIELD(metrics, Metrics);
}

// ---- Checkpoints, reports -------------------------------------------------------------------------------------------
template <typename D, typename W>
void fields(D& d, W w, Subject<D, SnapshotPart> m) {
  FIELD(version, Version);
  FIELD(attempt, Attempt);
  FIELD(name, Name);
  FIELD(kind, Kind);
  FIELD(offset, Offset);
  FIELD(values, Values);
}
template <typename D, typename W>
void fields(D& d, W w, Subject<D, SnapshotBegin> m) {
  FIELD(version, Version);
  FIELD(state, State);
}
template <typename D, typename W>
void fields(D& d, W w, Subject<D, CheckpointDone> m) {
  FIELD(version, Version);
  FIELD(path, Path);
  FIELD(problem, Problem);
}
template <typename D, typename W>
void fields(D& d, W w, Subject<D, Report> m) {
  FIELD(kind, Kind);
  FIELD(json, Json);
}

#undef FIELD
// clang-format on

}  // namespace troupe
