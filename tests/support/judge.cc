#include "tests/support/judge.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "actors/checkpoint/safetensors.h"
#include "kernels/base/check.h"

namespace troupe::test {

namespace {

struct Tolerance {
  double absolute = 0, relative = 0;  // relative: to the tensor's largest absolute value
};

// The class is the name up to the first dot. Measured noise of a float32 implementation is about ten times smaller.
Tolerance tolerance_of(const std::string& kind) {
  static const std::map<std::string, Tolerance> kTable = {
      {"logits", {0, 1e-5}},     {"hidden", {0, 1e-5}},  {"mtp", {0, 1e-5}},
      {"router", {0, 1e-5}},     {"loss", {0, 2e-6}},    {"total_loss", {0, 2e-6}},
      {"mtp_loss", {0, 2e-6}},   {"grad", {1e-7, 2e-5}}, {"balance_loss", {0, 2e-6}},
      {"step", {0, 2e-5}},       {"bias", {1e-6, 0}},    {"balance_loss_selected", {0, 2e-6}},
      {"step_logits", {0, 1e-5}}};
  const auto found = kTable.find(kind);
  CHECK(found != kTable.end(), "no tolerance for tensors of class {}", kind);
  return found->second;
}

// After three steps of Adam: an element whose gradient is near zero takes a step of about the learning rate whichever
// way noise turns it. So one element in 500 may be off, by at most twice three such steps.
constexpr double kTrainedClose = 2e-5, kTrainedShare = 0.002, kTrainedSteps = 6, kBiasClose = 1e-6;

std::string class_of(const std::string& name) { return name.substr(0, name.find('.')); }

// Rows of K chosen experts in the order of their numbers; the weights go along.
void sort_choice(Tensors& tensors, const std::string& prefix) {
  const auto found = tensors.find(prefix + "topk_indices");
  if (found == tensors.end() || found->second.shape.size() != 2) return;
  auto& indices = found->second.integers;
  const auto k = static_cast<std::size_t>(found->second.shape[1]);
  const auto weights = tensors.find(prefix + "topk_weights");
  const bool weighted = weights != tensors.end() && weights->second.numbers.size() == indices.size();
  for (std::size_t row = 0; row + k <= indices.size(); row += k) {
    std::vector<std::pair<std::int64_t, double>> choice;
    for (std::size_t i = row; i < row + k; ++i)
      choice.emplace_back(indices[i], weighted ? weights->second.numbers[i] : 0);
    std::sort(choice.begin(), choice.end());
    for (std::size_t i = 0; i < k; ++i) {
      indices[row + i] = choice[i].first;
      if (weighted) weights->second.numbers[row + i] = choice[i].second;
    }
  }
}

struct Difference {
  double largest = 0, top = 0;  // |candidate - expected|, |expected|
  double far_share = 0;         // of elements beyond kTrainedClose
  bool finite = true;
};

Difference difference_of(const Values& expected, const Values& candidate) {
  Difference d;
  std::size_t far = 0;
  for (std::size_t i = 0; i < expected.numbers.size(); ++i) {
    const double off = std::abs(candidate.numbers[i] - expected.numbers[i]);
    d.finite = d.finite && std::isfinite(candidate.numbers[i]);
    d.largest = std::max(d.largest, off);
    d.top = std::max(d.top, std::abs(expected.numbers[i]));
    far += off > kTrainedClose ? 1 : 0;
  }
  if (!expected.numbers.empty()) d.far_share = static_cast<double>(far) / static_cast<double>(expected.numbers.size());
  return d;
}

bool is_close(const std::string& name, const Difference& d, double learning_rate) {
  if (class_of(name) != "after3") {
    const Tolerance t = tolerance_of(class_of(name));
    return d.largest <= t.absolute + t.relative * d.top;
  }
  if (name.ends_with("e_score_correction_bias")) return d.largest <= kBiasClose;
  return d.far_share <= kTrainedShare && d.largest <= kTrainedSteps * learning_rate;
}

std::string shape_text(const std::vector<std::int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

// What is wrong with one tensor, or "".
std::string complaint(const std::string& name, const Values& expected, const Values& candidate, double learning_rate,
                      double& worst) {
  if (expected.shape != candidate.shape) {
    return fmt::format("{}: shape {}, must be {}", name, shape_text(candidate.shape), shape_text(expected.shape));
  }
  if (expected.is_integer != candidate.is_integer) return name + ": integers and floats don't compare";
  if (expected.is_integer) return expected.integers == candidate.integers ? "" : name + ": integers differ";
  const Difference d = difference_of(expected, candidate);
  if (!d.finite) return name + ": not finite";
  worst = std::max(worst, d.top > 0 ? d.largest / d.top : d.largest);
  if (is_close(name, d, learning_rate)) return "";
  return fmt::format("{}: off by {:.2e}, its largest value is {:.2e}", name, d.largest, d.top);
}

}  // namespace

Tensors load_tensors(const std::string& path) {
  const SafetensorsReader reader(path);
  Tensors tensors;
  for (const auto& [name, entry] : reader.entries()) {
    Values values{entry.shape, {}, {}, entry.dtype.starts_with("I")};
    if (values.is_integer) {
      values.integers = reader.read_i64(name);
    } else {
      std::vector<float> floats(static_cast<std::size_t>(entry.elements()));
      reader.read_f32(name, 0, entry.elements(), floats.data());
      values.numbers.assign(floats.begin(), floats.end());
    }
    tensors[name] = std::move(values);
  }
  return tensors;
}

std::string Judgement::text() const {
  std::string lines;
  for (const std::string& failure : failures) lines += failure + "\n";
  return lines;
}

Judgement judge(Tensors expected, Tensors candidate, double learning_rate) {
  const std::string indices = "topk_indices";
  for (const auto& [name, values] : Tensors(expected)) {
    if (!name.ends_with(indices)) continue;
    const std::string prefix = name.substr(0, name.size() - indices.size());
    sort_choice(expected, prefix);
    sort_choice(candidate, prefix);
  }
  Judgement judgement;
  for (const auto& [name, values] : expected) {
    const auto found = candidate.find(name);
    if (found == candidate.end()) {
      judgement.missing.push_back(name);
      continue;
    }
    judgement.compared.push_back(name);
    const std::string wrong = complaint(name, values, found->second, learning_rate, judgement.worst[class_of(name)]);
    if (!wrong.empty()) judgement.failures.push_back(wrong);
  }
  return judgement;
}

// The losses' terms cancel: an absolute tolerance.
Judgement judge_grpo(const Tensors& expected, const Tensors& candidate) {
  Judgement judgement;
  for (const auto& [name, values] : expected) {
    const auto found = candidate.find(name);
    if (found == candidate.end()) {
      judgement.missing.push_back(name);
      continue;
    }
    judgement.compared.push_back(name);
    if (values.shape != found->second.shape) {
      judgement.failures.push_back(name + ": of another shape");
      continue;
    }
    const Difference d = difference_of(values, found->second);
    double& worst = judgement.worst[name];
    worst = std::max(worst, d.top > 0 ? d.largest / d.top : d.largest);
    const double tolerance = name == "loss" ? 1e-6 : 1e-7 + 2e-6 * d.top;
    if (!d.finite || d.largest > tolerance)
      judgement.failures.push_back(
          fmt::format("{}: off by {:.2e}, its largest value is {:.2e}", name, d.largest, d.top));
  }
  return judgement;
}

}  // namespace troupe::test
