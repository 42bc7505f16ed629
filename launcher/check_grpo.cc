// `troupe check` on a fixture of the GRPO loss: the rules and the kernel that train, on given logits and rewards.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "actors/checkpoint/safetensors.h"
#include "actors/rules/grpo.h"
#include "kernels/base/error.h"
#include "launcher/config.h"
#include "launcher/machine.h"
#include "launcher/tools.h"

namespace troupe {

using nlohmann::json;

namespace {

struct GrpoFixture {
  GrpoConfig config;
  std::int64_t samples = 0, length = 0, vocabulary = 0;
  std::vector<float> logits, old_logprobs, reference_logprobs;
  std::vector<std::int64_t> ids, mask;
  std::vector<double> rewards;
  std::vector<std::int64_t> lengths;  // trained tokens of each sample
};

const SafetensorsEntry& entry_of(const SafetensorsReader& file, const std::string& path, const std::string& name) {
  const auto found = file.entries().find(name);
  if (found == file.entries().end()) throw Error("{}: the tensor {} is missing", path, name);
  return found->second;
}

// So many values as the logits' shape asks for.
std::vector<float> read_f32(const SafetensorsReader& file, const std::string& path, const std::string& name,
                            std::int64_t elements) {
  const SafetensorsEntry& entry = entry_of(file, path, name);
  if (entry.elements() != elements)
    throw Error("{}: the tensor {} has {} elements, must have {}", path, name, entry.elements(), elements);
  std::vector<float> values(static_cast<std::size_t>(elements));
  file.read_f32(name, 0, elements, values.data());
  return values;
}

std::vector<std::int64_t> read_i64(const SafetensorsReader& file, const std::string& path, const std::string& name,
                                   std::int64_t elements) {
  const SafetensorsEntry& entry = entry_of(file, path, name);
  if (entry.dtype != "I64" && entry.dtype != "I32")
    throw Error("{}: the tensor {} is of {}, must be of I64 or I32", path, name, entry.dtype);
  if (entry.elements() != elements)
    throw Error("{}: the tensor {} has {} elements, must have {}", path, name, entry.elements(), elements);
  return file.read_i64(name);
}

// A key of the fixture's config.json.
template <typename T>
void take(const json& given, const std::string& path, const char* key, T& value) {
  if (!given.contains(key)) throw Error("{}: the key {} is missing", path, key);
  try {
    given.at(key).get_to(value);
  } catch (const json::exception&) {
    throw Error("{}: the key {} is {}, which is of another type than it must be", path, key, given.at(key).dump());
  }
}

GrpoConfig read_config(const std::string& path) {
  std::ifstream in(path);
  const json given = json::parse(in, nullptr, false);
  if (!given.is_object()) throw Error("{}: not a JSON object", path);
  GrpoConfig config;
  take(given, path, "group_size", config.group_size);
  take(given, path, "clip_low", config.clip_low);
  take(given, path, "clip_high", config.clip_high);
  take(given, path, "beta", config.beta);
  take(given, path, "scale_by_std", config.scale_by_std);
  take(given, path, "std_ddof", config.std_ddof);
  take(given, path, "adv_eps", config.advantage_epsilon);
  take(given, path, "reduction", config.reduction);
  if (config.reduction != "sequence_mean" && config.reduction != "token_mean" && config.reduction != "constant")
    throw Error("{}: reduction is \"{}\", must be sequence_mean, token_mean or constant", path, config.reduction);
  return config;
}

GrpoFixture load(const std::string& folder) {
  const std::string path = folder + "/inputs.safetensors";
  GrpoFixture f;
  f.config = read_config(folder + "/config.json");
  const SafetensorsReader inputs(path);
  const auto& shape = entry_of(inputs, path, "logits").shape;  // (samples, length, vocabulary)
  if (shape.size() != 3) throw Error("{}: the tensor logits has {} dimensions, must have 3", path, shape.size());
  f.samples = shape[0], f.length = shape[1], f.vocabulary = shape[2];
  if (f.config.group_size < 1 || f.samples % f.config.group_size != 0)
    throw Error("{}: {} rows are no whole groups of {}", folder, f.samples, f.config.group_size);
  const std::int64_t cells = f.samples * f.length;
  f.logits = read_f32(inputs, path, "logits", cells * f.vocabulary);
  f.old_logprobs = read_f32(inputs, path, "old_logprobs", cells);
  f.reference_logprobs = read_f32(inputs, path, "ref_logprobs", cells);
  f.ids = read_i64(inputs, path, "input_ids", cells);
  f.mask = read_i64(inputs, path, "completion_mask", cells);
  for (const float reward : read_f32(inputs, path, "rewards", f.samples))
    f.rewards.push_back(static_cast<double>(reward));
  for (std::int64_t n = 0; n < f.samples; ++n) {
    std::int64_t tokens = 0;
    for (std::int64_t t = 0; t < f.length; ++t) tokens += f.mask[static_cast<std::size_t>(n * f.length + t)];
    f.lengths.push_back(tokens);
  }
  return f;
}

// The rows as a last stage has them: row (n, t) predicts token t + 1 of sample n.
struct Rows {
  std::vector<std::int32_t> targets;
  std::vector<float> policy, results, slopes;
};

Rows run_loss(Device& device, const GrpoFixture& f, const std::vector<double>& advantage,
              const std::vector<double>& weight) {
  const auto rows = static_cast<std::size_t>(f.samples * f.length);
  Rows r{std::vector<std::int32_t>(rows, -1), std::vector<float>(rows * kPolicyInputs),
         std::vector<float>(rows * kPolicyResults), std::vector<float>(f.logits.size())};
  for (std::size_t row = 0; row + 1 < rows; ++row) {
    const std::size_t n = row / static_cast<std::size_t>(f.length);
    if ((row + 1) % static_cast<std::size_t>(f.length) == 0 || f.mask[row + 1] == 0) continue;
    r.targets[row] = static_cast<std::int32_t>(f.ids[row + 1]);
    const float policy[kPolicyInputs] = {f.old_logprobs[row + 1], f.reference_logprobs[row + 1],
                                         static_cast<float>(advantage[n]), static_cast<float>(weight[n])};
    std::copy_n(policy, kPolicyInputs, r.policy.begin() + static_cast<std::ptrdiff_t>(row * kPolicyInputs));
  }
  std::vector<Memory> memory;
  const auto tensor = [&](const auto& values, std::int64_t cols, Dtype dtype) {
    const std::size_t size = values.size() * bytes_of(dtype);
    memory.push_back(device.allocate(size, Place::shared));
    std::memcpy(memory.back().data, values.data(), size);
    return Tensor{memory.back().data, f.samples * f.length, cols, cols, dtype};
  };
  PolicyLoss op;
  op.logits = tensor(f.logits, f.vocabulary, Dtype::f32);
  op.targets = tensor(r.targets, 1, Dtype::i32);
  op.policy = tensor(r.policy, kPolicyInputs, Dtype::f32);
  op.results = tensor(r.results, kPolicyResults, Dtype::f32);
  op.dlogits = tensor(r.slopes, f.vocabulary, Dtype::f32);
  op.clip_low = static_cast<float>(f.config.clip_low);
  op.clip_high = static_cast<float>(f.config.clip_high);
  op.beta = static_cast<float>(f.config.beta);
  device.submit(Segment{.key = {}, .ops = {op}, .done = {}});
  while (device.pending() > 0) usleep(200);
  std::copy_n(op.results.row<float>(0), r.results.size(), r.results.begin());
  std::copy_n(op.dlogits.row<float>(0), r.slopes.size(), r.slopes.begin());
  return r;
}

}  // namespace

bool is_grpo_fixture(const std::string& folder) {
  std::ifstream in(folder + "/config.json");
  return in && json::parse(in, nullptr, false).contains("group_size");
}

int check_grpo(const CheckOptions& options) {
  const GrpoFixture f = load(options.fixture);
  const std::vector<double> advantage = advantages(f.rewards, f.config.group_size, f.config);
  const std::vector<double> weight = token_weights(f.lengths, f.config.reduction, f.length);
  Config machine = config_from_text("[data]\nkind = \"none\"\n", options.fixture, options.sets);
  resolve_machine(machine);
  const Rows rows = run_loss(*open_device(machine, 0, false), f, advantage, weight);
  // Row (n, t - 1) told of token t.
  const auto cells = static_cast<std::size_t>(f.samples * f.length);
  std::vector<float> logprobs(cells), kl(cells), per_token(cells), advantages_f32(advantage.begin(), advantage.end());
  double loss = 0, clipped = 0, kl_sum = 0, tokens = 0;
  for (std::size_t row = 0; row + 1 < cells; ++row) {
    if (rows.targets[row] < 0) continue;
    const float* result = rows.results.data() + row * kPolicyResults;
    const double own = weight[row / static_cast<std::size_t>(f.length)];
    loss += static_cast<double>(result[0]);
    per_token[row + 1] = static_cast<float>(static_cast<double>(result[0]) / own);
    logprobs[row + 1] = result[1];
    kl[row + 1] = result[2];
    kl_sum += static_cast<double>(result[2]);
    clipped += static_cast<double>(result[3]);
    tokens += 1;
  }
  SafetensorsWriter out;
  const auto scalar = [&](const char* name, double value) {
    const auto number = static_cast<float>(value);
    out.add_f32(name, {}, &number);
  };
  out.add_f32("advantages", {f.samples}, advantages_f32.data());
  out.add_f32("token_logprobs", {f.samples, f.length}, logprobs.data());
  out.add_f32("kl", {f.samples, f.length}, kl.data());
  out.add_f32("per_token_loss", {f.samples, f.length}, per_token.data());
  out.add_f32("grad_logits", {f.samples, f.length, f.vocabulary}, rows.slopes.data());
  scalar("loss", loss);
  scalar("clip_fraction", tokens > 0 ? clipped / tokens : 0);
  scalar("kl_mean", tokens > 0 ? kl_sum / tokens : 0);
  out.write(options.out);
  std::printf("wrote %s\n", options.out.c_str());
  return 0;
}

}  // namespace troupe
