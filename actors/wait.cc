#include "actors/wait.h"

#include <array>

#include "kernels/base/check.h"

namespace troupe {

const char* to_string(Awaited what) {
  constexpr std::array<const char*, kAwaited> kNames = {"the word to begin",
                                                        "the answer to an inquiry",
                                                        "the word what to restore",
                                                        "the word that it has restored",
                                                        "a part of the state",
                                                        "the plan of the step",
                                                        "tokens",
                                                        "activations",
                                                        "gradients of activations",
                                                        "rows for its experts",
                                                        "rows back from the experts",
                                                        "a twin's partial sums",
                                                        "the gradient of a shared tensor",
                                                        "the copy's word that it holds the gradient",
                                                        "a vote",
                                                        "the decision",
                                                        "an evaluation",
                                                        "generated tokens",
                                                        "a part of a snapshot",
                                                        "a whole checkpoint",
                                                        "a credit",
                                                        "a free slot",
                                                        "a segment",
                                                        "a disk job",
                                                        "its turn",
                                                        "the word to begin a step",
                                                        "the embedding's new version",
                                                        "the gradient to copy",
                                                        "what an owner computes with",
                                                        "a rollout",
                                                        "answers",
                                                        "a verdict",
                                                        "leave to go on",
                                                        "what a twin has added"};
  const auto index = static_cast<std::size_t>(what);
  CHECK(index < kNames.size(), "no wait {}", index);
  return kNames[index];
}

}  // namespace troupe
