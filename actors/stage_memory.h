// The memory of a stage: microbatch slots (activations of every layer of the stage), and key-value caches.
#pragma once

#include <vector>

#include "actors/config.h"
#include "actors/rules/placement.h"
#include "kernels/device.h"
#include "kernels/model/head.h"
#include "kernels/model/layer.h"

namespace troupe {

// What one microbatch lives in, from its arrival until its weight gradients are done. What messages bring and what the
// stage reads is shared memory; all else is the device's.
struct StageSlot {
  // Shared.
  Tensor ids, targets, positions, spans;                       // (N,1), (N,1), (N,1), (N,4) i32
  Tensor cache_rows, sample_rows, counters, tokens, logprobs;  // generation
  Tensor kept;                                                 // (N, words) i32: sampling's, last stage
  Tensor policy, results;                                      // (N, 4), (N, 5) f32: of PolicyLoss, last stage
  Tensor mtp_spans;                                            // (N', 4) i32
  // The device's, but for counts, balance, losses and MtpSlot's i32.
  BatchTensors near;      // copies of what many ops read of the batch: ids for a first stage, targets for a last
  Tensor input_gradient;  // (N, D) f32, first stage: dL/d(embedded tokens)
  std::vector<LayerSlot> layers;  // of the stage's run
  SlotScratch scratch;
  HeadSlot head;  // last stage
  MtpSlot mtp;    // last stage with multi-token prediction
  LayerSlot mtp_layer;
  HeadSlot mtp_head;
};

StageSlot carve_slot(Carver& carver, const Config& config, const StageShape& shape);
struct SlotBytes {
  std::size_t device = 0, shared = 0;
};
SlotBytes slot_bytes(const Config& config, const StageShape& shape);

// Keys and values of `rows` cached tokens for every layer of the run.
std::vector<LayerCache> carve_caches(Carver& carver, const Config& config, const StageShape& shape, std::int64_t rows);
std::size_t cache_bytes(const Config& config, const StageShape& shape);

Dtype activation_type(const Config& config);

// Gradient accumulators of shared tensors' other uses, behind the stage's own: head 1, MTP embedding 2, MTP head 3. None where
// they are frozen.
struct SharedUse {
  int use = 0;
  std::string parameter;   // whose gradient it is
  std::int64_t begin = 0;  // in the extra accumulators
  std::int64_t rows = 0, cols = 0;
};
std::vector<SharedUse> shared_uses(const Config& config, const StageShape& shape);
std::int64_t shared_elements(const std::vector<SharedUse>& uses);
// A last stage that isn't the first reads the embedding through a copy when the head is tied or MTP embeds tokens.
bool reads_embedding_copy(const Config& config, const StageShape& shape);

}  // namespace troupe
