// Names of messages, addresses and work, for people: logs, `troupe why`, errors.
#include "messages/message.h"

#include <fmt/format.h>

#include <array>

namespace troupe {
namespace {

constexpr std::array<const char*, kRoles> kRoleNames = {"supervisor",     "loader",       "conductor", "stage",
                                                        "expert_shard",   "checkpointer", "rollout",   "shadow",
                                                        "rollout_buffer", "judge"};
constexpr std::array<const char*, kWorkKinds> kWorkKindNames = {"train", "evaluate", "generate", "score", "reference"};
constexpr std::array<const char*, 2> kDirectionNames = {"forward", "backward"};

// In the order of `Message`.
// clang-format off
constexpr std::array<const char*, std::variant_size_v<Message>> kKindNames = {
    "Recover", "Inquiry", "Standing", "Restore", "Restored", "Fetch", "ShadowGradient", "GradientHeld", "Stop", "Credit", "StartStep", "StartEvaluation", "StepPlan", "TokenBatch",
    "Activations", "ActivationGradients", "ExpertBatch", "ExpertResult", "PartialSums", "SharedGradient",
    "SharedTensor", "Vote", "Decision", "EvaluationLoss", "GenerateBatch", "GenerateActivations", "Generated",
    "SnapshotPart", "SnapshotBegin", "CheckpointDone", "Report",
    "WeightsDigest", "StartRollout", "SamplePrompts", "Sampled", "Judged", "RolloutDone", "Scored", "Pause", "ReducedSums", "SegmentDone", "DiskDone", "JuryDone"};
// clang-format on

// A value out of range is printed as "?", never read past the table.
template <std::size_t count, typename E>
const char* name_of(const std::array<const char*, count>& names, E value) {
  const auto index = static_cast<std::size_t>(value);
  return index < count ? names[index] : "?";
}

}  // namespace

std::string to_string(const Address& address) {
  return fmt::format("{} {}", name_of(kRoleNames, address.role), address.index);
}

std::string to_string(const WorkKey& key) {
  return fmt::format("{} {} step {} attempt {} microbatch {} layer {} chunk {}", name_of(kWorkKindNames, key.kind),
                     name_of(kDirectionNames, key.direction), key.step, key.attempt, key.microbatch, key.layer,
                     key.chunk);
}

const char* kind_of(const Message& message) {
  return message.valueless_by_exception() ? "nothing" : kKindNames[message.index()];
}

const char* kind_name(std::size_t index) { return index < kKindNames.size() ? kKindNames[index] : "unknown message"; }

std::optional<WorkKey> work_of(const Message& message) {
  const auto whole = [](std::int64_t step, std::uint32_t attempt) {
    return WorkKey{.step = step, .attempt = attempt, .microbatch = -1, .layer = -1, .chunk = -1};
  };
  return std::visit(
      [&](const auto& m) -> std::optional<WorkKey> {
        if constexpr (requires { m.key; })
          return m.key;
        else if constexpr (requires { m.batch.key; })
          return m.batch.key;
        else if constexpr (requires { m.of.rollout; })
          return whole(m.of.rollout, m.of.attempt);
        else if constexpr (requires { m.sampled.of; })
          return whole(m.sampled.of.rollout, m.sampled.of.attempt);
        else if constexpr (requires {
                             m.rollout;
                             m.attempt;
                           })
          return whole(m.rollout, m.attempt);
        else if constexpr (requires {
                             m.step;
                             m.attempt;
                           })
          return whole(m.step, m.attempt);
        else if constexpr (requires {
                             m.version;
                             m.attempt;
                           })
          return whole(m.version, m.attempt);
        else
          return std::nullopt;
      },
      message);
}

}  // namespace troupe
