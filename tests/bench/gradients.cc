// How far the gradient of one type of training stands from another's, at the same weights and on the same batch: the
// cosine between the two of each layer, and of the worst tensor in it. The weights are those of a checkpoint, or drawn.
#include <fmt/core.h>

#include <cmath>
#include <map>
#include <regex>
#include <string>
#include <vector>

#include "actors/checkpoint/manifest.h"
#include "kernels/base/log.h"
#include "launcher/config.h"
#include "launcher/machine.h"
#include "launcher/world.h"

namespace {

using namespace troupe;

struct Options {
  std::string config, weights;
  std::vector<std::string> sets, types{"bfloat16", "fp8"};
};

// The gradient of step 0's batch by the tensors' names, before clipping.
std::map<std::string, Capture::Values> gradients_in(const std::string& type, const Options& options) {
  std::vector<std::string> sets = options.sets;
  for (const char* off : {"evaluate.every_steps=0", "evaluate.exact_match_problems=0", "evaluate.tokens_max=1",
                          "checkpoint.every_steps=0", "train.steps=1"})
    sets.emplace_back(off);
  sets.push_back("train.dtype=" + type);
  Config config = load_config(options.config, sets);
  resolve_machine(config);
  Capture capture;
  capture.forward = false;
  WorldOptions world_options;
  world_options.corpus = open_corpus(config);
  world_options.capture = &capture;
  World world(config, world_options);
  Recover begin;
  begin.path = options.weights.empty() ? "" : resolve_checkpoint(options.weights);
  begin.weights_only = !begin.path.empty();
  world.recover(begin);
  bool done = false;
  world.run([&](const Report& report) { done = done || report.kind == "step"; }, [&] { return done; });
  return std::move(capture.values);
}

struct Dots {
  double ab = 0, aa = 0, bb = 0;
  void add(const std::vector<float>& a, const std::vector<float>& b) {
    for (std::size_t i = 0; i < a.size(); ++i) {
      const double x = a[i], y = b[i];
      ab += x * y, aa += x * x, bb += y * y;
    }
  }
  double cosine() const { return ab / std::sqrt(aa * bb); }
};

std::string layer_of(const std::string& name) {
  std::smatch found;
  return std::regex_search(name, found, std::regex("layers\\.([0-9]+)\\.")) ? "layer " + found[1].str()
                                                                            : name.substr(name.find('.') + 1);
}

void compare(const Options& options) {
  const auto first = gradients_in(options.types[0], options), second = gradients_in(options.types[1], options);
  std::map<std::string, Dots> layers;
  std::map<std::string, std::pair<double, std::string>> worst;
  for (const auto& [name, values] : first) {
    if (!name.starts_with("grad.")) continue;
    const std::string layer = layer_of(name);
    Dots own;
    for (Dots* dots : {&own, &layers[layer]}) dots->add(values.f32, second.at(name).f32);
    const auto known = worst.find(layer);
    if (own.aa > 0 && (known == worst.end() || own.cosine() < known->second.first))
      worst[layer] = {own.cosine(), name.substr(5)};
  }
  for (const auto& [layer, dots] : layers)
    fmt::print("{:28} {:.5f}   norms {:.4g} {:.4g}   least {:.5f} {}\n", layer, dots.cosine(), std::sqrt(dots.aa),
               std::sqrt(dots.bb), worst[layer].first, worst[layer].second);
}

constexpr const char* kUsage =
    "usage: gradients CONFIG [--set KEY=VALUE]... [--weights CHECKPOINT] [--types FIRST SECOND]\n";

}  // namespace

int main(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const auto value = [&] { return std::string(i + 1 < argc ? argv[++i] : ""); };
    if (word == "--help") {
      fmt::print("{}", kUsage);
      return 0;
    }
    if (word == "--set")
      options.sets.push_back(value());
    else if (word == "--weights")
      options.weights = value();
    else if (word == "--types")
      options.types = {value(), value()};
    else
      options.config = word;
  }
  if (options.config.empty()) {
    fmt::print(stderr, "{}", kUsage);
    return 2;
  }
  start_log("gradients", "", LogLevel::warning);
  try {
    compare(options);
  } catch (const std::exception& error) {
    fmt::print(stderr, "gradients: {}\n", error.what());
    return 1;
  }
  return 0;
}
