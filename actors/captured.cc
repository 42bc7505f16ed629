#include "actors/captured.h"

namespace troupe {

namespace {

Capture::Values values_of(const Tensor& t, std::vector<std::int64_t> shape) {
  Capture::Values out{std::move(shape), {}, {}};
  for (std::int64_t i = 0; i < t.elements(); ++i) {
    switch (t.dtype) {
      case Dtype::f32:
        out.f32.push_back(t.row<float>(0)[i]);
        break;
      case Dtype::bf16:
        out.f32.push_back(from_bf16(t.row<std::uint16_t>(0)[i]));
        break;
      case Dtype::i32:
        out.i64.push_back(t.row<std::int32_t>(0)[i]);
        break;
      case Dtype::f64:
        out.f32.push_back(static_cast<float>(t.row<double>(0)[i]));
        break;
      case Dtype::e4m3:
        out.f32.push_back(from_e4m3(t.row<std::uint8_t>(0)[i]));
        break;
    }
  }
  return out;
}

}  // namespace

void Captured::add(Ops& ops, PayloadPool& pool, std::string name, const Tensor& tensor,
                   std::vector<std::int64_t> shape) {
  Payload payload = pool.take(static_cast<std::size_t>(tensor.elements()) * bytes_of(tensor.dtype));
  const Tensor copy = tensor_of(payload, tensor.rows, tensor.cols, tensor.dtype);
  ops.push_back(Copy{tensor, copy});
  all_.push_back({std::move(name), std::move(shape), std::move(payload), copy});
}

void Captured::add_gradients(Ops& ops, PayloadPool& pool, const Owner& owner) {
  const std::vector<Parameter>& parameters = owner.trained().parameters();
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const Parameter& p = parameters[i];
    if (p.kind == ParameterKind::router_bias) continue;
    add(ops, pool, "grad." + p.name, owner.gradient(i),
        p.dimensions == 1 ? std::vector<std::int64_t>{p.cols} : std::vector<std::int64_t>{p.rows, p.cols});
  }
}

void Captured::show(Capture& capture) {
  for (One& one : all_) capture.values[one.name] = values_of(one.copy, std::move(one.shape));
  all_.clear();
}

}  // namespace troupe
