#include "actors/twin_tree.h"

#include "kernels/base/check.h"

namespace troupe {

namespace {

struct Tree {
  const std::vector<Tensor>& terms;
  const std::vector<Tensor>& arenas;
  std::size_t own;
  Ops ops;

  // T(replica, stride); an inner node is written to `sum`, with arenas from `level` on.
  Tensor add(std::size_t replica, std::size_t stride, const Tensor& sum, std::size_t level) {
    if (stride == terms.size()) return terms[replica];
    const bool second =
        (own - replica) % (2 * stride) == stride;  // has the own term, where `sum` may be: it goes first
    Tensor a, b;
    if (2 * stride == terms.size()) {
      a = terms[replica];
      b = terms[replica + stride];
    } else if (second) {
      b = add(replica + stride, 2 * stride, sum, level);
      a = add(replica, 2 * stride, arenas[level], level + 1);
    } else {
      a = add(replica, 2 * stride, sum, level);
      b = add(replica + stride, 2 * stride, arenas[level], level + 1);
    }
    ops.push_back(Add{a, b, sum});
    return sum;
  }
};

}  // namespace

std::size_t tree_arenas(std::size_t replicas) {
  std::size_t levels = 0;
  for (; replicas > 2; replicas /= 2) ++levels;
  return levels;
}

Ops add_in_tree(const std::vector<Tensor>& terms, std::size_t own, const std::vector<Tensor>& arenas) {
  const std::size_t replicas = terms.size();
  CHECK(replicas >= 2 && (replicas & (replicas - 1)) == 0 && own < replicas && arenas.size() >= tree_arenas(replicas),
        "{} sums to add, {} arenas", replicas, arenas.size());
  Tree tree{terms, arenas, own, {}};
  tree.add(0, 1, terms[own], 0);
  return std::move(tree.ops);
}

}  // namespace troupe
