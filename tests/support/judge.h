// The judge of fixtures: a candidate's tensors against the expected ones, by class of tensor. The law is the table of
// tests/fixtures/README.md ("Tolerances for a float32 implementation"), the same that the reference's judge applies.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace troupe::test {

// A tensor in memory: either float64 values or integers.
struct Values {
  std::vector<std::int64_t> shape;
  std::vector<double> numbers;
  std::vector<std::int64_t> integers;
  bool is_integer = false;
};
using Tensors = std::map<std::string, Values>;

Tensors load_tensors(const std::string& path);  // a safetensors file

struct Judgement {
  std::vector<std::string> compared, failures;  // names; sentences
  std::map<std::string, double> worst;          // class -> largest difference over the tensor's largest value
  std::vector<std::string> missing;             // expected, not in the candidate
  std::string text() const;                     // the failures, a line each
};

// learning_rate: of the fixture's train.json; Adam may move a parameter whose gradient is noise by that much a step.
Judgement judge(Tensors expected, Tensors candidate, double learning_rate);

// Of a fixture of the GRPO loss.
Judgement judge_grpo(const Tensors& expected, const Tensors& candidate);

}  // namespace troupe::test
