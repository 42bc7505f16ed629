// Ops that have no kernels yet.
#include "kernels/cuda/kernels.h"

namespace troupe::cuda {

[[gnu::weak]] void run(const Attention&, Queue&) { throw Error("cuda: no kernels for Attention yet"); }
[[gnu::weak]] void run(const AttentionBackward&, Queue&) { throw Error("cuda: no kernels for AttentionBackward yet"); }

}  // namespace troupe::cuda
