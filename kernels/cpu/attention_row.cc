// Attention for one query row a span: keys and values are read once, where they stand, and nothing is packed.
// The law is that of attention.cc, so a row has the same bits here as among others: each score is one chain over d, each
// output one chain over keys, in increasing order, and the softmax sums in lanes by the key's index in its span.
#include "kernels/cpu/attention.h"

#include <utility>

namespace troupe::cpu {

namespace {

constexpr int kGroupMax = 4;  // query heads of a key head: with more, packing the keys once is cheaper

inline Vec load_wide(const float* from) { return load(from); }
inline Vec load_wide(const std::uint16_t* from) {
  using Half [[gnu::vector_size(2 * kLanes)]] = std::uint16_t;
  using Word [[gnu::vector_size(4 * kLanes)]] = std::uint32_t;
  Half half;
  std::memcpy(&half, from, sizeof half);
  return Vec(__builtin_convertvector(half, Word) << 16);
}

// One step of a transposition: the off-diagonal blocks of `distance` lanes change places.
template <int distance, std::size_t... lane>
[[gnu::always_inline]] inline void exchange(Vec& a, Vec& b, std::index_sequence<lane...>) {
  const Vec low = __builtin_shufflevector(a, b, (lane & distance ? kLanes + lane - distance : lane)...);
  b = __builtin_shufflevector(a, b, (lane & distance ? kLanes + lane : lane + distance)...);
  a = low;
}
template <int distance>
[[gnu::always_inline]] inline void transpose(Vec* rows) {
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i)
    if ((i & distance) == 0) exchange<distance>(rows[i], rows[i + distance], std::make_index_sequence<kLanes>{});
  if constexpr (distance > 1) transpose<distance / 2>(rows);
}

// Asks for the memory of the next kLanes keys, a few lines at a time between sums: all at once they would fill the
// buffers of outstanding lines and the sums would wait behind them. Values that stand beside their keys come with them.
class NextKeys {
 public:
  NextKeys(const void* first, std::int64_t rows, std::int64_t row_bytes, std::int64_t stride_bytes)
      : at_(static_cast<const char*>(first)), rows_(rows), row_bytes_(row_bytes), stride_bytes_(stride_bytes) {}
  void fetch(std::int64_t lines) {
    for (; lines > 0 && rows_ > 0; --lines) {
      _mm_prefetch(at_ + offset_, _MM_HINT_T1);
      offset_ += kLine;
      if (offset_ < row_bytes_) continue;
      offset_ = 0;
      at_ += stride_bytes_;
      --rows_;
    }
  }
  static constexpr std::int64_t kLine = 64;

 private:
  const char* at_;
  std::int64_t rows_, row_bytes_, stride_bytes_, offset_ = 0;
};

// sum[lane] + sum_d query[d] keys[lane][d] for kLanes keys.
template <typename T>
Vec add_keys(Vec sum, const float* query, const T* const* keys, std::int64_t depth, NextKeys& ahead,
             std::int64_t lines) {
  std::int64_t d = 0;
  for (; d + kLanes <= depth; d += kLanes) {
    ahead.fetch(lines);
    Vec rows[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) rows[i] = load_wide(keys[i] + d);
    transpose<kLanes / 2>(rows);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) sum = fused(broadcast(query[d + i]), rows[i], sum);
  }
  for (; d < depth; ++d) {
    float column[kLanes];
    for (int i = 0; i < kLanes; ++i) column[i] = read_one(keys[i] + d);
    sum = fused(broadcast(query[d]), load(column), sum);
  }
  return sum;
}

// to[c] = scale * sum_j weights[j] values[j, c] for `vectors` vectors of columns.
template <int vectors, typename T>
void add_values(const float* weights, std::int64_t count, const T* values, std::int64_t stride, float scale,
                float* to) {
  Vec sum[vectors] = {};
  for (std::int64_t j = 0; j < count; ++j, values += stride) {
    const Vec weight = broadcast(weights[j]);
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) sum[v] = fused(weight, load_wide(values + v * kLanes), sum[v]);
  }
  for (int v = 0; v < vectors; ++v) store(to + v * kLanes, sum[v] * scale);
}

template <typename T>
class Rows {
 public:
  Rows(const Attention& op, std::int64_t keys_max, Scratch& scratch)
      : op_(op), dim_(op.own_dim + op.shared_dim), step_(round_up(keys_max, kLanes)) {
    scores_ = scratch.take<float>(step_ * op.heads);
    query_ = scratch.take<float>(op.q.cols);
    out_ = scratch.take<float>(round_up(op.out.cols, kLanes));
    const std::int64_t sums = std::max<std::int64_t>(1, op.heads * (op.own_dim / kLanes + op.shared_dim / kLanes));
    lines_ = (kLanes * row_bytes() / NextKeys::kLine + sums - 1) / sums;
  }

  void attend(std::int64_t row, std::int64_t first_key, std::int64_t keys) {
    const float* query = read_row(op_.q, row, query_);
    for (std::int64_t j = 0; j < keys; j += kLanes) score(query, first_key, j, keys);
    for (int head = 0; head < op_.heads; ++head) {
      float* scores = scores_ + head * step_;
      const float scale = soften(op_, scores, keys, row, head);
      mix(scores, head / group(), first_key, keys, scale, out_ + std::int64_t{head} * op_.v_dim);
    }
    write_row(op_.out, row, out_);
  }

 private:
  int group() const { return op_.heads / op_.kv_heads; }
  std::int64_t row_bytes() const {
    return std::min(op_.k.cols, std::int64_t{op_.kv_heads} * op_.k_head_stride) * static_cast<std::int64_t>(sizeof(T));
  }

  // Of keys j.. and all heads. Behind the last key stands the last once more, in lanes that nobody reads.
  void score(const float* query, std::int64_t first_key, std::int64_t j, std::int64_t keys) {
    const T *own[kLanes], *shared[kLanes];
    const std::int64_t next = std::min(j + kLanes, keys);
    NextKeys ahead(op_.k.row<const T>(first_key + next), std::min<std::int64_t>(keys - next, kLanes), row_bytes(),
                   op_.k.stride * static_cast<std::int64_t>(sizeof(T)));
    for (int i = 0; i < kLanes; ++i) {
      const std::int64_t key = first_key + std::min(j + i, keys - 1);
      own[i] = op_.k.row<const T>(key);
      if (op_.shared_dim > 0) shared[i] = op_.k_shared.row<const T>(key);
    }
    for (int head = 0; head < op_.heads; ++head, query += dim_) {
      Vec sum = add_keys(Vec{}, query, own, op_.own_dim, ahead, lines_);
      if (op_.shared_dim > 0) sum = add_keys(sum, query + op_.own_dim, shared, op_.shared_dim, ahead, lines_);
      store(scores_ + head * step_ + j, sum);
      if ((head + 1) % group() == 0)
        for (const T*& one : own) one += op_.k_head_stride;
    }
  }

  void mix(const float* weights, int kv_head, std::int64_t first_key, std::int64_t keys, float scale, float* to) const {
    const T* values = op_.v.row<const T>(first_key) + std::int64_t{kv_head} * op_.v_head_stride;
    const std::int64_t stride = op_.v.stride;
    std::int64_t c = 0;
    for (; c + 4 * kLanes <= op_.v_dim; c += 4 * kLanes)
      add_values<4>(weights, keys, values + c, stride, scale, to + c);
    for (; c + kLanes <= op_.v_dim; c += kLanes) add_values<1>(weights, keys, values + c, stride, scale, to + c);
    for (; c < op_.v_dim; ++c) {
      float total = 0;
      for (std::int64_t j = 0; j < keys; ++j) total = fused(weights[j], read_one(values + j * stride + c), total);
      to[c] = total * scale;
    }
  }

  const Attention& op_;
  std::int64_t dim_, step_, lines_;
  float *scores_, *query_, *out_;
};

template <typename T>
void attend_all(const Attention& op, std::int64_t keys_max, Scratch& scratch) {
  Rows<T> rows(op, keys_max, scratch);
  for (std::int64_t s = 0; s < op.spans.rows; ++s) {
    const std::int32_t* span = op.spans.row<const std::int32_t>(s);
    if (span[1] == 1) rows.attend(span[0], span[2], span[3]);
  }
}

}  // namespace

bool attend_single_rows(const Attention& op, Scratch& scratch) {
  if (op.heads > kGroupMax * op.kv_heads || op.k.dtype != op.v.dtype) return false;
  if (op.shared_dim > 0 && op.k_shared.dtype != op.k.dtype) return false;
  std::int64_t keys_max = 0;
  for (std::int64_t s = 0; s < op.spans.rows; ++s) {
    const std::int32_t* span = op.spans.row<const std::int32_t>(s);
    if (span[1] > 1) return false;
    keys_max = std::max<std::int64_t>(keys_max, span[3]);
  }
  if (op.k.dtype == Dtype::f32)
    attend_all<float>(op, keys_max, scratch);
  else
    attend_all<std::uint16_t>(op, keys_max, scratch);
  return true;
}

}  // namespace troupe::cpu
