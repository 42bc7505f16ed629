#include "tests/cuda/beside_cpu.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <vector>

#include "kernels/cpu/kernels.h"
#include "kernels/op_tensors.h"
#include "tests/support/run_op.h"

namespace troupe::test {

namespace {

using Memory = std::map<char*, std::vector<char>>;  // by address: what stands there; pieces may overlap

Memory memory_of(Op op) {
  Memory memory;
  for_each_tensor(op, [&](Tensor& t) {
    if (!t || t.cols == 0) return;
    auto* begin = static_cast<char*>(t.data);
    const std::size_t size = static_cast<std::size_t>((t.rows - 1) * t.stride + t.cols) * bytes_of(t.dtype);
    if (memory[begin].size() < size) memory[begin].assign(begin, begin + size);
  });
  return memory;
}

void put(const Memory& memory) {
  for (const auto& [begin, bytes] : memory) std::memcpy(begin, bytes.data(), bytes.size());
}

}  // namespace

void run_on_cpu(const Op& op) {
  cpu::Scratch scratch;
  cpu::run(op, scratch);
}

bool like_cpu(const Op& op) {
  constexpr int kOrders = 2;
  const Memory before = memory_of(op);
  run_on_cpu(op);
  const Memory expected = memory_of(op);
  for (int order = 0; order < kOrders; ++order) {
    put(before);
    run_op(op);
    if (memory_of(op) != expected) return false;
  }
  return true;
}

}  // namespace troupe::test
