// judge_fixture FIXTURE CANDIDATE [--bfloat16]: does a file that `troupe check` wrote hold the fixture's expected tensors?
// Prints one line and what is wrong; the exit code says it too. tests/gpu/run asks it where no test program runs.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "launcher/tools.h"
#include "tests/support/judge.h"

using namespace troupe::test;

namespace {

// Of what bfloat16 arithmetic costs a logit (tests/fixture_test.cc measures 1.2 %).
constexpr double kHalfShare = 0.02;

// The share of the largest logit by which the farthest is off.
double off_of(const Values& expected, const Values& candidate) {
  double top = 0, most = 0;
  if (expected.numbers.size() != candidate.numbers.size()) return 1;
  for (std::size_t i = 0; i < expected.numbers.size(); ++i) {
    const double off = std::abs(expected.numbers[i] - candidate.numbers[i]);
    if (!std::isfinite(off)) return 1;
    top = std::max(top, std::abs(expected.numbers[i]));
    most = std::max(most, off);
  }
  return most / top;
}

int tell(const std::string& name, const Judgement& judgement) {
  std::string farthest;
  double most = -1;
  for (const auto& [kind, off] : judgement.worst)
    if (off > most) most = off, farthest = kind;
  const bool right = judgement.failures.empty() && judgement.missing.empty() && !judgement.compared.empty();
  fmt::print("{}: {}, {} tensors, farthest {}: off by {:.1e} of the largest value\n{}", name, right ? "right" : "WRONG",
             judgement.compared.size(), farthest, most, judgement.text());
  for (const std::string& missing : judgement.missing) fmt::print("{}: missing\n", missing);
  return right ? 0 : 1;
}

int judged(const std::string& folder, const std::string& file, bool half) {
  const std::string name = std::filesystem::path(folder).filename().string();
  Tensors expected = load_tensors(folder + "/expected.safetensors");
  const Tensors candidate = load_tensors(file);
  if (half) {
    const double off = off_of(expected.at("logits"), candidate.at("logits"));
    fmt::print("{}: {}, logits off by {:.1e} of the largest in bfloat16\n", name, off < kHalfShare ? "right" : "WRONG",
               off);
    return off < kHalfShare ? 0 : 1;
  }
  if (troupe::is_grpo_fixture(folder)) return tell(name, judge_grpo(expected, candidate));
  std::ifstream train(folder + "/train.json");
  const double rate = nlohmann::json::parse(train).at("lr");
  if (std::filesystem::exists(folder + "/greedy.safetensors")) {
    Tensors greedy = load_tensors(folder + "/greedy.safetensors");
    greedy.erase("prompt");
    expected.merge(greedy);
  }
  return tell(name, judge(expected, candidate, rate));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: judge_fixture FIXTURE CANDIDATE [--bfloat16]\n");
    return 2;
  }
  try {
    return judged(argv[1], argv[2], argc > 3 && std::string(argv[3]) == "--bfloat16");
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "judge_fixture: %s\n", problem.what());
    return 1;
  }
}
