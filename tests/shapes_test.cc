// Ops whose operands don't fit are a CHECK that says what they must be; nobody looks at their memory for it, so the
// tensors here have none. Each case starts from an op that fits and spoils one operand.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>

#include "kernels/cpu/kernels.h"
#include "kernels/shapes.h"

#include "tests/support/catch.h"

using namespace troupe;

namespace {

constexpr std::int64_t kRows = 6, kDim = 8, kExperts = 4, kSlots = 2, kVocabulary = 40;

Tensor shaped(std::int64_t rows, std::int64_t cols, Dtype dtype = Dtype::f32) {
  return {nullptr, rows, cols, cols, dtype};
}
Tensor words(std::int64_t rows, std::int64_t cols) { return shaped(rows, cols, Dtype::i32); }

// What a body says before it aborts, in a process of its own; empty if it comes to its end.
std::string last_words(const std::function<void()>& body) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    std::signal(SIGABRT, SIG_DFL);  // Catch would report it as its own
    const rlimit none{};
    ::setrlimit(RLIMIT_CORE, &none);  // an abort that was asked for leaves no file
    ::dup2(ends[1], STDERR_FILENO);
    body();
    ::_exit(0);
  }
  REQUIRE(child > 0);
  ::close(ends[1]);
  std::string said;
  char buffer[256];
  for (ssize_t size = 0; (size = ::read(ends[0], buffer, sizeof buffer)) > 0;)
    said.append(buffer, static_cast<std::size_t>(size));
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  const bool aborted = WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
  return aborted || (said.empty() && status == 0) ? said : "it ended neither way";
}

std::string complaint(const Op& op) {
  return last_words([&] { check(op); });
}
// Of the same op once `spoil` has changed it.
template <typename OneOp, typename Spoil>
std::string complaint(OneOp op, Spoil spoil) {
  spoil(op);
  return complaint(op);
}

Attention attention() {
  return {.spans = words(1, 4),
          .q = shaped(kRows, 2 * 12),
          .k = shaped(kRows, 2 * 8),
          .k_shared = shaped(kRows, 4),
          .v = shaped(kRows, 2 * 8),
          .out = shaped(kRows, 2 * 8),
          .row_max = shaped(kRows, 2),
          .row_scale = shaped(kRows, 2),
          .heads = 2,
          .kv_heads = 2,
          .own_dim = 8,
          .shared_dim = 4,
          .v_dim = 8,
          .k_head_stride = 8,
          .v_head_stride = 8};
}

Router router() {
  return {.x = shaped(kRows, kDim),
          .weight = shaped(kExperts, kDim),
          .bias = shaped(1, kExperts),
          .scores = shaped(kRows, kExperts),
          .indices = words(kRows, kSlots),
          .weights = shaped(kRows, kSlots),
          .position = words(kRows, kSlots),
          .sorted_token = words(kRows * kSlots, 1),
          .sorted_weight = shaped(kRows * kSlots, 1),
          .counts = words(1, kExperts),
          .sequence_fraction = shaped(2, kExperts),
          .balance = shaped(1, 2),
          .groups = 2,
          .groups_kept = 1,
          .rows_per_sequence = 3};
}

}  // namespace

using Catch::Contains;

TEST_CASE("a product whose matrices don't fit is refused", "[shapes]") {
  const Product fits{.a = shaped(kRows, 5), .b = shaped(7, 5), .c = shaped(kRows, 7), .transpose_b = true};
  CHECK(complaint(fits) == "");
  CHECK_THAT(complaint(fits, [](Product& op) { op.transpose_b = false; }),
             Contains("product: inner dimensions 5 and 7 differ"));
  CHECK_THAT(complaint(fits, [](Product& op) { op.c.rows = 3; }), Contains("product: c is 3 x 7, must be 6 x 7"));
  CHECK_THAT(complaint(fits, [](Product& op) { op.a.dtype = Dtype::i32; }), Contains("must be f32 or bf16"));
  CHECK_THAT(complaint(fits, [](Product& op) { op.c.dtype = Dtype::bf16, op.accumulate = true; }),
             Contains("only an f32 c accumulates"));
  CHECK_THAT(complaint(fits, [](Product& op) { op.bias = shaped(1, 5); }), Contains("bias has 5 columns of 7"));
  CHECK_THAT(complaint(fits, [](Product& op) { op.add = shaped(1, 7); }), Contains("add must have the shape of c"));
}

TEST_CASE("a product of which one operand alone is scaled is refused", "[shapes]") {
  const Product fits{.a = shaped(kRows, 5), .b = shaped(5, 7), .c = shaped(kRows, 7)};
  CHECK_THAT(complaint(fits, [](Product& op) { op.a_scaling = kActivationTiles; }),
             Contains("product: both operands are scaled, or none"));
}

TEST_CASE("codes whose rows, scales or direction don't fit are refused", "[shapes]") {
  Product fits{.a = shaped(kRows, 40), .b = shaped(40, 200), .c = shaped(kRows, 200)};
  fits.a_scaling = kActivationTiles, fits.b_scaling = kWeightBlocks;
  fits.b.dtype = Dtype::e4m3, fits.b.stride = 208;
  fits.b_turned = shaped(200, 40), fits.b_scales = shaped(1, 2);
  fits.b_turned.dtype = Dtype::e4m3, fits.b_turned.stride = 48;
  CHECK(complaint(fits) == "");
  CHECK_THAT(complaint(fits, [](Product& op) { op.b_scales = {}; }), Contains("must be f32 or bf16"));
  CHECK_THAT(complaint(fits, [](Product& op) { op.b_scales.cols = 1; }), Contains("scales of codes must be f32"));
  CHECK_THAT(complaint(fits, [](Product& op) { op.b_turned.stride = 40; }), Contains("rows at multiples of 16"));
  CHECK_THAT(complaint(fits, [](Product& op) { op.b_turned = {}; }), Contains("must be e4m3, 200 x 40"));
  CHECK_THAT(complaint(fits, [](Product& op) { std::swap(op.b, op.b_turned), op.transpose_b = true; }),
             Contains("not transposed"));
  Quantize whole{.x = shaped(200, 40),
                 .codes = fits.b_turned,
                 .scales = shaped(1, 2),
                 .turned = fits.b,
                 .turned_scales = shaped(2, 1)};
  whole.turned.rows = 40, whole.turned.cols = 200, whole.turned.stride = 208;
  CHECK(complaint(whole) == "");
  CHECK_THAT(complaint(whole, [](Quantize& op) { op.turned = op.codes; }), Contains("must be e4m3, 40 x 200"));
  CHECK_THAT(complaint(whole, [](Quantize& op) { op.digests = shaped(4, 4); }), Contains("digests must be i32, 4 x 4"));
}

TEST_CASE("a grouped product whose runs, rows and matrices don't fit is refused", "[shapes]") {
  GroupedProduct fits{.a = shaped(kRows, 5), .c = shaped(kRows, 7), .b = {}, .rows = {}};
  for (const int rows : {0, 4, 2}) {
    fits.b.push_back(shaped(5, 7));
    fits.rows.push_back(rows);
  }
  CHECK(complaint(fits) == "");
  CHECK_THAT(complaint(fits, [](GroupedProduct& op) { op.rows.pop_back(); }), Contains("2 runs and 3 matrices"));
  CHECK_THAT(complaint(fits, [](GroupedProduct& op) { op.rows[1] = 3; }), Contains("runs of 5 rows, a has 6, c 6"));
  CHECK_THAT(complaint(fits, [](GroupedProduct& op) { op.b[0] = shaped(5, 8); }), Contains("matrices differ"));
  CHECK_THAT(complaint(fits, [](GroupedProduct& op) { op.transpose_b = true; }), Contains("inner dimensions"));
}

TEST_CASE("an attention whose heads don't fit its columns is refused", "[shapes]") {
  const Attention fits = attention();
  CHECK(complaint(fits) == "");
  CHECK_THAT(complaint(fits, [](Attention& op) { op.kv_heads = 3; }), Contains("attention: 2 heads on 3 key heads"));
  CHECK_THAT(complaint(fits, [](Attention& op) { op.q.cols = 20; }), Contains("q has 20 columns, must be 24"));
  CHECK_THAT(complaint(fits, [](Attention& op) { op.k_head_stride = 9; }), Contains("k has 16 columns"));
  CHECK_THAT(complaint(fits, [](Attention& op) { op.v.rows = 5; }), Contains("6 keys but 5 values"));
  CHECK_THAT(complaint(fits, [](Attention& op) { op.k_shared = {}; }), Contains("k_shared must be 6 x 4"));
  CHECK_THAT(complaint(fits, [](Attention& op) { op.row_max.cols = 1; }), Contains("must be f32, 6 x 2"));
  CHECK_THAT(complaint(fits, [](Attention& op) { op.spans.cols = 2; }), Contains("spans must be i32 with 4 columns"));
}

TEST_CASE("an attention's gradients have the shapes of what they are of", "[shapes]") {
  const Attention f = attention();
  const AttentionBackward fits{.forward = f, .dout = f.out, .dq = f.q, .dk = f.k, .dk_shared = f.k_shared, .dv = f.v};
  CHECK(complaint(fits) == "");
  CHECK_THAT(complaint(fits, [](AttentionBackward& op) { op.forward.out.rows = 5; }), Contains("out must be 6 x 16"));
  CHECK_THAT(complaint(fits, [](AttentionBackward& op) { op.dq.cols = 16; }), Contains("dq must have the shape of q"));
  CHECK_THAT(complaint(fits, [](AttentionBackward& op) { op.dk_shared = {}; }),
             Contains("dk_shared must have the shape of k_shared"));
}

TEST_CASE("a norm, a rope or a swiglu on rows of another width is refused", "[shapes]") {
  const Tensor x = shaped(kRows, kDim), column = shaped(kRows, 1), row = shaped(1, kDim);
  const Norm norm{.x = x, .weight = row, .y = x, .inverse_rms = column};
  CHECK(complaint(norm) == "");
  CHECK_THAT(complaint(norm, [](Norm& op) { op.weight.cols = 7; }), Contains("norm: weight has 7 columns of 8"));
  CHECK_THAT(complaint(norm, [](Norm& op) { op.inverse_rms.dtype = Dtype::bf16; }), Contains("must be f32, 6 x 1"));
  const NormBackward slope{.x = x, .weight = row, .inverse_rms = column, .dy = x, .add = {}, .dx = x, .dweight = row};
  CHECK(complaint(slope) == "");
  CHECK_THAT(complaint(slope, [&](NormBackward& op) { op.add = row; }), Contains("add must have the shape of x"));
  const Rope rope{.x = x,
                  .positions = words(kRows, 1),
                  .cosine = shaped(9, 2),
                  .sine = shaped(9, 2),
                  .heads = 2,
                  .head_stride = 4,
                  .dim = 4};
  CHECK(complaint(rope) == "");
  CHECK_THAT(complaint(rope, [](Rope& op) { op.dim = 3; }), Contains("rope: 3 columns are not pairs"));
  CHECK_THAT(complaint(rope, [](Rope& op) { op.offset = 1; }), Contains("2 heads of 4 columns don't fit in 8"));
  CHECK(complaint(SwiGlu{.gate_up = shaped(kRows, 2 * kDim), .h = x}) == "");
  CHECK_THAT(complaint(SwiGlu{.gate_up = x, .h = x}), Contains("swiglu: gate_up must be 6 x 16"));
  const Tensor wide = shaped(kRows, 2 * kDim);
  const SwiGluBackward back{.gate_up = wide, .dh = x, .d_gate_up = wide, .row_scale = column, .dots = column};
  CHECK(complaint(back) == "");
  CHECK_THAT(complaint(back, [](SwiGluBackward& op) { op.dots.rows = 1; }), Contains("must be f32, 6 x 1"));
}

TEST_CASE("a router's plan has a place for every row and slot", "[shapes]") {
  const Router fits = router();
  CHECK(complaint(fits) == "");
  CHECK_THAT(complaint(fits, [](Router& op) { op.position.cols = 3; }), Contains("router: plan must be i32, 6 x 2"));
  CHECK_THAT(complaint(fits, [](Router& op) { op.sorted_token.rows = 6; }), Contains("must be 12 x 1"));
  CHECK_THAT(complaint(fits, [](Router& op) { op.groups = 4; }), Contains("2 of 4 experts from 1 of 4 groups"));
  CHECK_THAT(complaint(fits, [](Router& op) { op.rows_per_sequence = 4; }), Contains("must be f32, 6 / 4 x 4"));
  const RouterBackward back{.scores = fits.scores,
                            .indices = fits.indices,
                            .weights = fits.weights,
                            .position = fits.position,
                            .dots = shaped(kRows * kSlots, 1),
                            .dlogits = fits.scores,
                            .sequence_fraction = {}};
  CHECK(complaint(back) == "");
  CHECK_THAT(complaint(back, [](RouterBackward& op) { op.dots.rows = 6; }), Contains("dots must be f32, 12 x 1"));
}

TEST_CASE("rows move only between tensors as wide as each other", "[shapes]") {
  const Tensor x = shaped(kRows, kDim), few = shaped(3, kDim);
  CHECK(complaint(Gather{.source = x, .index = words(3, 1), .out = few}) == "");
  CHECK_THAT(complaint(Gather{.source = x, .index = words(kRows, 1), .out = few}),
             Contains("index must be i32, 3 x 1"));
  CHECK(complaint(Scatter{.source = few, .index = words(3, 1), .out = x}) == "");
  CHECK_THAT(complaint(Scatter{.source = few, .index = words(3, 1), .out = shaped(kRows, 9)}),
             Contains("8 columns into 9"));
  const Combine combine{
      .pieces = {few, few}, .position = words(kRows, 2), .weight = {}, .add0 = x, .add1 = {}, .out = x};
  CHECK(complaint(combine) == "");
  CHECK_THAT(complaint(combine, [](Combine& op) { op.pieces[1].cols = 7; }),
             Contains("a piece has 7 columns, must have 8"));
  CHECK(complaint(ScaleRows{.x = x, .scale = shaped(kRows, 1), .out = x}) == "");
  CHECK_THAT(complaint(ScaleRows{.x = x, .scale = shaped(1, kDim), .out = x}), Contains("scale must be f32, 6 x 1"));
  const Tensor table = shaped(kVocabulary, kDim);
  CHECK(complaint(Embedding{.ids = words(kRows, 1), .table = table, .out = x}) == "");
  CHECK_THAT(complaint(Embedding{.ids = shaped(kRows, 1), .table = table, .out = x}), Contains("ids must be i32"));
  CHECK(complaint(EmbeddingGradient{.ids = words(kRows, 1), .dx = x, .dtable = table}) == "");
  CHECK_THAT(complaint(EmbeddingGradient{.ids = words(kRows, 1), .dx = x, .dtable = shaped(kVocabulary, 7)}),
             Contains("dtable must be f32 with 8 columns"));
}

TEST_CASE("a loss or a sample asks for what its rows need", "[shapes]") {
  const Tensor logits = shaped(kRows, kVocabulary), ids = words(kRows, 1), column = shaped(kRows, 1);
  const CrossEntropy loss{.logits = logits, .targets = ids, .loss = column, .dlogits = logits};
  CHECK(complaint(loss) == "");
  CHECK_THAT(complaint(loss, [](CrossEntropy& op) { op.logits.dtype = Dtype::bf16; }), Contains("logits must be f32"));
  CHECK_THAT(complaint(loss, [](CrossEntropy& op) { op.dlogits.rows = 5; }), Contains("the shape of logits"));
  const PolicyLoss policy{.logits = logits,
                          .targets = ids,
                          .policy = shaped(kRows, kPolicyInputs),
                          .results = shaped(kRows, kPolicyResults),
                          .kept = words(kRows, 2),
                          .dlogits = logits};
  CHECK(complaint(policy) == "");
  CHECK_THAT(complaint(policy, [](PolicyLoss& op) { op.kept.cols = 1; }), Contains("kept must be i32, 6 x 2"));
  const Sample sample{.logits = logits, .counter = words(kRows, 2), .token = ids, .logprob = column};
  CHECK(complaint(sample) == "");
  CHECK_THAT(complaint(sample, [](Sample& op) { op.counter.cols = 1; }), Contains("counter must be i32, 6 x 2"));
  CHECK_THAT(complaint(sample, [](Sample& op) { op.top_p = 0; }), Contains("temperature 0, top_p 0"));
}

TEST_CASE("sums, conversions and initial values of the wrong shape or type are refused", "[shapes]") {
  const Tensor x = shaped(kRows, kDim), half = shaped(kRows, kDim, Dtype::bf16), ids = words(kRows, kDim);
  CHECK(complaint(Copy{.source = x, .out = half}) == "");
  CHECK_THAT(complaint(Copy{.source = x, .out = ids}), Contains("copy: dtypes don't convert"));
  CHECK_THAT(complaint(Copy{.source = x, .out = shaped(1, 2)}), Contains("copy: 6 x 8 into 1 x 2"));
  CHECK(complaint(Add{.a = x, .b = half, .out = x}) == "");
  CHECK_THAT(complaint(Add{.a = x, .b = shaped(1, kDim), .out = x}), Contains("add: shapes differ"));
  CHECK(complaint(Fill{.out = ids}) == "");
  CHECK(complaint(SumRows{.x = half, .out = shaped(1, kDim)}) == "");
  CHECK_THAT(complaint(SumRows{.x = half, .out = x}), Contains("sum rows: out must be f32, 1 x 8"));
  CHECK(complaint(SumSquares{.x = x, .out = shaped(1, 1, Dtype::f64), .bits = words(1, 1)}) == "");
  CHECK_THAT(complaint(SumSquares{.x = x, .out = shaped(1, 1), .bits = words(1, 1)}), Contains("out must be f64"));
  CHECK(complaint(Initialize{.out = half}) == "");
  CHECK_THAT(complaint(Initialize{.out = ids}), Contains("initialize: out must be f32 or bf16"));
}

TEST_CASE("an optimizer's state has the shape of its parameter", "[shapes]") {
  const Tensor x = shaped(kRows, kDim), half = shaped(kRows, kDim, Dtype::bf16);
  const AdamW adamw{.parameter = x, .gradient = x, .m = x, .v = x, .copy = half, .digest = words(1, 4)};
  CHECK(complaint(adamw) == "");
  CHECK_THAT(complaint(adamw, [](AdamW& op) { op.v.cols = 7; }), Contains("adamw: operands must be f32 of one shape"));
  CHECK_THAT(complaint(adamw, [](AdamW& op) { op.m.dtype = Dtype::bf16; }), Contains("must be f32 of one shape"));
  CHECK_THAT(complaint(adamw, [](AdamW& op) { op.copy.dtype = Dtype::f32; }), Contains("copy must be bf16"));
  CHECK(complaint(Digest{.x = x, .copy = half, .out = words(1, 4)}) == "");
  CHECK_THAT(complaint(Digest{.x = x, .copy = {}, .out = words(1, 2)}), Contains("digest: out must be i32, 1 x 4"));
}

TEST_CASE("a device refuses what doesn't fit before it touches any memory", "[shapes]") {
  cpu::Scratch scratch;
  const Tensor x = shaped(kRows, kDim);
  CHECK_THAT(last_words([&] { cpu::run(Op{Copy{.source = x, .out = shaped(kRows, 9)}}, scratch); }),
             Contains("copy: 6 x 8 into 6 x 9"));
}
