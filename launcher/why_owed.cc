// The rules by which one wait explains another. They know the protocol: what an actor must still wait for when it has
// not yet sent what somebody wants of it.
#include <algorithm>

#include "actors/node.h"
#include "actors/rules/placement.h"
#include "launcher/why.h"

namespace troupe {

namespace {

using Actor = BoardPage::Actor;

template <typename Predicate>
Owed those(const Actor& holder, Predicate predicate, std::string lost) {
  Owed found{{}, std::move(lost)};
  for (std::size_t i = 0; i < holder.waits.size(); ++i)
    if (predicate(holder.waits[i])) found.because.push_back(i);
  return found;
}

template <typename Predicate>
bool any(const Actor& actor, Predicate predicate) {
  return std::any_of(actor.waits.begin(), actor.waits.end(), predicate);
}

bool is(const Wait& wait, Awaited what) { return wait.what == what; }
bool of_step(const Wait& wait, const Wait& asked) { return wait.item.step == asked.item.step; }
bool for_snapshot(const Wait& wait) { return wait.holder.role == Role::checkpointer; }
bool is_arrival(const Wait& wait) {
  return is(wait, Awaited::tokens) || is(wait, Awaited::activations) || is(wait, Awaited::slot);
}

// The same microbatch of the same step.
bool same_work(const Wait& wait, const Wait& asked) {
  const WorkKey &a = wait.item, &b = asked.item;
  return a.kind == b.kind && a.step == b.step && a.microbatch == b.microbatch;
}

// A microbatch that has yet to come, no later than the one that is asked for.
bool to_come(const Wait& wait, const Wait& asked) {
  return is_arrival(wait) && wait.item.kind == asked.item.kind && of_step(wait, asked) &&
         wait.item.microbatch <= asked.item.microbatch;
}

Owed nothing(std::string lost) { return {{}, std::move(lost)}; }
Owed everything(const Actor& holder, std::string lost) {
  return those(
      holder, [](const Wait& w) { return !for_snapshot(w); }, std::move(lost));
}

// It has yet to come to the attempt or to the step that is asked for.
bool is_behind(const Actor& holder, const Wait& asked) {
  const bool restoring =
      any(holder, [](const Wait& w) { return is(w, Awaited::restore) || is(w, Awaited::state_part); });
  return restoring || holder.attempt != asked.item.attempt || holder.version < asked.item.step;
}

// ---- Restoring ------------------------------------------------------------------------------------------------------

Owed owed_restored(const Actor& holder, const Wait& asked) {
  const bool told = holder.attempt == asked.item.attempt;
  return those(
      holder, [](const Wait& w) { return is(w, Awaited::state_part) || is(w, Awaited::segment); },
      told ? "Restored" : "Restore");
}

Owed owed_state(const Actor& holder, const Wait& asked) {
  const bool there = holder.attempt == asked.item.attempt &&
                     !any(holder, [](const Wait& w) { return is(w, Awaited::restore) || is(w, Awaited::state_part); });
  if (!there) return everything(holder, "Fetch or SnapshotPart");
  return those(
      holder, [&](const Wait& w) { return is(w, Awaited::segment) && w.item == asked.item; }, "Fetch or SnapshotPart");
}

// ---- Data -----------------------------------------------------------------------------------------------------------

Owed owed_plan(const Actor& loader, const Wait& asked) {
  if (asked.item.kind != WorkKind::train) return nothing("StartEvaluation or StepPlan");
  const bool begun =
      !any(loader, [&](const Wait& w) { return is(w, Awaited::start) && w.item.step <= asked.item.step; });
  return those(
      loader, [](const Wait& w) { return is(w, Awaited::restore); }, begun ? "StepPlan" : "StartStep");
}

Owed owed_tokens(const Config& config, const Actor& asker, const Wait& asked, const Actor& loader) {
  const auto stages = static_cast<std::uint32_t>(config.layout.stages);
  const Address first = stage_address(config, static_cast<int>(asker.address.index / stages), 0);
  return those(
      loader,
      [&](const Wait& w) {
        const bool queued = is(w, Awaited::credit) && w.holder == first && w.item.kind == asked.item.kind &&
                            of_step(w, asked) && w.item.microbatch <= asked.item.microbatch;
        const bool to_begin = is(w, Awaited::start) && w.item.step <= asked.item.step;
        return queued || to_begin || is(w, Awaited::restore);
      },
      "TokenBatch");
}

Owed owed_evaluation(const Actor& holder, const Wait& asked) {
  const bool loader = holder.address.role == Role::loader;
  return those(
      holder,
      [&](const Wait& w) {
        const bool queued = is(w, Awaited::credit) && w.item.kind == WorkKind::evaluate && of_step(w, asked) &&
                            w.item.microbatch <= asked.item.microbatch;
        return loader ? queued : same_work(w, asked);
      },
      "TokenBatch, Activations or EvaluationLoss");
}

// ---- Forward and backward -------------------------------------------------------------------------------------------

Owed owed_activations(const Actor& before, const Wait& asked) {
  const auto own = [&](const Wait& w) { return same_work(w, asked) && !is_arrival(w); };
  const auto sent = [&](const Wait& w) { return own(w) && is(w, Awaited::activation_gradients); };
  if (any(before, sent)) return nothing("Activations");
  if (any(before, own)) return those(before, own, "");
  if (is_behind(before, asked)) return everything(before, "Activations");
  return those(
      before, [&](const Wait& w) { return to_come(w, asked); }, "Activations");
}

Owed owed_gradients(const Actor& after, const Wait& asked) {
  if (any(after, [&](const Wait& w) { return is(w, Awaited::activations) && to_come(w, asked); }))
    return nothing("Activations");
  if (is_behind(after, asked)) return everything(after, "ActivationGradients");
  return those(
      after, [&](const Wait& w) { return same_work(w, asked) && w.item.layer >= 0; }, "ActivationGradients");
}

// Backward goes from the last layer to the first: a stage below layer L has sent all rows of L.
Owed owed_rows(const Actor& asker, const Actor& stage, const Wait& asked) {
  const auto believes = [&](const Wait& w) {
    return is(w, Awaited::expert_result) && w.holder == asker.address && w.item == asked.item;
  };
  if (any(stage, believes)) return nothing("ExpertBatch");
  if (is_behind(stage, asked)) return everything(stage, "ExpertBatch");
  return those(
      stage,
      [&](const Wait& w) {
        const bool above = w.item.direction == Direction::forward || w.item.layer >= asked.item.layer;
        return to_come(w, asked) || (same_work(w, asked) && !is_arrival(w) && above);
      },
      "ExpertBatch");
}

// A backward chunk that only stands in the strict sum has been answered.
Owed owed_result(const Actor& shard, const Wait& asked) {
  const auto own = [&](const Wait& w) { return w.item == asked.item; };
  const bool answered =
      any(shard, [&](const Wait& w) { return own(w) && is(w, Awaited::turn) && shard.version == asked.item.step; });
  const bool never_came = any(shard, [&](const Wait& w) { return own(w) && is(w, Awaited::expert_batch); });
  if (answered) return nothing("ExpertResult");
  if (never_came) return nothing("ExpertBatch");
  return those(shard, own, "ExpertBatch or ExpertResult");
}

Owed owed_credit(const Config& config, const Actor& asker, const Wait& asked, const Actor& holder) {
  if (holder.address.role == Role::checkpointer)
    return those(
        holder, [](const Wait& w) { return is(w, Awaited::disk); }, "Credit");
  if (is_behind(holder, asked)) return everything(holder, "Credit");
  if (holder.address.role == Role::expert_shard)
    return those(
        holder,
        [&](const Wait& w) {
          const bool holds = is(w, Awaited::turn) || is(w, Awaited::segment);
          const auto replica = static_cast<std::uint32_t>(w.item.microbatch % config.layout.replicas);
          const bool of_asker = asker.address.index / static_cast<std::uint32_t>(config.layout.stages) == replica;
          return holds && of_asker && w.item.layer == asked.item.layer && w.item.direction == asked.item.direction;
        },
        "Credit");
  const auto has_room = [&](const Wait& w) {
    return (is(w, Awaited::tokens) || is(w, Awaited::activations)) && w.holder == asker.address;
  };
  return any(holder, has_room) ? nothing("Credit") : everything(holder, "Credit");
}

// ---- A step's end ---------------------------------------------------------------------------------------------------

// Who waits for any of these at this step has sent what comes before.
Owed unless_beyond(const Actor& holder, const Wait& asked, std::initializer_list<Awaited> beyond, std::string lost) {
  const auto is_beyond = [&](const Wait& w) {
    return w.item.step >= asked.item.step && std::find(beyond.begin(), beyond.end(), w.what) != beyond.end();
  };
  return any(holder, is_beyond) ? nothing(std::move(lost)) : everything(holder, std::move(lost));
}

Owed owed_held(const Actor& shadow, const Wait& asked) {
  if (any(shadow, [&](const Wait& w) { return is(w, Awaited::shadow_gradient) && of_step(w, asked); }))
    return nothing("ShadowGradient");
  return unless_beyond(shadow, asked, {Awaited::decision}, "GradientHeld");
}

// The embedding's copy leaves as soon as it is made.
Owed owed_copy(const Actor& owner, const Wait& asked) {
  if (is_behind(owner, asked)) return everything(owner, "SharedTensor");
  return those(
      owner, [&](const Wait& w) { return is(w, Awaited::segment) && w.item.microbatch < 0 && of_step(w, asked); },
      "SharedTensor");
}

Owed owed_part(const Actor& owner, const Wait& asked) {
  if (is_behind(owner, asked)) return everything(owner, "SnapshotPart");
  return those(
      owner, [](const Wait& w) { return for_snapshot(w) || (is(w, Awaited::segment) && w.item.microbatch < 0); },
      "SnapshotPart");
}

// What is sent to whoever awaits this, of what is sent whatever the holder waits for itself.
const char* sent_for(Awaited what) {
  if (what == Awaited::weights_digest) return "WeightsDigest";
  if (what == Awaited::rollout) return "StartRollout or RolloutDone";
  if (what == Awaited::answers) return "SamplePrompts, Sampled or Judged";
  return what == Awaited::start ? "StartStep" : "ShadowGradient";
}

using A = Awaited;

// A twin that waits for what others have added has sent its own sums.
Owed owed_sums(const Actor& twin, const Wait& asked) {
  if (is(asked, A::reduced_sums))
    return unless_beyond(twin, asked, {A::reduced_sums, A::shared_gradient, A::gradient_held, A::decision},
                         "ReducedSums");
  return unless_beyond(twin, asked,
                       {A::partial_sums, A::reduced_sums, A::shared_gradient, A::gradient_held, A::decision},
                       "PartialSums");
}

}  // namespace

Owed owed(const Config& config, const Actor& asker, const Wait& asked, const Actor& holder) {
  switch (asked.what) {
    case A::standing:
      return nothing("Inquiry or Standing");
    case A::restore:
      return those(
          holder, [&](const Wait& w) { return w.holder == asker.address || is(w, A::standing) || is(w, A::recover); },
          "Restore");
    case A::restored:
      return owed_restored(holder, asked);
    case A::state_part:
      return owed_state(holder, asked);
    case A::step_plan:
      return owed_plan(holder, asked);
    case A::tokens:
      return owed_tokens(config, asker, asked, holder);
    case A::activations:
      return owed_activations(holder, asked);
    case A::activation_gradients:
      return owed_gradients(holder, asked);
    case A::expert_batch:
      return owed_rows(asker, holder, asked);
    case A::expert_result:
      return owed_result(holder, asked);
    case A::partial_sums:
    case A::reduced_sums:
      return owed_sums(holder, asked);
    case A::shared_gradient:
      return unless_beyond(holder, asked, {A::gradient_held, A::decision}, "SharedGradient");
    case A::shared_tensor:
      return owed_copy(holder, asked);
    case A::gradient_held:
      return owed_held(holder, asked);
    case A::vote:
      return unless_beyond(holder, asked, {A::decision}, "Vote");
    case A::decision:
      return holder.version > asked.item.step ? nothing("Decision") : everything(holder, "Decision");
    case A::evaluation:
      return owed_evaluation(holder, asked);
    case A::generated:
      if (holder.address.role == Role::rollout) return everything(holder, "StartEvaluation or Report");
      return those(
          holder, [&](const Wait& w) { return same_work(w, asked); },
          "GenerateBatch, GenerateActivations or Generated");
    case A::snapshot_part:
      return owed_part(holder, asked);
    case A::checkpoint:
      return those(
          holder, [](const Wait&) { return true; }, "SnapshotBegin or CheckpointDone");
    case A::credit:
      return owed_credit(config, asker, asked, holder);
    case A::turn:
    case A::slot:
      return those(
          holder, [](const Wait& w) { return !is(w, A::turn) && !is(w, A::slot); }, "SegmentDone");
    case A::weights_digest:
    case A::rollout:
    case A::answers:
    case A::start:
    case A::shadow_gradient:
      return everything(holder, sent_for(asked.what));
    case A::verdict:
    case A::leave:
    case A::recover:
    case A::segment:
    case A::disk:
      return {};
  }
  return {};
}

}  // namespace troupe
