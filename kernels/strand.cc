#include "kernels/strand.h"

#include <algorithm>

namespace troupe {

namespace {

// Where an op adds; null if it does something else.
struct SumOf {
  const void* operator()(const Product& op) const { return op.accumulate ? op.c.data : nullptr; }
  const void* operator()(const Add& op) const { return op.out.data == op.a.data ? op.out.data : nullptr; }
  const void* operator()(const SumRows& op) const { return op.accumulate ? op.out.data : nullptr; }
  const void* operator()(const EmbeddingGradient& op) const { return op.dtable.data; }
  template <typename Other>
  const void* operator()(const Other&) const {
    return nullptr;
  }
};

const void* sum_of(const Op* op) { return std::visit(SumOf{}, *op); }

}  // namespace

void ops_by_sum(const std::vector<Segment>& segments, std::vector<const Op*>& out) {
  for (const Segment& segment : segments)
    for (const Op& op : segment.ops) out.push_back(&op);
  if (segments.size() == 1 || !std::all_of(out.begin(), out.end(), sum_of)) return;
  for (auto first = out.begin(); first != out.end();) {
    const void* sum = sum_of(*first);
    for (auto op = ++first; op != out.end(); ++op)
      if (sum_of(*op) == sum) {
        std::rotate(first, op, op + 1);
        ++first;
      }
  }
}

void ops_in_turn(const std::vector<Segment>& segments, std::vector<const Op*>& out) {
  std::size_t longest = 0;
  for (const Segment& segment : segments) longest = std::max(longest, segment.ops.size());
  for (std::size_t turn = 0; turn < longest; ++turn)
    for (const Segment& segment : segments)
      if (turn < segment.ops.size()) out.push_back(&segment.ops[turn]);
}

}  // namespace troupe
