// Products through NVIDIA's cuBLASLt, where a machine has it: opened at run time, so nothing needs it. Off unless asked for.
// The law: of one shape of weight (N, K, form, types) every product takes one algorithm, whatever its rows, that never
// splits K; so a row's bits don't depend on the rows beside it. They are not those of product_half.cu, so either all
// processes of a run use it or none does.
#pragma once

#include <memory>

#include "kernels/cuda/runtime.h"
#include "kernels/op.h"

namespace troupe::cuda {

class Library {
 public:
  virtual ~Library() = default;
  // False: it is none of the library's, own kernels shall run it.
  virtual bool multiply(const Product& op, Queue& queue) = 0;
};

// Throws Error: there is none.
std::unique_ptr<Library> open_library();

}  // namespace troupe::cuda
