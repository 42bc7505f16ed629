// Ops that have no kernels yet.
#include "kernels/cuda/kernels.h"

namespace troupe::cuda {

[[gnu::weak]] void run(const Product&, Queue&) { throw Error("cuda: no kernels for Product yet"); }
[[gnu::weak]] void run(const Attention&, Queue&) { throw Error("cuda: no kernels for Attention yet"); }
[[gnu::weak]] void run(const AttentionBackward&, Queue&) { throw Error("cuda: no kernels for AttentionBackward yet"); }
[[gnu::weak]] void run(const Router&, Queue&) { throw Error("cuda: no kernels for Router yet"); }
[[gnu::weak]] void run(const RouterBackward&, Queue&) { throw Error("cuda: no kernels for RouterBackward yet"); }
[[gnu::weak]] void run(const CrossEntropy&, Queue&) { throw Error("cuda: no kernels for CrossEntropy yet"); }
[[gnu::weak]] void run(const Sample&, Queue&) { throw Error("cuda: no kernels for Sample yet"); }
[[gnu::weak]] void run(const PolicyLoss&, Queue&) { throw Error("cuda: no kernels for PolicyLoss yet"); }

}  // namespace troupe::cuda
