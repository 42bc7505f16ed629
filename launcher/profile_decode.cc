// `troupe profile CONFIG --decode N`: how fast a freshly drawn model writes, and where the time goes. Reading the
// prompts is not counted. The rate is measured first, without clocks around the ops.
#include <fmt/format.h>

#include <cstdio>

#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "kernels/base/random.h"
#include "launcher/config.h"
#include "launcher/generate.h"
#include "launcher/machine.h"
#include "launcher/profile.h"
#include "launcher/profile_report.h"
#include "launcher/world.h"

namespace troupe {

namespace {

GenerationRequest request_of(const ProfileOptions& options, const Config& config) {
  GenerationRequest request;
  request.tokens_max = options.tokens;
  const std::uint64_t key = random_key(config.train.seed, "profile/prompts");
  for (int s = 0; s < options.decode; ++s) {
    std::vector<std::int32_t>& prompt = request.prompts.emplace_back();
    for (int t = 0; t < options.context; ++t)
      prompt.push_back(
          static_cast<std::int32_t>(random_below(static_cast<std::uint64_t>(config.model.vocab_size), key,
                                                 static_cast<std::uint64_t>(s), static_cast<std::uint64_t>(t))));
  }
  return request;
}

Config decoding_config(const ProfileOptions& options) {
  Config config = load_config(options.config_path, options.sets);
  if (config.layout.nodes != 1)
    throw Error("layout.nodes is {}: profile measures one process; add --set layout.nodes=1", config.layout.nodes);
  if (options.context + options.tokens > config.model.max_position_embeddings)
    throw Error("--context {} and --tokens {}: this model reads at most {} tokens (model.max_position_embeddings)",
                options.context, options.tokens, config.model.max_position_embeddings);
  resolve_machine(config);
  config.generate.sequences_max = options.decode;
  fit_generation(config, static_cast<std::size_t>(options.decode), static_cast<std::size_t>(options.context),
                 options.tokens);
  return config;
}

struct Decoding {
  std::int64_t wall_us = 0, tokens = 0;
};

// Runs until all is written; `p` gets what was counted since every prompt was read, when it is wanted.
Decoding decode(const ProfileOptions& options, const Config& config, Profile* p) {
  GenerationResult result;
  WorldOptions world_options;
  world_options.mode = RunMode::generate;
  world_options.request = request_of(options, config);
  world_options.sink = &result;
  world_options.profiled = p != nullptr;
  World world(config, world_options);
  world.recover({});
  Decoding decoding;
  std::int64_t begin_us = 0;
  Account before;
  world.run([](const Report&) {},
            [&] {
              if (begin_us == 0 && result.begun == options.decode) {  // every prompt was read
                decoding.tokens = -result.written;
                before = world.bill().account;
                if (p != nullptr) world.clear_profile();
                begin_us = monotonic_us();
              }
              return result.done;
            });
  decoding.wall_us = monotonic_us() - begin_us;
  decoding.tokens += result.written;
  if (p == nullptr) return decoding;
  p->wall_us = decoding.wall_us;
  p->account = world.bill().account;
  for (const auto& [cause, us] : before) p->account[cause] -= us;
  p->ops = world.op_profile();
  p->handlers = world.handler_profile();
  return decoding;
}

}  // namespace

int profile_decoding(const ProfileOptions& options) {
  const Config config = decoding_config(options);
  start_log("troupe", "", LogLevel::warning);
  const Decoding decoding = decode(options, config, nullptr);
  const double seconds = static_cast<double>(decoding.wall_us) * 1e-6;
  fmt::print("{} sequences behind {} tokens each, {} compute threads: {:.1f} tokens/s, {:.3f} ms a token of all\n",
             options.decode, options.context, config.device.threads, static_cast<double>(decoding.tokens) / seconds,
             1000 * seconds * options.decode / static_cast<double>(decoding.tokens));
  std::fflush(stdout);
  Profile p{config, options.tokens - 1, 0, {}, {}, {}};
  decode(options, config, &p);
  fmt::print("once more with clocks around the ops; a step is a token of every sequence, {:.3f} ms\n{}",
             p.ms_a_step(static_cast<double>(p.wall_us)), tables(p));
  return 0;
}

}  // namespace troupe
