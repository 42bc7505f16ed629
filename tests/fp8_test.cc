// E4M3 and scaled products: every byte, scale and sum of the reference's numerics, and the laws to the bit.
#include <bit>
#include <chrono>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "kernels/cpu/quantize.h"
#include "kernels/grouped_product.h"
#include "kernels/model/coded_block.h"
#include "kernels/model/expert.h"
#include "kernels/model/head.h"
#include "kernels/model/linear.h"
#include "kernels/model/parameters.h"
#include "tests/support/close.h"
#include "tests/support/coded.h"
#include "tests/support/naive.h"
#include "tests/support/run_op.h"

#include "tests/support/catch.h"

using namespace troupe;
using namespace troupe::test;

namespace {

// A safetensors file of the reference: its tensors' bytes by name.
class Numerics {
 public:
  explicit Numerics(const std::string& name) {
    std::ifstream in(TROUPE_SOURCE_DIR "/tests/fixtures/numerics/" + name + ".safetensors", std::ios::binary);
    bytes_ = {std::istreambuf_iterator<char>(in), {}};
    std::uint64_t length = 0;
    REQUIRE(bytes_.size() > 8);
    std::memcpy(&length, bytes_.data(), 8);
    header_ = nlohmann::json::parse(bytes_.substr(8, length));
    begin_ = 8 + length;
  }
  template <typename T>
  std::vector<T> read(const std::string& name) const {
    const auto& offsets = header_.at(name).at("data_offsets");
    const std::size_t begin = offsets[0], size = offsets[1].get<std::size_t>() - begin;
    std::vector<T> values(size / sizeof(T));
    std::memcpy(values.data(), bytes_.data() + begin_ + begin, size);
    return values;
  }
  // The same, of float32, as a tensor.
  Owned tensor(const std::string& name) const {
    const auto& shape = header_.at(name).at("shape");
    Owned out(shape[0], shape[1]);
    const auto values = read<char>(name);
    REQUIRE(values.size() == static_cast<std::size_t>(out.tensor().elements()) * sizeof(float));
    std::memcpy(out.tensor().data, values.data(), values.size());
    return out;
  }

 private:
  std::string bytes_;
  nlohmann::json header_;
  std::size_t begin_ = 0;
};

// A tensor's codes and scales as a scaled product makes them of an operand.
struct Quantized {
  Quantized(const Tensor& x, const Scaling& scaling, bool down = false)
      : cols(x.cols),
        tile(tile_shape(scaling, down)),
        scales(tiles_count(x.rows, tile.rows), tiles_count(cols, tile.cols)) {
    std::vector<float> values(static_cast<std::size_t>(tile.rows * cols)), room(static_cast<std::size_t>(cols));
    for (std::int64_t strip = 0; strip < scales.tensor().rows; ++strip) {
      const Tensor part = x.row_range(strip * tile.rows, std::min(tile.rows, x.rows - strip * tile.rows));
      cpu::quantize(part, tile, scaling.floor, values.data(), cols, scales.tensor().row<float>(strip), room.data());
      std::transform(values.begin(), values.begin() + part.rows * cols, std::back_inserter(codes), round_to_e4m3);
    }
  }
  std::uint8_t code(std::int64_t row, std::int64_t col) const {
    return codes[static_cast<std::size_t>(row * cols + col)];
  }
  std::int64_t cols;
  TileShape tile;
  std::vector<std::uint8_t> codes;
  Owned scales;
};

// Runs the op; the elements that differ from the naive chains in any bit.
int wrong_elements(const Product& op) {
  const Grid expected = scaled_product(op, op.accumulate ? Grid{op.c} : Grid(op.c.rows, op.c.cols));
  run_op(op);
  int wrong = 0;
  for (std::int64_t i = 0; i < op.c.rows; ++i)
    for (std::int64_t j = 0; j < op.c.cols; ++j) wrong += element(op.c, i, j) != expected(i, j);
  return wrong;
}

constexpr float kInfinity = std::numeric_limits<float>::infinity(), kNaN = std::numeric_limits<float>::quiet_NaN();

}  // namespace

TEST_CASE("every E4M3 code decodes, and every number rounds, as the reference's", "[fp8]") {
  const Numerics numerics("e4m3_codes");
  const auto decoded = numerics.read<float>("decode_all_256");
  for (std::size_t code = 0; code < 256; ++code) {
    const float value = from_e4m3(static_cast<std::uint8_t>(code));
    INFO("code " << code);
    CHECK((std::bit_cast<std::uint32_t>(value) == std::bit_cast<std::uint32_t>(decoded[code]) ||
           (std::isnan(value) && std::isnan(decoded[code]))));
  }
  const auto in = numerics.read<float>("round_in");
  const auto out = numerics.read<std::uint8_t>("round_out");
  for (std::size_t i = 0; i < in.size(); ++i) {
    INFO(in[i]);
    CHECK(round_to_e4m3(in[i]) == out[i]);
  }
}

TEST_CASE("bfloat16 rounds as the reference's", "[fp8]") {
  const Numerics numerics("bf16_round");
  const auto in = numerics.read<float>("in");
  const auto out = numerics.read<std::uint16_t>("out_bits");
  for (std::size_t i = 0; i < in.size(); ++i) {
    INFO(in[i]);
    CHECK((round_to_bf16(in[i]) == out[i] || std::isnan(in[i])));
  }
}

TEST_CASE("codes and scales are the reference's byte for byte, products within 2e-6", "[fp8]") {
  for (const std::string name : {"blockscaled_0", "blockscaled_1"}) {
    INFO(name);
    const Numerics numerics(name);
    const Owned a = numerics.tensor("a"), w = numerics.tensor("w"), expected = numerics.tensor("c");
    const Quantized qa(a, kActivationTiles), qw(w, kWeightBlocks);
    CHECK(qa.codes == numerics.read<std::uint8_t>("a_q"));
    CHECK(qw.codes == numerics.read<std::uint8_t>("w_q"));
    CHECK(same_bits(qa.scales, numerics.tensor("a_scale")));
    CHECK(same_bits(qw.scales, numerics.tensor("w_scale")));
    const Owned c(a.tensor().rows, w.tensor().rows);
    run_op(linear_forward(true, a, w, c));
    double largest = 0;
    for (const double value : Grid{expected}.values) largest = std::max(largest, std::abs(value));
    CHECK(distance(c, Grid{expected}) <= 2e-6 * largest);
  }
}

TEST_CASE("a tensor is quantized tile by tile, whatever its shape and type", "[fp8]") {
  for (const Dtype type : {Dtype::f32, Dtype::bf16})
    for (const auto& [rows, cols] : {std::pair{1, 1}, {3, 130}, {129, 127}, {260, 40}})
      for (const Scaling& scaling : {kActivationTiles, kGradientTiles, kWeightBlocks})
        for (const bool down : {false, true}) {
          INFO(rows << " x " << cols << " width " << scaling.width << " down " << down);
          const Owned x = normal(rows, cols, 7, type, 5);
          const Quantized q(x, scaling, down);
          const NaiveTiles naive(x, scaling, down);
          int wrong = 0;
          for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < cols; ++j) wrong += q.code(i, j) != naive.code(i, j);
          CHECK(wrong == 0);
          CHECK(distance(q.scales, naive.scales) == 0);
        }
}

TEST_CASE("bfloat16 numbers of every size beside any largest one get the codes of their quotients", "[fp8]") {
  for (const float largest : {448.0F, 1.0F, 3.7F, 1e-4F, 3e38F}) {
    const Owned tiles(512, 128, Dtype::bf16);
    for (std::int64_t i = 0; i < 512; ++i) {
      for (std::int64_t j = 0; j < 128; ++j) {
        const float value = from_bf16(static_cast<std::uint16_t>(i * 128 + j));
        tiles.tensor().row<std::uint16_t>(i)[j] = std::abs(value) <= largest ? round_to_bf16(value) : 0;
      }
      tiles.tensor().row<std::uint16_t>(i)[i % 128] = round_to_bf16(largest);
    }
    const Quantized q(tiles, kGradientTiles);
    const NaiveTiles naive(tiles, kGradientTiles, false);
    int wrong = 0;
    for (std::int64_t i = 0; i < 512; ++i)
      for (std::int64_t j = 0; j < 128; ++j) wrong += q.code(i, j) != naive.code(i, j);
    INFO("largest " << largest);
    CHECK(wrong == 0);
  }
}

TEST_CASE("a tile of zeros has codes and sums of zero", "[fp8]") {
  for (const Scaling& scaling : {kActivationTiles, kGradientTiles, kWeightBlocks}) {
    const Owned x(2, 200);
    run_op(Fill{x, 0});
    x.tensor().row<float>(1)[3] = -0.0F;
    const Quantized q(x, scaling);
    CHECK((q.code(0, 0) == 0 && q.code(1, 199) == 0 && q.code(1, 3) == 0x80));
    CHECK(q.scales.at(0, 0) > 0);
    const Owned w = normal(5, 200, 1), y(2, 5);
    run_op(
        Product{.a = x, .b = w, .c = y, .transpose_b = true, .a_scaling = kGradientTiles, .b_scaling = kWeightBlocks});
    CHECK((y.at(0, 0) == 0 && y.at(1, 4) == 0));
  }
}

TEST_CASE("tiny gradients are kept, tiny activations go to zero", "[fp8]") {
  for (const float size : {1e-7F, 1e-20F, 1e-30F}) {
    Owned x = normal(1, 128, 3), w = normal(1, 128, 4), y(1, 1), unscaled(1, 1);
    for (std::int64_t j = 0; j < 128; ++j) x.set(0, j, x.at(0, j) * static_cast<double>(size));
    run_op(Product{.a = x, .b = w, .c = unscaled, .transpose_b = true});
    run_op(
        Product{.a = x, .b = w, .c = y, .transpose_b = true, .a_scaling = kGradientTiles, .b_scaling = kWeightBlocks});
    INFO("size " << size);
    // Two roundings to four bits of 128 terms of random sign: 2 sqrt(128) 2^-4 of a term, at most.
    CHECK(std::abs(y.at(0, 0) - unscaled.at(0, 0)) < 1.5 * static_cast<double>(size));
    CHECK(y.at(0, 0) != 0);
    const Quantized activations(x, kActivationTiles);
    CHECK(((activations.code(0, 0) & 0x7F) == 0) == (size < 1e-10F));
  }
}

TEST_CASE("an infinity or a NaN spoils its tile and no other", "[fp8]") {
  for (const float bad : {kInfinity, -kInfinity, kNaN}) {
    const Owned x = normal(3, 300, 1), w = normal(4, 300, 2), y(3, 4), healthy(3, 4);
    run_op(linear_forward(true, x, w, healthy));
    x.tensor().row<float>(1)[140] = bad;
    const Quantized q(x, kActivationTiles);
    CHECK((q.code(1, 140) & 0x7F) == 0x7F);
    CHECK((std::isfinite(q.scales.at(1, 0)) && !std::isfinite(q.scales.at(1, 1)) && std::isfinite(q.scales.at(2, 1))));
    run_op(linear_forward(true, x, w, y));
    for (std::int64_t j = 0; j < 4; ++j)
      CHECK((std::isnan(y.at(1, j)) && y.at(0, j) == healthy.at(0, j) && y.at(2, j) == healthy.at(2, j)));
  }
}

TEST_CASE("scaled products of a linear layer are the naive chains, bit for bit", "[fp8]") {
  for (const Dtype type : {Dtype::f32, Dtype::bf16})
    for (const auto& [tokens, in, out] :
         {std::tuple{1, 1, 1}, {2, 130, 40}, {13, 300, 33}, {40, 96, 200}, {140, 257, 129}, {530, 20, 37}}) {
      INFO(tokens << " tokens, " << in << " to " << out);
      const Owned x = normal(tokens, in, 1, type, 3), w = normal(out, in, 2, type), dy = normal(tokens, out, 3, type);
      const Owned bias = normal(1, out, 4), add = normal(tokens, out, 5);
      const Owned y(tokens, out, type, 7), u(tokens, out), dx(tokens, in, type), dw = normal(out, in, 6);
      CHECK(wrong_elements(linear_forward(true, x, w, y)) == 0);
      Product extended = linear_forward(true, x, w, u);
      extended.bias = bias, extended.add = add;
      CHECK(wrong_elements(extended) == 0);
      CHECK(wrong_elements(linear_input_gradient(true, dy, w, dx)) == 0);
      CHECK(wrong_elements(linear_weight_gradient(true, dy, x, dw)) == 0);
      CHECK(y.canaries_alive());
    }
}

TEST_CASE("a row of a scaled product has the same bits alone or among any number of rows", "[fp8]") {
  const Owned x = normal(600, 200, 1, Dtype::bf16), w = normal(70, 200, 2, Dtype::bf16), y(600, 70);
  run_op(linear_forward(true, x, w, y));
  for (const auto& [begin, count] : {std::pair{0, 1}, {599, 1}, {17, 2}, {100, 13}, {511, 2}, {250, 300}}) {
    const Owned some(count, 70);
    run_op(linear_forward(true, x.tensor().row_range(begin, count), w, some));
    CHECK(same_bits(some, y.tensor().row_range(begin, count)));
  }
}

TEST_CASE("an accumulating scaled product may be cut between tiles of tokens, and nowhere else", "[fp8]") {
  const Owned dy = normal(300, 40, 1, Dtype::bf16), x = normal(300, 50, 2, Dtype::bf16), whole = normal(40, 50, 3);
  run_op(linear_weight_gradient(true, dy, x, whole));
  const auto cut_at = [&](std::int64_t cut) {
    Owned dw = normal(40, 50, 3);
    for (const auto& [begin, count] : {std::pair{std::int64_t{0}, cut}, std::pair{cut, 300 - cut}})
      run_op(linear_weight_gradient(true, dy.tensor().row_range(begin, count), x.tensor().row_range(begin, count), dw));
    return dw;
  };
  CHECK(same_bits(cut_at(128), whole));
  CHECK(same_bits(cut_at(256), whole));
  CHECK(!same_bits(cut_at(127), whole));
}

TEST_CASE("rows of zeros behind a run change no bit of a weight gradient", "[fp8]") {
  const Owned dy = normal(256, 40, 1, Dtype::bf16), x = normal(256, 50, 2, Dtype::bf16);
  run_op(Fill{dy.tensor().row_range(150, 106), 0});
  run_op(Fill{x.tensor().row_range(150, 106), 0});
  const Owned padded = normal(40, 50, 3), ragged = normal(40, 50, 3);
  run_op(linear_weight_gradient(true, dy, x, padded));
  run_op(linear_weight_gradient(true, dy.tensor().row_range(0, 150), x.tensor().row_range(0, 150), ragged));
  CHECK(same_bits(padded, ragged));
}

// ---- Weights that are codes already ----

TEST_CASE("a weight's codes and scales, both ways round, are those that products make of it", "[fp8]") {
  for (const Dtype type : {Dtype::f32, Dtype::bf16})
    for (const auto& [rows, cols] : {std::pair{1, 1}, {3, 130}, {129, 127}, {260, 40}, {256, 384}}) {
      INFO(rows << " x " << cols);
      const Owned w = normal(rows, cols, 7, type, 5);
      const CodedWeight coded(w);
      const NaiveTiles naive(w, kWeightBlocks, false);
      int wrong = 0;
      for (std::int64_t i = 0; i < rows; ++i)
        for (std::int64_t j = 0; j < cols; ++j) {
          const std::uint8_t code = naive.code(i, j);
          wrong += coded.codes.tensor().row<std::uint8_t>(i)[j] != code;
          wrong += coded.turned.tensor().row<std::uint8_t>(j)[i] != code;
          const auto scale = static_cast<double>(naive.scale(i, j));
          wrong += coded.scales.at(j / 128, i / 128) != scale || coded.turned_scales.at(i / 128, j / 128) != scale;
        }
      CHECK(wrong == 0);
      for (const Tensor* const one : {&coded.codes.tensor(), &coded.turned.tensor()})
        for (std::int64_t i = 0; i < one->rows; ++i)
          for (std::int64_t j = one->cols; j < one->stride; ++j) CHECK(one->row<std::uint8_t>(i)[j] == 0);
    }
}

TEST_CASE("a product that reads a weight's codes has the bits of one that quantizes it", "[fp8]") {
  for (const Dtype type : {Dtype::f32, Dtype::bf16})
    for (const auto& [tokens, in, out] :
         {std::tuple{1, 1, 1}, {2, 130, 40}, {13, 300, 33}, {40, 96, 200}, {140, 257, 129}, {530, 20, 37}}) {
      INFO(tokens << " tokens, " << in << " to " << out);
      const Owned x = normal(tokens, in, 1, type, 3), w = normal(out, in, 2, type), dy = normal(tokens, out, 3, type);
      const Owned bias = normal(1, out, 4), add = normal(tokens, out, 5);
      const Owned y(tokens, out, type), expected_y(tokens, out, type), dx(tokens, in), expected_dx(tokens, in);
      const CodedWeight coded(w);
      run_op(linear_forward(true, x, w, expected_y, bias, add));
      run_op(linear_forward(true, x, coded.matrix(), y, bias, add));
      CHECK(same_bits(y, expected_y));
      run_op(linear_input_gradient(true, dy, w, expected_dx));
      run_op(linear_input_gradient(true, dy, coded.matrix(), dx));
      CHECK(same_bits(dx, expected_dx));
    }
}

TEST_CASE("a spoiled weight spoils a product that reads its codes", "[fp8]") {
  for (const float bad : {kInfinity, kNaN}) {
    const Owned x = normal(2, 300, 1), w = normal(200, 300, 2), y(2, 200);
    w.tensor().row<float>(3)[140] = bad;
    run_op(linear_forward(true, x, CodedWeight(w).matrix(), y));
    CHECK((std::isnan(y.at(0, 3)) && std::isnan(y.at(1, 127)) && std::isfinite(y.at(0, 128))));
  }
}

TEST_CASE("a weight's codes are digested as they are written", "[fp8]") {
  const Owned w = normal(130, 70, 1, Dtype::bf16), noted = integers(4, 4, std::vector<std::int32_t>(16));
  const Owned found = integers(4, 4, std::vector<std::int32_t>(16));
  const CodedWeight coded(w);
  Quantize op = coded.op;
  op.digests = noted;
  run_op(op);
  const auto read_back = [&] {
    for (std::int64_t i = 0; i < 4; ++i)
      run_op(Digest{digested(op)[static_cast<std::size_t>(i)], {}, found.tensor().row_range(i, 1)});
  };
  read_back();
  CHECK(same_bits(found, noted));
  coded.turned.tensor().row<std::uint8_t>(69)[129] ^= 1;
  read_back();
  CHECK(!same_bits(found, noted));
  CHECK(same_bits(found.tensor().row_range(0, 2), noted.tensor().row_range(0, 2)));
}

TEST_CASE("an owner's codes are of the weights that products in FP8 read, as they read them", "[fp8]") {
  ModelConfig config;
  config.q_lora_rank = 64;
  const ParameterBlock block(model_parameters(config));
  const auto names_of = [&](bool mlp, bool attention, const std::string& layer) {
    std::vector<std::string> names;
    const CodedBlock coded(block, mlp, attention);
    for (const CodedBlock::Entry& entry : coded.entries()) {
      const Parameter &first = block.parameters()[entry.first], &last = block.parameters()[entry.last];
      if (first.name.find(layer) == std::string::npos || first.expert > 0) continue;
      names.push_back(first.name.substr(first.name.find(layer) + layer.size()));
      if (entry.last > entry.first) names.back() += " to " + last.name.substr(last.name.find(layer) + layer.size());
    }
    return names;
  };
  CHECK(CodedBlock(block, false, false).bytes() == 0);
  CHECK(names_of(true, false, "layers.0.") ==
        std::vector<std::string>{"mlp.gate_proj.weight to mlp.up_proj.weight", "mlp.down_proj.weight"});
  CHECK(names_of(true, true, "layers.0.") ==
        std::vector<std::string>{"self_attn.q_a_proj.weight to self_attn.kv_a_proj_with_mqa.weight",
                                 "self_attn.q_b_proj.weight", "self_attn.kv_b_proj.weight", "self_attn.o_proj.weight",
                                 "mlp.gate_proj.weight to mlp.up_proj.weight", "mlp.down_proj.weight"});
  CHECK(names_of(true, false, "layers.1.mlp.experts.0.") ==
        std::vector<std::string>{"gate_proj.weight to up_proj.weight", "down_proj.weight"});
  const CodedBlock coded(block, true, false);
  std::size_t end = 0;
  for (const CodedBlock::Entry& entry : coded.entries()) {
    CHECK((entry.begin >= end && entry.begin % 256 == 0));
    end = entry.begin + static_cast<std::size_t>(2 * entry.rows * entry.cols);
    std::int64_t rows = 0;
    for (std::size_t p = entry.first; p <= entry.last; ++p) rows += block.parameters()[p].rows;
    CHECK(entry.rows == rows);
  }
  CHECK(coded.bytes() >= end);
}

// ---- Which products are scaled --------------------------------------------------------------------------------------

namespace {

// Of a layer with experts, or without: its weights and everything that it computes with, as shapes alone.
struct Shapes {
  explicit Shapes(bool with_fp8, bool with_attention = false) : fp8(with_fp8), fp8_attention(with_attention) {
    config.q_lora_rank = 64;
    scratch = carve_scratch(carver, config, shape());
  }
  SlotShape shape() const { return {256, 2, Dtype::bf16, fp8, fp8_attention}; }
  Tensor matrix(std::int64_t rows, std::int64_t cols) { return carver.tensor(rows, cols, Dtype::bf16); }
  LayerTensors weights(int layer) {
    const auto find = [this, layer](const std::string& first, const std::string& last) {
      Tensor all;
      for (const Parameter& p : model_parameters(config)) {
        if (p.layer != layer || (!all && p.name != first)) continue;
        all = all ? Tensor{all.data, all.rows + p.rows, all.cols, all.stride, all.dtype} : matrix(p.rows, p.cols);
        if (p.name == last) break;
      }
      return all;
    };
    return bind_layer(config, layer, find, find);
  }
  ModelConfig config;
  bool fp8, fp8_attention;
  Carver carver;
  SlotScratch scratch;
};

// All products of a step of one layer.
Ops layer_ops(Shapes& shapes, int layer) {
  const LayerSlot slot =
      first_rows(carve_layer(shapes.carver, shapes.config, layer, shapes.shape(), shapes.scratch), 128, 1);
  const LayerTensors w = shapes.weights(layer);
  Ops ops;
  attention_forward(ops, shapes.config, layer, w, slot, {});
  mlp_forward(ops, w, slot);
  mlp_backward(ops, w, slot, shapes.scratch);
  if (shapes.config.is_moe_layer(layer)) routed_backward(ops, shapes.config, w, slot, shapes.scratch, {});
  attention_backward(ops, shapes.config, w, slot, shapes.scratch, {}, slot.x);
  weight_gradients(ops, slot, w);
  return ops;
}

Ops expert_ops(Shapes& shapes) {
  const ChunkSlot chunk = first_rows(carve_chunk(shapes.carver, shapes.config, 100, Dtype::bf16, shapes.fp8), 64);
  const int d = shapes.config.hidden_size, i = shapes.config.moe_intermediate_size;
  const std::vector<ExpertTensors> w{{shapes.matrix(2 * i, d), shapes.matrix(d, i)}};
  const Tensor rows = shapes.matrix(64, d), column = shapes.matrix(64, 1);
  Ops ops;
  expert_forward(ops, w, {64}, chunk, rows);
  expert_backward(ops, w, {64}, chunk, true, rows, column, rows, column);
  expert_weight_gradients(ops, {64}, chunk, w, 0, 1);
  return ops;
}

// Scaled as its form asks, or not at all.
struct Counted {
  int scaled = 0, plain = 0;
};
Counted count_products(const Ops& ops) {
  Counted counted;
  for (const Op& op : ops) {
    const auto count = [&](const Product& product) {
      ++(product.a_scaling ? counted.scaled : counted.plain);
      if (!product.a_scaling) return;
      CHECK(product.a_scaling == (product.transpose_b ? kActivationTiles : kGradientTiles));
      CHECK(product.b_scaling == (product.transpose_a ? kActivationTiles : kWeightBlocks));
    };
    if (const auto* product = std::get_if<Product>(&op)) count(*product);
    if (const auto* grouped = std::get_if<GroupedProduct>(&op)) each_product(*grouped, count);
  }
  return counted;
}

}  // namespace

TEST_CASE(
    "in FP8 the three products of an MLP's linear layers are scaled, attention's as asked, the router's and the head's "
    "never",
    "[fp8]") {
  Shapes shapes(true, true), mlp_alone(true), halves(false);
  // in, q_b, kv_b, o, gate|up and down, each forward and twice backward; with experts the router's two beside them.
  const Counted dense = count_products(layer_ops(shapes, 0)), sparse = count_products(layer_ops(shapes, 1));
  CHECK((dense.scaled == 18 && dense.plain == 0));
  CHECK((sparse.scaled == 18 && sparse.plain == 2));
  for (const int layer : {0, 1}) {
    const Counted mlp = count_products(layer_ops(mlp_alone, layer));
    CHECK((mlp.scaled == 6 && mlp.plain == 12 + 2 * layer));
  }
  const Counted expert = count_products(expert_ops(shapes));  // gate|up is computed again
  CHECK((expert.scaled == 7 && expert.plain == 0));
  CHECK(count_products(layer_ops(halves, 1)).scaled + count_products(expert_ops(halves)).scaled == 0);
  const HeadSlot head = carve_head(shapes.carver, shapes.config, shapes.shape());
  Ops ops;
  head_loss(ops, {shapes.matrix(1, 128), shapes.matrix(256, 128)}, head, {}, 1, true);
  head_weight_gradients(ops, head, {}, shapes.matrix(256, 128));
  CHECK(count_products(ops).scaled == 0);
}

TEST_CASE("a forward product in fp8 beside bfloat16, by rows", "[.][bench]") {
  const Owned w = normal(512, 512, 2, Dtype::bf16);
  const CodedWeight coded(w);
  for (const std::int64_t rows : {1, 8, 32, 128, 512}) {
    const Owned x = normal(rows, 512, 1, Dtype::bf16), y(rows, 512);
    const Product scaled = linear_forward(true, x, w, y), plain{.a = x, .b = w, .c = y, .transpose_b = true};
    const Product read = linear_forward(true, x, coded.matrix(), y);
    cpu::Scratch scratch;
    const auto us_of = [&](const Product& op) {
      scratch.reset();
      const auto begin = std::chrono::steady_clock::now();
      cpu::run(op, scratch);
      return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count();
    };
    double halves = us_of(plain), fp8 = us_of(scaled), codes = us_of(read);
    for (int round = 1; round < 30; ++round) {
      halves = std::min(halves, us_of(plain));
      fp8 = std::min(fp8, us_of(scaled)), codes = std::min(codes, us_of(read));
    }
    WARN(rows << " rows: of codes " << codes << " us, bfloat16 " << halves << ": " << codes / halves << " times; "
              << "quantizing the weight " << fp8 / halves << " times");
  }
}
