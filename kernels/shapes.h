// What every device refuses: an op whose operands don't fit together, by shape and type. A CHECK that names the op and
// says what it must be.
// Nothing here reads a tensor's data, wherever that is: an index beyond its table is the device's own affair.
#pragma once

#include "kernels/op.h"

namespace troupe {

void check(const Op& op);

void check(const Product& op);
void check(const GroupedProduct& op);
void check(const Norm& op);
void check(const NormBackward& op);
void check(const Rope& op);
void check(const Attention& op);
void check(const AttentionBackward& op);
void check(const SwiGlu& op);
void check(const SwiGluBackward& op);
void check(const Router& op);
void check(const RouterBackward& op);
void check(const Gather& op);
void check(const Scatter& op);
void check(const Combine& op);
void check(const ScaleRows& op);
void check(const Embedding& op);
void check(const EmbeddingGradient& op);
void check(const CrossEntropy& op);
void check(const PolicyLoss& op);
void check(const Copy& op);
void check(const Add& op);
void check(const Fill& op);
void check(const SumRows& op);
void check(const SumSquares& op);
void check(const AdamW& op);
void check(const Digest& op);
void check(const Initialize& op);
void check(const Sample& op);
void check(const Quantize& op);

}  // namespace troupe
