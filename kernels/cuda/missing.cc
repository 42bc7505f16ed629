// Ops that have no kernels yet.
#include "kernels/cuda/kernels.h"

namespace troupe::cuda {

[[gnu::weak]] void run(const Product&, Queue&) { throw Error("cuda: no kernels for Product yet"); }
[[gnu::weak]] void run(const Rope&, Queue&) { throw Error("cuda: no kernels for Rope yet"); }
[[gnu::weak]] void run(const SwiGlu&, Queue&) { throw Error("cuda: no kernels for SwiGlu yet"); }
[[gnu::weak]] void run(const SwiGluBackward&, Queue&) { throw Error("cuda: no kernels for SwiGluBackward yet"); }
[[gnu::weak]] void run(const Router&, Queue&) { throw Error("cuda: no kernels for Router yet"); }
[[gnu::weak]] void run(const RouterBackward&, Queue&) { throw Error("cuda: no kernels for RouterBackward yet"); }
[[gnu::weak]] void run(const Gather&, Queue&) { throw Error("cuda: no kernels for Gather yet"); }
[[gnu::weak]] void run(const Scatter&, Queue&) { throw Error("cuda: no kernels for Scatter yet"); }
[[gnu::weak]] void run(const Combine&, Queue&) { throw Error("cuda: no kernels for Combine yet"); }
[[gnu::weak]] void run(const ScaleRows&, Queue&) { throw Error("cuda: no kernels for ScaleRows yet"); }
[[gnu::weak]] void run(const Embedding&, Queue&) { throw Error("cuda: no kernels for Embedding yet"); }
[[gnu::weak]] void run(const EmbeddingGradient&, Queue&) { throw Error("cuda: no kernels for EmbeddingGradient yet"); }
[[gnu::weak]] void run(const CrossEntropy&, Queue&) { throw Error("cuda: no kernels for CrossEntropy yet"); }
[[gnu::weak]] void run(const Copy&, Queue&) { throw Error("cuda: no kernels for Copy yet"); }
[[gnu::weak]] void run(const Add&, Queue&) { throw Error("cuda: no kernels for Add yet"); }
[[gnu::weak]] void run(const Fill&, Queue&) { throw Error("cuda: no kernels for Fill yet"); }
[[gnu::weak]] void run(const SumRows&, Queue&) { throw Error("cuda: no kernels for SumRows yet"); }
[[gnu::weak]] void run(const SumSquares&, Queue&) { throw Error("cuda: no kernels for SumSquares yet"); }
[[gnu::weak]] void run(const AdamW&, Queue&) { throw Error("cuda: no kernels for AdamW yet"); }
[[gnu::weak]] void run(const Initialize&, Queue&) { throw Error("cuda: no kernels for Initialize yet"); }
[[gnu::weak]] void run(const Sample&, Queue&) { throw Error("cuda: no kernels for Sample yet"); }
[[gnu::weak]] void run(const PolicyLoss&, Queue&) { throw Error("cuda: no kernels for PolicyLoss yet"); }
[[gnu::weak]] void run(const Digest&, Queue&) { throw Error("cuda: no kernels for Digest yet"); }

}  // namespace troupe::cuda
