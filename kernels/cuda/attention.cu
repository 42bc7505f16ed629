// Attention and its backward (formulas and shapes: kernels/op.h): which kernels an op goes to, the tiles of its spans,
// and the sums <dout, out>, in 16 lanes as on the CPU. Spans stand in the GPU's memory: the host knows how many tiles
// there can be, a kernel lists those that there are.
#include "kernels/cuda/attention.h"


#include "kernels/cuda/kernels.h"

namespace troupe::cuda {

namespace {

constexpr int kListThreads = 256;
constexpr int kFactThreads = 128, kFactRowThreads = 4, kFactRows = kFactThreads / kFactRowThreads;

struct Listing {
  View spans;
  int group, size;
  bool of_keys;

  __device__ Tile span(std::int64_t s) const {
    const std::int32_t* row = spans.at<const std::int32_t>(s, 0);
    return {row[0], row[1], row[2], row[3], 0};
  }
  __device__ int rows(const Tile& t) const { return t.q_count == 0 ? 0 : of_keys ? t.k_count : t.q_count * group; }
  __device__ int tiles(const Tile& t) const { return (rows(t) + size - 1) / size; }
};

// One block; each thread lists a run of spans behind those of the threads before it.
__global__ void list_tiles(Listing listing, Tile* tiles, int count) {
  __shared__ int of_thread[kListThreads];
  const int thread = static_cast<int>(threadIdx.x), spans = static_cast<int>(listing.spans.rows);
  const int each = (spans + kListThreads - 1) / kListThreads, begin = min(thread * each, spans);
  const int end = min(begin + each, spans);
  int own = 0;
  for (int s = begin; s < end; ++s) own += listing.tiles(listing.span(s));
  of_thread[thread] = own;
  __syncthreads();
  int place = 0, all = 0;
  for (int i = 0; i < kListThreads; ++i) {
    if (i < thread) place += of_thread[i];
    all += of_thread[i];
  }
  for (int s = begin; s < end; ++s) {
    Tile t = listing.span(s);
    for (; t.first < listing.rows(t) && place < count; t.first += listing.size) tiles[place++] = t;
  }
  for (int i = all + thread; i < count; i += kListThreads) tiles[i] = Tile{};
}

Tiles list(Queue& queue, const Listing& listing, std::int64_t rows) {
  const auto count = static_cast<unsigned>(rows / listing.size + listing.spans.rows);
  if (count == 0) return {nullptr, 0};
  Tile* tiles = queue.take<Tile>(count);
  launch(queue, 1, kListThreads, 0, list_tiles, listing, tiles, static_cast<int>(count));
  return {tiles, count};
}

__global__ void note_facts(AttentionViews f, View dout, RowFacts* facts) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kFactRows + threadIdx.x / kFactRowThreads;
  const std::int64_t row = i / f.heads, head = i % f.heads, first = threadIdx.x % kFactRowThreads * 4;
  const bool inside = row < f.q.rows;
  float4 lanes = make_float4(0, 0, 0, 0);
  if (inside) {
    const View d = dout.columns(head * f.v_dim, f.v_dim), o = f.out.columns(head * f.v_dim, f.v_dim);
    for (std::int64_t c = first; c < f.v_dim; c += kFold) lanes = add_products(lanes, d.quad(row, c), o.quad(row, c));
  }
  const float mean = fold_sum(lanes);
  if (!inside || first != 0) return;
  const float highest = *f.row_max.at<const float>(row, head), share = *f.row_scale.at<const float>(row, head);
  facts[i] = {highest, share, mean, log2f(share) - highest * kLog2OfE};
}

bool all_half(const Attention& op) {
  return op.q.dtype == Dtype::bf16 && op.k.dtype == Dtype::bf16 && op.v.dtype == Dtype::bf16 &&
         (op.shared_dim == 0 || op.k_shared.dtype == Dtype::bf16);
}

}  // namespace

Tiles query_tiles(Queue& queue, const Attention& op, int group, int size) {
  return list(queue, {op.spans, group, size, false}, op.q.rows * group);
}
Tiles key_tiles(Queue& queue, const Attention& op, int size) {
  return list(queue, {op.spans, 1, size, true}, op.k.rows);
}

void run(const Attention& op, Queue& queue) {
  if (all_half(op) && groups_fit(op)) return attend_on_groups(op, queue);
  if (all_half(op) && attend_flash(op, queue)) return;
  attend_exactly(op, queue);
}

void run(const AttentionBackward& op, Queue& queue) {
  const Attention& f = op.forward;
  RowFacts* facts = queue.take<RowFacts>(f.q.rows * f.heads);
  launch(queue, blocks_for(f.q.rows * f.heads, kFactRows), kFactThreads, 0, note_facts, f, op.dout, facts);
  if (!all_half(f) || op.dout.dtype != Dtype::bf16 || !flash_fits(f)) return differentiate_exactly(op, facts, queue);
  (groups_fit(f) && rows_aligned(op.dout) ? queries_gradient_on_groups : queries_gradient_flash)(
      op, facts, queue);
  (groups_fit(f) && rows_aligned(op.dout) ? keys_gradient_on_groups : keys_gradient_flash)(op, facts,
                                                                                                          queue);
}

}  // namespace troupe::cuda
