// Wait: what an actor needs from somebody before it can go on. Every actor tells all of its own when asked; `troupe why`
// follows them to the root, and the bill charges idle seconds to their cause. Telling changes nothing.
#pragma once

#include <cstdint>
#include <vector>

#include "messages/message.h"

namespace troupe {

enum class Awaited : std::uint8_t {
  recover,               // the supervisor's word to begin
  standing,              // a holder's answer to the conductor's inquiry
  restore,               // the conductor's word what to restore
  restored,              // a holder's word that it has
  state_part,            // of the state that is fetched from another holder
  step_plan,             // the loader's
  tokens,                // of a microbatch, from the loader
  activations,           // from the stage before
  activation_gradients,  // from the stage after
  expert_batch,          // rows for an expert shard
  expert_result,         // rows back from it
  partial_sums,          // of gradients, from a twin
  shared_gradient,       // of tensors that several stages own
  gradient_held,         // the shadow's word
  vote,                  // an owner's
  decision,              // the conductor's
  evaluation,            // a last stage's losses
  generated,             // tokens of the rollout
  snapshot_part,         // of a checkpoint
  checkpoint,            // the checkpointer's word that it is whole
  credit,                // a receiver's leave to send
  slot,                  // room for another microbatch, that earlier ones free
  segment,               // of this node's own device
  disk,                  // a job of this node's own disk
  turn,                  // behind earlier work of this actor's own
  start,                 // the conductor's word to begin a step
  shared_tensor,         // of the first stage's embedding, read by the last
  shadow_gradient,       // from the owner that is shadowed
  weights_digest,        // an owner's word what it computes with
  rollout,               // the rollout buffer's word that one is there, or on disk
  answers,               // of a rollout to prompts
  verdict,               // the judge's, or of the jury's processes
  leave,                 // to go on, from who paused the run
  reduced_sums,          // of gradients, from the twin that adds that part
};
constexpr std::uint8_t kAwaited = 34;
const char* to_string(Awaited what);

struct Wait {
  Awaited what = Awaited::decision;
  Address holder;             // who owes it; for segment, disk, slot and turn the actor itself
  WorkKey item;               // of what; microbatch -1: of the whole step; other fields that don't apply are zero
  std::int64_t since_us = 0;  // when it began, by the node's clock
};

using Waits = std::vector<Wait>;

// What an actor may still send to another before it must wait: of how much at most.
struct Credits {
  Address to;
  std::int32_t free = 0, of = 0;
};

inline WorkKey step_key(std::int64_t step, std::uint32_t attempt) {
  return {.step = step, .attempt = attempt, .microbatch = -1};
}

}  // namespace troupe
