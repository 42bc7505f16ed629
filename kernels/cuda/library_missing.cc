// For builds without cuBLASLt's header.
#include "kernels/base/error.h"
#include "kernels/cuda/library.h"

namespace troupe::cuda {

std::unique_ptr<Library> open_library() {
  throw Error("cuda: this build knows no cuBLASLt; leave products to Troupe's own kernels");
}

}  // namespace troupe::cuda
