// The fixed tree over replicas' sums, T(r, s) = T(r, 2s) + T(r + s, 2s), from T(0, 1) down to T(r, R), which is replica r's
// own: the upper levels of the tree over lanes, of which each replica has folded its own. The law: operands and their order
// are the same wherever it is added, so the bits are.
#pragma once

#include <cstddef>
#include <vector>

#include "kernels/op.h"

namespace troupe {

// Places for inner nodes: gone through depth first the tree needs one a level.
std::size_t tree_arenas(std::size_t replicas);

// The sum of all terms, by replica (a power of two of them), is written over terms[own]; the others are only read. Ops that
// follow one another. arenas: tree_arenas(terms.size()) of the terms' shape.
Ops add_in_tree(const std::vector<Tensor>& terms, std::size_t own, const std::vector<Tensor>& arenas);

}  // namespace troupe
