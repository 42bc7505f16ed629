// token[t] ~ softmax(logits[t] / temperature) within the smallest set of probability >= top_p; logits: (N, V) f32.
// The set is taken in falling order of logit, ties to the lower index; the draw is the counter's alone:
// u = uniform(key, counter[t]) of the set's mass, walked in that order, with top_p 1 in order of index.
// temperature 0: the best logit. logprob[t] = logit / temperature (1 for 0) - log sum exp of it over that set, by the
// same rule as the losses (softmax_row.h). A block a row. Moves 4 bytes a logit once, and what isn't held in every pass.
//
// Nothing is sorted. A walk asks for the token at which the weights first exceed a target; it is found digit by digit,
// the weights of the tokens in question added up for each digit. Weights are whole units here, so that no order of
// additions changes a bit: 2^-44 of the best token's weight, where the CPU walks in float64. The two can differ in a
// token whose boundary is that near, as they can by their totals.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/random.h"
#include "kernels/cuda/softmax_row.h"

namespace troupe::cuda {

namespace {

constexpr int kDigits = 16, kDigitBits = 4, kGroup = 16;        // lanes that add up a digit's weights
constexpr int kHeldBySampler = 15 * kRowLanes;                  // beside the digits' weights and the words
constexpr std::int64_t kVocabularyMax = std::int64_t{1} << 18;  // whose units fit into 64 bits, and words into memory
constexpr float kUnits = 0x1p44F;

using Units = unsigned long long;

// Of a block's 227 KiB; the last one is for what isn't dynamic.
static_assert((kDigits + 1) * kRowThreads * sizeof(Units) + kVocabularyMax / 8 + kHeldBySampler * sizeof(float) <=
              226 * 1024);

struct Draws {
  View logits, counter, token, logprob, kept;
  std::uint64_t key;
  float temperature, top_p;
};

struct Place {
  unsigned order;  // of the logit
  int col;
  __device__ bool holds(unsigned other, int other_col) const {
    return other > order || (other == order && other_col <= col);
  }
};

// A block's memory. sums: (kDigits + 1, threads), the weights of each digit that a thread saw and the number of tokens.
struct Memory {
  Units* sums;
  std::int32_t* kept;
  float* held;
};

__device__ Units units_of(float weight) { return weight > 0 ? static_cast<Units>(weight * kUnits) : 0; }
__device__ Units units_of(float4 weights) {
  return units_of(weights.x) + units_of(weights.y) + units_of(weights.z) + units_of(weights.w);
}
__device__ Units fold_units(Units units) {
  return fold_block(units, Units{0}, [](Units a, Units b) { return a + b; });
}

// total[d] = sum over threads of sums[d, thread]; a group of lanes has a digit at a time.
__device__ void add_digits(const Units* sums, Units* total) {
  const int threads = static_cast<int>(blockDim.x), lane = static_cast<int>(threadIdx.x) % kGroup;
  for (int first = 0; first <= kDigits; first += threads / kGroup) {  // all lanes meet at the shuffles
    const int digit = first + static_cast<int>(threadIdx.x) / kGroup;
    Units sum = 0;
    if (digit <= kDigits)
      for (int i = lane; i < threads; i += kGroup) sum += sums[digit * threads + i];
    for (int distance = kGroup / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(kWarp, sum, distance);
    if (digit <= kDigits && lane == 0) total[digit] = sum;
  }
}

struct Narrowed {
  int digit;   // negative: the target isn't reached
  Place only;  // of the single token in question, if `found`
  bool found;
};

// One digit of the token looked for, the greatest first. digit_of(order, col): kDigits or more if not in question.
// target: becomes what is left for the tokens of that digit.
template <typename DigitOf>
__device__ Narrowed narrow(const ScaledRow& row, float highest, Units* sums, Units& target, DigitOf digit_of) {
  __shared__ Units total[kDigits + 1];
  __shared__ Place only;
  Units* own = sums + threadIdx.x;
  const int step = static_cast<int>(blockDim.x);
  for (int d = 0; d < kDigits; ++d) own[d * step] = 0;
  Units count = 0;
  Place last{0, 0};
  const auto see = [&](int col, float scaled) {
    const unsigned order = order_of(scaled), digit = digit_of(order, col);
    if (digit >= kDigits) return;
    const Units units = units_of(exponential(scaled - highest));
    if (units == 0) return;
    own[static_cast<int>(digit) * step] += units;
    ++count;
    last = {order, col};
  };
  each_quad(row, [&](int c, float4 scaled) {
    see(c, scaled.x);
    see(c + 1, scaled.y);
    see(c + 2, scaled.z);
    see(c + 3, scaled.w);
  });
  own[kDigits * step] = count;
  __syncthreads();
  add_digits(sums, total);
  __syncthreads();
  if (count == 1 && total[kDigits] == 1) only = last;
  __syncthreads();
  int digit = kDigits - 1;
  while (digit >= 0 && target >= total[digit]) target -= total[digit--];
  return {digit, only, total[kDigits] == 1};
}

// In falling order of logits, ties to the lower column, or in order of columns alone: the token whose weight, with
// those before it, is the first to exceed `target`. If all of them don't: a place behind all.
template <bool by_column>
__device__ Place find(const ScaledRow& row, float highest, Units* sums, Units target) {
  Place at{0, -1};
  if (!by_column)
    for (int shift = 32 - kDigitBits; shift >= 0; shift -= kDigitBits) {
      const Narrowed next =
          narrow(row, highest, sums, target, [&](unsigned order, int) { return (order ^ at.order) >> shift; });
      if (next.digit < 0) return at;
      if (next.found) return next.only;
      at.order |= static_cast<unsigned>(next.digit) << shift;
    }
  int shift = 0;
  while (row.cols >> shift > kDigits) shift += kDigitBits;
  const unsigned most = (static_cast<unsigned>(kDigits) << shift) - 1;  // of `before`, which falls with the column
  unsigned before = 0;
  for (; shift >= 0; shift -= kDigitBits) {
    const Narrowed next = narrow(row, highest, sums, target, [&](unsigned order, int col) {
      return by_column || order == at.order ? ((most - static_cast<unsigned>(col)) ^ before) >> shift : kDigits;
    });
    if (next.digit < 0) return at;
    if (next.found) return next.only;
    before |= static_cast<unsigned>(next.digit) << shift;
  }
  at.col = static_cast<int>(most - before);
  return at;
}

// Bits of the tokens up to `cut`, in shared memory.
__device__ void keep_through(const ScaledRow& row, Place cut, std::int32_t* kept) {
  const int lane = static_cast<int>(threadIdx.x % 32), warps = static_cast<int>(blockDim.x / 32);
  for (int word = static_cast<int>(threadIdx.x / 32); word * 32 < row.cols; word += warps) {
    const int col = word * 32 + lane;
    const bool inside = col < row.cols && cut.holds(order_of(row.at(col)), col);
    const unsigned bits = __ballot_sync(kWarp, inside ? 1 : 0);
    if (lane == 0) kept[word] = static_cast<std::int32_t>(bits);
  }
  __syncthreads();
}

__device__ int best_of(const ScaledRow& row, float highest) {
  int best = row.cols;
  const auto see = [&](int col, float scaled) {
    if (scaled == highest) best = min(best, col);
  };
  each_quad(row, [&](int c, float4 v) {
    see(c, v.x);
    see(c + 1, v.y);
    see(c + 2, v.z);
    see(c + 3, v.w);
  });
  best = fold_block(best, row.cols, [](int a, int b) { return min(a, b); });
  return best < row.cols ? best : 0;  // nothing is the highest where nothing is a number
}

struct Drawn {
  int token;
  float total;  // of the set it was drawn from
};

__device__ Drawn draw(const Draws& op, std::int64_t t, const ScaledRow& row, float highest, const Memory& memory) {
  const bool truncated = op.top_p < 1;
  Units mass = 0;
  const auto weigh_units = [&](int, float4, float4 weights) { mass += units_of(weights); };
  const auto look = [](int, float4, float4) {};
  float total = truncated ? total_of(row, highest, nullptr, look) : total_of(row, highest, nullptr, weigh_units);
  if (truncated) {
    const double needed = ceil(static_cast<double>(op.top_p) * total * static_cast<double>(kUnits));
    const Units short_of = needed >= 1 ? static_cast<Units>(needed) - 1 : 0;
    keep_through(row, find<false>(row, highest, memory.sums, short_of), memory.kept);
    total = total_of(row, highest, memory.kept, weigh_units);
  }
  mass = fold_units(mass);
  if (mass == 0) return {0, total};  // not a number
  const auto* counter = op.counter.at<const std::int32_t>(t, 0);
  const double u = uniform(op.key, static_cast<std::uint32_t>(counter[0]), static_cast<std::uint32_t>(counter[1]));
  const Units target = min(static_cast<Units>(u * static_cast<double>(mass)), mass - 1);
  const Place at =
      truncated ? find<false>(row, highest, memory.sums, target) : find<true>(row, highest, memory.sums, target);
  return {at.col, total};
}

__global__ void __launch_bounds__(kRowThreads, 1) sample_row(Draws op, int words) {
  const std::int64_t t = blockIdx.x;
  const bool draws = op.temperature > 0, truncated = draws && op.top_p < 1;
  Memory memory{};
  memory.sums = dynamic_shared<Units>();
  memory.kept = reinterpret_cast<std::int32_t*>(memory.sums + (draws ? (kDigits + 1) * blockDim.x : 0));
  memory.held = reinterpret_cast<float*>(memory.kept + (words + 3) / 4 * 4);
  const ScaledRow row(op.logits, t, draws ? op.temperature : 1.0F, memory.held, kHeldBySampler);
  const float highest = load_row(row);
  Drawn drawn{};
  if (draws)
    drawn = draw(op, t, row, highest, memory);
  else
    drawn = {best_of(row, highest), total_of(row, highest, nullptr, [](int, float4, float4) {})};
  if (threadIdx.x == 0) {
    *op.token.at<std::int32_t>(t, 0) = drawn.token;
    *op.logprob.at<float>(t, 0) = row.scaled(drawn.token) - log_total(drawn.total, highest);
  }
  if (op.kept)
    for (int word = static_cast<int>(threadIdx.x); word < words; word += static_cast<int>(blockDim.x))
      *op.kept.at<std::int32_t>(t, word) = truncated ? memory.kept[word] : -1;
}

}  // namespace

void run(const Sample& op, Queue& queue) {
  const std::int64_t cols = op.logits.cols, words = kept_words_of(cols);
  CHECK(cols <= kVocabularyMax, "sample: a vocabulary of {}, at most {}", cols, kVocabularyMax);
  const unsigned threads = row_threads(cols);
  const std::size_t sums = op.temperature > 0 ? (kDigits + 1) * threads * sizeof(Units) : 0,
                    bits = static_cast<std::size_t>((words + 3) / 4 * 4) * sizeof(std::int32_t);
  const Draws draws{.logits = op.logits,
                    .counter = op.counter,
                    .token = op.token,
                    .logprob = op.logprob,
                    .kept = op.kept,
                    .key = op.key,
                    .temperature = op.temperature,
                    .top_p = op.top_p};
  launch(queue, static_cast<unsigned>(op.logits.rows), threads, sums + bits + held_bytes(cols, kHeldBySampler),
         sample_row, draws, static_cast<int>(words));
}

}  // namespace troupe::cuda
