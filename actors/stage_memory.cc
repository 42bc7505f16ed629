#include "actors/stage_memory.h"

#include <map>

#include "kernels/model/layer_views.h"

namespace troupe {

Dtype activation_type(const Config& config) { return config.is_mixed() ? Dtype::bf16 : Dtype::f32; }

namespace {

void carve_layers(Carver& c, const Config& config, const StageShape& shape, const SlotShape& rows, StageSlot& slot) {
  std::map<bool, LayerSlot> shared;  // with recomputation: one for dense layers, one for those with experts
  for (int l = shape.first_layer; l < shape.first_layer + shape.layers; ++l) {
    const bool moe = config.model.is_moe_layer(l);
    if (config.train.recompute && shared.contains(moe)) {
      slot.layers.push_back(carve_kept(c, config.model, l, rows, slot.scratch, shared[moe]));
    } else {
      slot.layers.push_back(carve_layer(c, config.model, l, rows, slot.scratch));
      shared[moe] = slot.layers.back();
    }
  }
}

}  // namespace

StageSlot carve_slot(Carver& c, const Config& config, const StageShape& shape) {
  StageSlot slot;
  const ModelConfig& m = config.model;
  const SlotShape main{config.microbatch_rows(), config.microbatch_sequences(), activation_type(config),
                       config.is_fp8(), config.is_fp8_attention()};
  const std::int64_t n = main.rows;
  slot.ids = c.shared_tensor(n, 1, Dtype::i32);
  slot.targets = c.shared_tensor(n, 1, Dtype::i32);
  slot.positions = c.shared_tensor(n, 1, Dtype::i32);
  slot.spans = c.shared_tensor(n, 4, Dtype::i32);
  if (shape.first) slot.near.ids = c.tensor(n, 1, Dtype::i32);
  if (shape.last) slot.near.targets = c.tensor(n, 1, Dtype::i32);
  slot.near.positions = c.tensor(n, 1, Dtype::i32);
  slot.near.spans = c.tensor(n, 4, Dtype::i32);
  slot.cache_rows = c.shared_tensor(n, 1, Dtype::i32);
  slot.sample_rows = c.shared_tensor(n, 1, Dtype::i32);
  slot.counters = c.shared_tensor(n, 2, Dtype::i32);
  slot.tokens = c.shared_tensor(n, 1, Dtype::i32);
  slot.logprobs = c.shared_tensor(n, 1, Dtype::f32);
  if (shape.first) slot.input_gradient = c.tensor(n, m.hidden_size, Dtype::f32);
  slot.scratch = carve_scratch(c, m, main);
  carve_layers(c, config, shape, main, slot);
  if (!shape.last) return slot;
  slot.head = carve_head(c, m, main);
  if (config.has_rollouts()) {
    slot.policy = c.shared_tensor(n, kPolicyInputs, Dtype::f32);
    slot.results = c.shared_tensor(n, kPolicyResults, Dtype::f32);
  }
  if (config.truncates()) slot.kept = c.shared_tensor(n, config.kept_words(), Dtype::i32);
  if (!m.has_mtp()) return slot;
  const SlotShape next{main.rows - main.sequences, main.sequences, main.act, main.fp8, main.fp8_attention};
  slot.mtp = carve_mtp(c, m, main);
  slot.mtp_layer = carve_layer(c, m, m.num_hidden_layers, next, first_rows(slot.scratch, next.rows));
  slot.mtp_head = carve_head(c, m, next);
  slot.mtp_spans = c.shared_tensor(next.rows, 4, Dtype::i32);
  return slot;
}

SlotBytes slot_bytes(const Config& config, const StageShape& shape) {
  Carver measure;
  carve_slot(measure, config, shape);
  return {(measure.used() + 4095) / 4096 * 4096, (measure.shared_used() + 63) / 64 * 64};
}

std::vector<LayerCache> carve_caches(Carver& c, const Config& config, const StageShape& shape, std::int64_t rows) {
  std::vector<LayerCache> caches;
  const Dtype act = activation_type(config);
  const AttentionWidths width = attention_widths(config.model);
  for (int l = 0; l < shape.layers; ++l) {
    LayerCache cache;
    cache.kv = c.tensor(rows, width.kv, act);
    if (config.model.is_mla()) cache.k_rope = c.tensor(rows, config.model.qk_rope_head_dim, act);
    caches.push_back(cache);
  }
  return caches;
}

std::size_t cache_bytes(const Config& config, const StageShape& shape) {
  Carver measure;
  carve_caches(measure, config, shape,
               static_cast<std::int64_t>(config.generate.sequences_max) * config.generate_length());
  return measure.used();
}

std::vector<SharedUse> shared_uses(const Config& config, const StageShape& shape) {
  std::vector<SharedUse> uses;
  if (!shape.last || config.has_frozen()) return uses;
  const ModelConfig& m = config.model;
  std::int64_t begin = 0;
  const auto add = [&](int use, const std::string& parameter) {
    uses.push_back({use, parameter, begin, m.vocab_size, m.hidden_size});
    begin += static_cast<std::int64_t>(m.vocab_size) * m.hidden_size;
  };
  const std::string embedding = "model.embed_tokens.weight";
  if (m.tie_word_embeddings) add(1, embedding);
  if (m.has_mtp()) {
    add(2, embedding);
    add(3, m.tie_word_embeddings ? embedding : "lm_head.weight");
  }
  return uses;
}

std::int64_t shared_elements(const std::vector<SharedUse>& uses) {
  return uses.empty() ? 0 : uses.back().begin + uses.back().rows * uses.back().cols;
}

bool reads_embedding_copy(const Config& config, const StageShape& shape) {
  return shape.last && !shape.first && (config.model.tie_word_embeddings || config.model.has_mtp());
}

}  // namespace troupe
