// DualPipe, the schedule of DeepSeek-V3 (arXiv 2412.19437, section 3.2.1), as a value that is run in order: two ways
// through the ranks, each fed from its own end, every rank with a stage of either way.
// With h the distance to the nearer end, n = ranks / 2 and m microbatches a way, a rank's phases are
//   2(n-h-1) F | (h+1) F F' | (n-h-1) B' W F' | (m - ranks + h + 1) (F B')(F' B) | (n-h-1) B' (F' B) | (h+1) B' B |
//   (n-h-1) W B | (h+1) W,
// primes for the way from the far end, brackets for a forward and a backward that run together.
#pragma once

#include <vector>

namespace troupe {

enum class Chunk { forward, together, backward, backward_whole, weights };

// backward is of the inputs alone and leaves the weights' for later; backward_whole does both.
struct ChunkSeconds {
  double forward = 0, together = 0, backward = 0, backward_whole = 0, weights = 0;
  double of(Chunk chunk) const;
};

struct PipeOp {
  Chunk chunk = Chunk::forward;
  int forward_way = -1, backward_way = -1;  // 0: from rank 0; 1: from the last; -1: none
};
using Pipe = std::vector<std::vector<PipeOp>>;  // by rank

// REQUIRES: ranks is even, microbatches (of both ways) is even and at least 2 ranks.
Pipe dualpipe(int ranks, int microbatches);

struct RankTime {
  double forward = 0, together = 0, backward = 0, weights = 0, bubble = 0;  // seconds
};
struct PipeTime {
  double seconds = 0;
  std::vector<RankTime> ranks;  // each sums to seconds
};
// Every rank does its ops in order, each as soon as what it reads is there. A message takes message_seconds.
PipeTime run_in_order(const Pipe& pipe, const ChunkSeconds& seconds, double message_seconds);

// The bubble by table 2 of the report: (ranks/2 - 1)(F&B + B - 3W), B whole.
double dualpipe_bubble(int ranks, const ChunkSeconds& seconds);

}  // namespace troupe
