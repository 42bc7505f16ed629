#include "launcher/forecast/dualpipe.h"

#include <algorithm>
#include <array>

#include "kernels/base/check.h"

namespace troupe {

namespace {

// Ops of one rank. `near` is the way that enters at the nearer end.
class RankOps {
 public:
  explicit RankOps(int near) : near_(near) {}
  void forward(bool far) { ops_.push_back({Chunk::forward, way(far), -1}); }
  void together(bool forward_far) { ops_.push_back({Chunk::together, way(forward_far), way(!forward_far)}); }
  void backward(bool far, bool whole) {
    ops_.push_back({whole ? Chunk::backward_whole : Chunk::backward, -1, way(far)});
  }
  void weights() { ops_.push_back({Chunk::weights, -1, -1}); }
  std::vector<PipeOp> take() { return std::move(ops_); }

 private:
  int way(bool far) const { return far ? 1 - near_ : near_; }
  int near_;
  std::vector<PipeOp> ops_;
};

std::vector<PipeOp> ops_of(int rank, int ranks, int microbatches) {
  const int h = std::min(rank, ranks - 1 - rank), outer = ranks / 2 - h - 1;
  constexpr bool kNear = false, kFar = true;
  RankOps ops(rank < ranks / 2 ? 0 : 1);
  for (int i = 0; i < 2 * outer; ++i) ops.forward(kNear);
  for (int i = 0; i < h + 1; ++i) ops.forward(kNear), ops.forward(kFar);
  for (int i = 0; i < outer; ++i) ops.backward(kFar, false), ops.weights(), ops.forward(kFar);
  for (int i = 0; i < microbatches / 2 - ranks + h + 1; ++i) ops.together(kNear), ops.together(kFar);
  for (int i = 0; i < outer; ++i) ops.backward(kFar, true), ops.together(kFar);
  // Of these the last half leaves its weights for the gaps that follow.
  for (int i = 0; i < 2 * (h + 1); ++i) ops.backward(i % 2 == 0 ? kFar : kNear, i < h + 1);
  for (int i = 0; i < outer; ++i) ops.weights(), ops.backward(kNear, false);
  for (int i = 0; i < h + 1; ++i) ops.weights();
  return ops.take();
}

// When each rank's k-th chunk of a way was done, forward and backward.
struct Done {
  std::array<std::vector<double>, 2> forward, backward;
};

class Run {
 public:
  Run(const Pipe& pipe, const ChunkSeconds& seconds, double message)
      : pipe_(pipe), seconds_(seconds), message_(message), done_(pipe.size()), next_(pipe.size()), free_(pipe.size()) {
    time_.ranks.resize(pipe.size());
  }

  PipeTime run() {
    for (bool moved = true; moved;) {
      moved = false;
      for (std::size_t rank = 0; rank < pipe_.size(); ++rank)
        while (step(rank)) moved = true;
    }
    for (std::size_t rank = 0; rank < pipe_.size(); ++rank) {
      CHECK(next_[rank] == pipe_[rank].size(), "the schedule of rank {} waits for itself at op {}", rank, next_[rank]);
      time_.seconds = std::max(time_.seconds, free_[rank]);
    }
    for (RankTime& rank : time_.ranks)
      rank.bubble = time_.seconds - rank.forward - rank.together - rank.backward - rank.weights;
    return time_;
  }

 private:
  // When what a chunk reads is there; negative: not known yet.
  double ready(const std::vector<double>& there, std::size_t index, double message) const {
    return index < there.size() ? there[index] + message : -1;
  }
  double forward_ready(std::size_t rank, int way) const {
    const auto w = static_cast<std::size_t>(way);
    const bool enters = rank == (way == 0 ? 0 : pipe_.size() - 1);
    if (enters) return 0;
    return ready(done_[way == 0 ? rank - 1 : rank + 1].forward[w], done_[rank].forward[w].size(), message_);
  }
  double backward_ready(std::size_t rank, int way) const {
    const auto w = static_cast<std::size_t>(way);
    const bool turns = rank == (way == 0 ? pipe_.size() - 1 : 0);
    const std::size_t index = done_[rank].backward[w].size();
    if (turns) return ready(done_[rank].forward[w], index, 0);
    return ready(done_[way == 0 ? rank + 1 : rank - 1].backward[w], index, message_);
  }

  bool step(std::size_t rank) {
    if (next_[rank] == pipe_[rank].size()) return false;
    const PipeOp& op = pipe_[rank][next_[rank]];
    double begin = free_[rank];
    for (const double there : {op.forward_way < 0 ? 0 : forward_ready(rank, op.forward_way),
                               op.backward_way < 0 ? 0 : backward_ready(rank, op.backward_way)}) {
      if (there < 0) return false;
      begin = std::max(begin, there);
    }
    const double lasts = seconds_.of(op.chunk);
    free_[rank] = begin + lasts;
    if (op.forward_way >= 0) done_[rank].forward[static_cast<std::size_t>(op.forward_way)].push_back(free_[rank]);
    if (op.backward_way >= 0) done_[rank].backward[static_cast<std::size_t>(op.backward_way)].push_back(free_[rank]);
    bin(time_.ranks[rank], op.chunk) += lasts;
    ++next_[rank];
    return true;
  }

  static double& bin(RankTime& rank, Chunk chunk) {
    if (chunk == Chunk::forward) return rank.forward;
    if (chunk == Chunk::together) return rank.together;
    return chunk == Chunk::weights ? rank.weights : rank.backward;
  }

  const Pipe& pipe_;
  const ChunkSeconds& seconds_;
  double message_;
  std::vector<Done> done_;
  std::vector<std::size_t> next_;  // op
  std::vector<double> free_;
  PipeTime time_;
};

}  // namespace

double ChunkSeconds::of(Chunk chunk) const {
  if (chunk == Chunk::forward) return forward;
  if (chunk == Chunk::together) return together;
  if (chunk == Chunk::backward) return backward;
  return chunk == Chunk::weights ? weights : backward_whole;
}

Pipe dualpipe(int ranks, int microbatches) {
  CHECK(ranks >= 2 && ranks % 2 == 0, "DualPipe needs an even number of ranks, not {}", ranks);
  CHECK(microbatches % 2 == 0 && microbatches >= 2 * ranks,
        "DualPipe needs an even number of microbatches, {}.., not {}", 2 * ranks, microbatches);
  Pipe pipe;
  for (int rank = 0; rank < ranks; ++rank) pipe.push_back(ops_of(rank, ranks, microbatches));
  return pipe;
}

PipeTime run_in_order(const Pipe& pipe, const ChunkSeconds& seconds, double message_seconds) {
  return Run(pipe, seconds, message_seconds).run();
}

double dualpipe_bubble(int ranks, const ChunkSeconds& seconds) {
  return (ranks / 2.0 - 1) * (seconds.together + seconds.backward_whole - 3 * seconds.weights);
}

}  // namespace troupe
