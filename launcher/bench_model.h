// A model's work of one step in parts, each with memory of its own: what `troupe bench ops` times. One layer of each kind
// stands for all of its kind.
// The law: the ops are those that a training step of the configuration gives its device, at the same shapes; they come
// from kernels/model, put together as the stages and the shards do (actors/).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "actors/config.h"
#include "actors/stage_memory.h"
#include "kernels/device.h"
#include "kernels/model/coded_block.h"
#include "kernels/model/expert.h"
#include "kernels/model/parameter_block.h"

namespace troupe {

struct BenchMemory {
  Memory device, shared;
};

struct BenchPart {
  std::string name;  // embedding, dense layer, moe layer, experts, head, optimizer
  SegmentClass phase = SegmentClass::forward;
  double times = 0;  // in a step
  Ops ops;
};

// The weights of one owner with everything that learning needs.
class BenchWeights {
 public:
  BenchWeights(Device& device, const Config& config, std::vector<Parameter> parameters);
  const ParameterBlock& block() const { return block_; }
  Tensor masters(const std::string& first, const std::string& last) const;
  Matrix matrices(const std::string& first, const std::string& last) const;  // what products read
  Tensor accumulators(const std::string& first, const std::string& last) const;
  void draw(Ops& ops) const;   // random weights, gradients and moments
  void learn(Ops& ops) const;  // the gradient's squares, AdamW and empty sums

 private:
  void encode(Ops& ops) const;

  const Config& config_;
  ParameterBlock block_;
  CodedBlock coded_;
  Memory masters_, copies_, codes_, m_, v_, gradients_, squares_;
};

class BenchModel {
 public:
  // REQUIRES: config outlives it. As many microbatches have memory of their own as are together larger than `apart`
  // bytes: one that comes in its turn finds nothing of its last time in a cache. Throws Error: no such memory.
  BenchModel(Device& device, const Config& config, std::size_t apart);

  // Ops that give everything random values, to be run first.
  std::vector<Ops> values() const;
  std::size_t microbatches() const { return microbatches_.size(); }
  // In an order in which each finds what it reads.
  const std::vector<BenchPart>& parts(std::size_t microbatch) const { return microbatches_[microbatch].parts; }
  // The mean over the microbatch's rows, once its forward parts were run.
  double loss(std::size_t microbatch) const;

 private:
  struct Microbatch {
    BenchMemory memory;
    StageSlot slot;
    BatchTensors batch;
    ChunkSlot chunk;
    Tensor gathered, results, gates, dots;  // rows on their way to the experts, their answers
    std::vector<BenchPart> parts;
  };
  void carve(Microbatch& at);
  void write_batch(Microbatch& at, std::uint64_t number) const;
  void add_forward(Microbatch& at) const;
  void add_backward(Microbatch& at) const;
  void add_expert_forward(Microbatch& at) const;
  void add_expert_backward(Microbatch& at) const;
  void add_optimizer(Microbatch& at) const;
  void add(Microbatch& at, const std::string& name, SegmentClass phase, double times, Ops ops) const;
  std::string name_of(int layer) const;
  double times_of(int layer) const;
  Tensor tied_sums() const;
  Tensor input_of(const Microbatch& at, int layer) const;     // of the layer above the last: the head's
  Tensor gradient_of(const Microbatch& at, int layer) const;  // dL/d(output) of a layer; of -1: of the embedding

  const Config& whole_;
  Config config_;  // a layer of each kind
  StageShape shape_;
  std::int64_t routed_rows_ = 0, chunk_rows_ = 0;
  bool keeps_rows_ = false;  // a chunk reads the rows where they were gathered
  std::unique_ptr<BenchWeights> dense_, experts_;
  std::vector<LayerTensors> weights_, accumulators_;
  std::vector<ExpertTensors> expert_weights_, expert_accumulators_;
  Memory rope_, rope_source_, tied_sums_;
  Tensor rope_table_, rope_source_table_, cosine_, sine_;
  Counts counts_;  // rows of each expert in a chunk
  Device& device_;
  std::vector<Microbatch> microbatches_;
};

}  // namespace troupe
