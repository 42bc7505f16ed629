// What attention's kernels share: an op as they see it, and the tiles of its spans.
// A tile is up to so many rows of a span, counted from the span's first. Rows are keys, or queries; where the query heads
// of a key head go together, a row is a query of one of them, a query's heads side by side: row r is query r / group.
#pragma once

#include "kernels/cuda/runtime.h"
#include "kernels/cuda/view.h"
#include "kernels/op.h"

namespace troupe::cuda {

constexpr float kLog2OfE = 1.44269504F;

struct AttentionViews {
  View spans, q, k, k_shared, v, out, row_max, row_scale;
  int heads, kv_heads, group, own_dim, shared_dim, dim, v_dim;
  std::int64_t k_head_stride, v_head_stride;
  float scale;

  AttentionViews(const Attention& op)  // NOLINT: an Attention is one
      : spans(op.spans),
        q(op.q),
        k(op.k),
        k_shared(op.k_shared),
        v(op.v),
        out(op.out),
        row_max(op.row_max),
        row_scale(op.row_scale),
        heads(op.heads),
        kv_heads(op.kv_heads),
        group(op.heads / op.kv_heads),
        own_dim(op.own_dim),
        shared_dim(op.shared_dim),
        dim(op.own_dim + op.shared_dim),
        v_dim(op.v_dim),
        k_head_stride(op.k_head_stride),
        v_head_stride(op.v_head_stride),
        scale(op.scale) {}
};

struct Tile {
  int q_begin = 0, q_count = 0, k_begin = 0, k_count = 0;  // the span; q_count 0: there is no tile
  int first = 0;                                           // row of the span

  // The keys that the span's query number `query` sees, from the span's first.
  __device__ int visible(int query) const { return k_count - q_count + query + 1; }
  // The first query that sees key number `key` of the span.
  __device__ int first_query(int key) const { return max(0, key - (k_count - q_count)); }
};

struct Tiles {
  const Tile* data;
  unsigned count;  // those behind the last are empty
  // The last of a span see the most keys: blocks that begin with them end together.
  __device__ Tile from_last(unsigned i) const { return data[count - 1 - i]; }
};

// Tiles of `size` rows in the spans' order. REQUIRES: no query (no key) is in two spans.
Tiles query_tiles(Queue& queue, const Attention& op, int group, int size);
Tiles key_tiles(Queue& queue, const Attention& op, int size);

// What the backward knows of a query row of a head before it looks at keys: (rows of q, heads).
struct RowFacts {
  float highest, share, mean, shift;  // row_max, row_scale, <dout, out>; P = 2^(log2 e s + shift)
};

// Any operands, in the CPU's order.
void attend_exactly(const Attention& op, Queue& queue);
void differentiate_exactly(const AttentionBackward& op, const RowFacts* facts, Queue& queue);

// bfloat16 operands on tensor cores. False, and nothing was done: heads are wider than these kernels know. Operands'
// types and widths alone decide, so that a row goes the same way in training and in decoding.
bool attend_flash(const Attention& op, Queue& queue);
bool flash_fits(const Attention& op);
void queries_gradient_flash(const AttentionBackward& op, const RowFacts* facts, Queue& queue);
void keys_gradient_flash(const AttentionBackward& op, const RowFacts* facts, Queue& queue);
// dk_shared[j, c] = sum_g shares[g, j, c], shares (kv_heads, keys, pitch), tiles of `size` keys.
void sum_key_shares(const AttentionBackward& op, const float* shares, int pitch, const Tiles& tiles, int size,
                    Queue& queue);

// The same on warpgroups. REQUIRES: groups_fit, which goes by heads' widths alone.
bool groups_fit(const Attention& op);
void attend_on_groups(const Attention& op, Queue& queue);
void queries_gradient_on_groups(const AttentionBackward& op, const RowFacts* facts, Queue& queue);
void keys_gradient_on_groups(const AttentionBackward& op, const RowFacts* facts, Queue& queue);

}  // namespace troupe::cuda
