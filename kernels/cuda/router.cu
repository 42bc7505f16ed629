// The gate of DeepSeek-V3 (formulas and shapes: kernels/op.h); float32, outputs assigned, the bits of the CPU's kernel.
// A warp has a row: choice = scores + bias with the lesser groups at -infinity, the best K by choice, ties to the lower
// index, weights from the unbiased scores, summed in slot order. Then the plan, sorted by (expert, token): each block of
// rows has counted its experts, a scan over the blocks tells where each of them begins, and the block places its rows
// in order. Whole numbers only: no order of threads changes a place.
// Moves the scores twice (they are just written: from the L2 cache), and the plan.
#include "kernels/cuda/router_balance.h"

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/math.h"
#include "kernels/cuda/threads.h"
#include "kernels/cuda/view.h"

namespace troupe::cuda {

namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps, kPlanRows = 32;  // rows of a block: four a warp

struct Gate {
  View bias, scores, indices, weights;
  int groups, groups_kept, rows_per_sequence;
  bool normalize, reuse_indices;
  float scaling;
};

// A warp's memory for a row.
struct Slate {
  float *choice, *worth;  // (E), (groups)
  unsigned* order;        // (E)
  int* best;              // (K)

  static __host__ __device__ int words(int experts, int groups, int slots) { return 2 * experts + groups + slots; }
  __device__ Slate(float* memory, int experts, int groups)
      : choice(memory),
        worth(memory + experts),
        order(reinterpret_cast<unsigned*>(worth + groups)),
        best(reinterpret_cast<int*>(order + experts)) {}
};

constexpr unsigned kTaken = 0, kNoNumber = 1;  // below the order of any number

// pick_best for few values: a thread holds its own.
template <int own>
__device__ void pick_held(const float* values, int size, int count, int* best) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  unsigned held[own];
#pragma unroll
  for (int i = 0; i < own; ++i) {
    const int e = lane + 32 * i;
    const float value = e < size ? values[e] : 0.0F;
    held[i] = e >= size ? kTaken : value == value ? order_of(value) : kNoNumber;
  }
  for (int k = 0; k < count; ++k) {
    unsigned greatest = kTaken, at = 0xFFFFFFFFU;
#pragma unroll
    for (int i = 0; i < own; ++i)
      if (held[i] > greatest) greatest = held[i], at = static_cast<unsigned>(lane + 32 * i);
    const unsigned winner = __reduce_max_sync(kWarp, greatest);
    const unsigned place = __reduce_min_sync(kWarp, greatest == winner ? at : 0xFFFFFFFFU);
    if (lane == 0) best[k] = static_cast<int>(place);
#pragma unroll
    for (int i = 0; i < own; ++i)
      if (static_cast<unsigned>(lane + 32 * i) == place) held[i] = kTaken;
  }
  __syncwarp();
}

// best[0..count): the indices of the greatest values in falling order, ties to the lower index.
__device__ void pick_best(const float* values, int size, int count, unsigned* order, int* best) {
  if (size <= 64) return pick_held<2>(values, size, count, best);
  if (size <= 256) return pick_held<8>(values, size, count, best);
  const int lane = static_cast<int>(threadIdx.x % 32);
  unsigned greatest = kTaken, at = 0xFFFFFFFFU;  // of the lane's own, in rising order: the lower index wins
  const auto see = [&](int e) {
    if (order[e] > greatest) greatest = order[e], at = static_cast<unsigned>(e);
  };
  for (int e = lane; e < size; e += 32) {
    order[e] = values[e] == values[e] ? order_of(values[e]) : kNoNumber;
    see(e);
  }
  for (int k = 0; k < count; ++k) {
    const unsigned winner = __reduce_max_sync(kWarp, greatest);
    const unsigned place = __reduce_min_sync(kWarp, greatest == winner ? at : 0xFFFFFFFFU);
    if (lane == 0) best[k] = static_cast<int>(place);
    if (at != place) continue;
    order[place] = kTaken;
    greatest = kTaken, at = 0xFFFFFFFFU;
    for (int e = lane; e < size; e += 32) see(e);
  }
  __syncwarp();
}

// The sum of a group's two best choices.
__device__ float worth_of(const float* choice, int size) {
  float first = choice[0], second = size > 1 ? choice[1] : 0.0F;
  if (size > 1 && second > first) {
    const float swapped = first;
    first = second, second = swapped;
  }
  for (int e = 2; e < size; ++e) {
    const float value = choice[e];
    if (value > first)
      second = first, first = value;
    else if (value > second)
      second = value;
  }
  return first + second;
}

// Sets the choices outside the best groups to -infinity.
__device__ void mask_groups(const Gate& op, const Slate& slate, int experts) {
  const int lane = static_cast<int>(threadIdx.x % 32), size = experts / op.groups;
  for (int g = lane; g < op.groups; g += 32) slate.worth[g] = worth_of(slate.choice + g * size, size);
  __syncwarp();
  for (int g = lane; g < op.groups; g += 32) {
    int better = 0;
    for (int other = 0; other < op.groups; ++other)
      if (slate.worth[other] > slate.worth[g] || (slate.worth[other] == slate.worth[g] && other < g)) ++better;
    if (better >= op.groups_kept)
      for (int e = 0; e < size; ++e) slate.choice[g * size + e] = -INFINITY;
  }
  __syncwarp();
}

__device__ void choose(const Gate& op, std::int64_t t, const Slate& slate) {
  const int lane = static_cast<int>(threadIdx.x % 32), experts = static_cast<int>(op.scores.cols),
            slots = static_cast<int>(op.indices.cols);
  const auto* scores = op.scores.at<const float>(t, 0);
  const auto* bias = op.bias.at<const float>(0, 0);
  for (int e = lane; e < experts; e += 32) slate.choice[e] = scores[e] + bias[e];
  __syncwarp();
  if (op.groups > 1) mask_groups(op, slate, experts);
  pick_best(slate.choice, experts, slots, slate.order, slate.best);
  for (int k = lane; k < slots; k += 32) *op.indices.at<std::int32_t>(t, k) = slate.best[k];
}

__device__ void weigh(const Gate& op, std::int64_t t, const int* best) {
  const int slots = static_cast<int>(op.indices.cols);
  const auto* scores = op.scores.at<const float>(t, 0);
  float total = 0;
  for (int k = 0; k < slots; ++k) total += scores[best[k]];
  for (int k = static_cast<int>(threadIdx.x % 32); k < slots; k += 32) {
    const float score = scores[best[k]];
    *op.weights.at<float>(t, k) = (op.normalize ? score / (total + kTiny) : score) * op.scaling;
  }
}

// A row's share of its sequence's balance, by the K best raw scores; they are counted in `chosen`.
__device__ void note_balance(const Gate& op, std::int64_t t, const Slate& slate, const RowsBalance& balance,
                             int* chosen) {
  const int lane = static_cast<int>(threadIdx.x % 32), experts = static_cast<int>(op.scores.cols),
            slots = static_cast<int>(op.indices.cols);
  const auto* scores = op.scores.at<const float>(t, 0);
  const float total = fold_row(experts, [&](float sum, int e) { return sum + scores[e]; });
  for (int e = lane; e < balance.pitch; e += 32)
    balance.quotients[t * balance.pitch + e] = e < experts ? scores[e] / total : 0.0F;
  pick_best(scores, experts, slots, slate.order, slate.best);
  for (int k = lane; k < slots; k += 32) atomicAdd(&chosen[slate.best[k]], 1);
  __syncwarp();
}

// counts[e, b]: of block b's rows.
__global__ void __launch_bounds__(kThreads) router_rows(Gate op, RowsBalance balance, int* counts) {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int experts = static_cast<int>(op.scores.cols), slots = static_cast<int>(op.indices.cols);
  int *own = dynamic_shared<int>(), *chosen = own + experts;
  auto* memory = reinterpret_cast<float*>(chosen + experts);
  const Slate slate(memory + warp * Slate::words(experts, op.groups, slots), experts, op.groups);
  for (int e = static_cast<int>(threadIdx.x); e < experts; e += kThreads) own[e] = chosen[e] = 0;
  __syncthreads();
  const std::int64_t begin = std::int64_t{blockIdx.x} * kPlanRows, end = min(begin + kPlanRows, op.scores.rows);
  const auto sequence_of = [&](std::int64_t t) { return balance.chosen != nullptr ? t / op.rows_per_sequence : 0; };
  const std::int64_t sequence = sequence_of(begin);
  const bool alone = sequence == sequence_of(end - 1);  // all rows are of one sequence
  for (std::int64_t t = begin + warp; t < end; t += kWarps) {
    if (op.reuse_indices) {
      for (int k = lane; k < slots; k += 32) {
        slate.best[k] = *op.indices.at<const std::int32_t>(t, k);
        insist(slate.best[k] >= 0 && slate.best[k] < experts);
      }
      __syncwarp();
    } else {
      choose(op, t, slate);
    }
    weigh(op, t, slate.best);
    for (int k = lane; k < slots; k += 32) atomicAdd(&own[slate.best[k]], 1);
    __syncwarp();
    if (balance.chosen != nullptr)
      note_balance(op, t, slate, balance, alone ? chosen : balance.chosen + sequence_of(t) * experts);
  }
  __syncthreads();
  for (int e = static_cast<int>(threadIdx.x); e < experts; e += kThreads) {
    counts[std::int64_t{e} * gridDim.x + blockIdx.x] = own[e];
    if (balance.chosen != nullptr && chosen[e] > 0) atomicAdd(&balance.chosen[sequence * experts + e], chosen[e]);
  }
}

// Sums of a warp's values up to and with the thread's own.
__device__ int scan_warp(int value) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  for (int distance = 1; distance < 32; distance *= 2) {
    const int before = __shfl_up_sync(kWarp, value, static_cast<unsigned>(distance));
    if (lane >= distance) value += before;
  }
  return value;
}

// counts[e, b] becomes the number of the expert's rows in blocks before b; totals: of all blocks, and a copy of them, as
// the host's memory may be far. A warp an expert.
__device__ void scan_blocks(int* counts, int blocks, const View& totals, int* near_totals) {
  const int e = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (e >= totals.cols) return;
  int* own = counts + std::int64_t{e} * blocks;
  int before = 0, next = lane < blocks ? own[lane] : 0;
  for (int first = 0; first < blocks; first += 32) {
    const int b = first + lane, count = next;
    next = b + 32 < blocks ? own[b + 32] : 0;  // under way while this one is added
    const int through = scan_warp(count);
    if (b < blocks) own[b] = before + through - count;
    before += __shfl_sync(kWarp, through, 31);
  }
  if (lane == 0) *totals.at<std::int32_t>(0, e) = near_totals[e] = before;
}

// The first blocks scan, then each has a sequence: neither waits for the other.
__global__ void __launch_bounds__(kThreads) close_rows(int* counts, int blocks, View totals, int* near_totals,
                                                       unsigned scans, const __grid_constant__ Balance balance) {
  if (blockIdx.x < scans)
    scan_blocks(counts, blocks, totals, near_totals);
  else
    balance_sequence(balance, blockIdx.x - scans);
}

struct Plan {
  View indices, weights, position, sorted_token, sorted_weight, counts;
};

// next[e]: where the first row of expert e in this block stands.
__device__ void find_places(const Plan& op, const int* totals, const int* before, int* next) {
  const int experts = static_cast<int>(op.counts.cols), lane = static_cast<int>(threadIdx.x);
  if (threadIdx.x >= 32) return;
  int begin = 0;
  for (int first = 0; first < experts; first += 32) {
    const int e = first + lane, count = e < experts ? totals[e] : 0;
    const int through = scan_warp(count);
    if (e < experts) next[e] = begin + through - count + before[std::int64_t{e} * gridDim.x + blockIdx.x];
    begin += __shfl_sync(kWarp, through, 31);
  }
}

// A thread has a slot of a row; how many before it in the block have its expert tells its place.
__global__ void __launch_bounds__(kThreads) place_rows(Plan op, const int* totals, const int* before) {
  const int slots = static_cast<int>(op.indices.cols);
  int *chosen = dynamic_shared<int>(), *next = chosen + kPlanRows * slots;
  const std::int64_t begin = std::int64_t{blockIdx.x} * kPlanRows;
  const int count = static_cast<int>(min(std::int64_t{kPlanRows}, op.indices.rows - begin)) * slots;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads)
    chosen[i] = *op.indices.at<const std::int32_t>(begin + i / slots, i % slots);
  find_places(op, totals, before, next);
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) {
    const std::int64_t t = begin + i / slots;
    const float weight = *op.weights.at<const float>(t, i % slots);
    const int e = chosen[i];
    int place = next[e];
#pragma unroll 4
    for (int j = 0; j < i / 4; ++j) {
      const uint4 four = reinterpret_cast<const uint4*>(chosen)[j];
      for (const unsigned other : {four.x, four.y, four.z, four.w}) place += static_cast<int>(other) == e ? 1 : 0;
    }
    for (int j = i / 4 * 4; j < i; ++j) place += chosen[j] == e ? 1 : 0;
    *op.position.at<std::int32_t>(t, i % slots) = place;
    *op.sorted_token.at<std::int32_t>(place, 0) = static_cast<std::int32_t>(t);
    *op.sorted_weight.at<float>(place, 0) = weight;
  }
}

}  // namespace

void run(const Router& op, Queue& queue) {
  const auto experts = static_cast<int>(op.scores.cols), slots = static_cast<int>(op.indices.cols);
  const RowsBalance balance = op.sequence_fraction ? rows_balance(op, queue) : RowsBalance{};
  router_scores(op, balance, queue);
  const Gate gate{.bias = op.bias,
                  .scores = op.scores,
                  .indices = op.indices,
                  .weights = op.weights,
                  .groups = op.groups,
                  .groups_kept = op.groups_kept,
                  .rows_per_sequence = op.rows_per_sequence,
                  .normalize = op.normalize,
                  .reuse_indices = op.reuse_indices,
                  .scaling = op.scaling};
  const unsigned blocks = blocks_for(op.x.rows, kPlanRows);
  int *counts = queue.take<int>(std::int64_t{blocks} * experts), *totals = queue.take<int>(experts);
  const auto words = static_cast<std::size_t>(2 * experts + kWarps * Slate::words(experts, op.groups, slots));
  launch(queue, blocks, kThreads, words * sizeof(int), router_rows, gate, balance, counts);
  const unsigned scans = blocks_for(experts, kWarps);
  launch(queue, scans + static_cast<unsigned>(op.sequence_fraction.rows), kThreads,
         op.sequence_fraction ? balance_bytes(experts) : 0, close_rows, counts, static_cast<int>(blocks), op.counts,
         totals, scans, balance_of(op, balance));
  const Plan plan{.indices = op.indices,
                  .weights = op.weights,
                  .position = op.position,
                  .sorted_token = op.sorted_token,
                  .sorted_weight = op.sorted_weight,
                  .counts = op.counts};
  launch(queue, blocks, kThreads, static_cast<std::size_t>(experts + kPlanRows * slots) * sizeof(int), place_rows, plan,
         totals, counts);
}

}  // namespace troupe::cuda
