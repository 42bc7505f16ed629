#include "kernels/base/error.h"
#include "kernels/cuda/open.h"

namespace troupe {

namespace {
constexpr const char* kAbsent = "this program was built without CUDA; build it where nvcc is on the path";
}

Gpus look_for_gpus() { return {{}, kAbsent, 0, 0}; }

void ask_free_memory(int, Gpu&) {}

bool is_processors_memory(const void*) { return true; }

std::unique_ptr<MeasuredDevice> open_cuda(const CudaOptions&) { throw Error("cuda: {}", kAbsent); }

}  // namespace troupe
