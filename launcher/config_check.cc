// What must hold for a configuration to be possible. Pure: looks at the value and at whether the data files exist.
// Every sentence begins with the key that is wrong, so that the reader can put file and line in front of it.
#include <fmt/format.h>

#include <filesystem>
#include <optional>
#include <set>

#include "actors/data/tokenizer.h"
#include "actors/rules/dispatch.h"
#include "actors/rules/placement.h"
#include "actors/rules/trainable.h"
#include "actors/tasks/task.h"
#include "kernels/base/error.h"
#include "launcher/config.h"
#include "launcher/config_keys.h"
#include "launcher/launch/hosts.h"

namespace troupe {
namespace {

std::string out_of_range(const Key& key, const std::string& value) {
  return fmt::format("{} is {}, must be {}", key.name, value, key.allowed.text());
}

std::string why_range(const Key& key, const Slot& slot) {
  if (const auto* words = std::get_if<std::string*>(&slot)) {
    return key.allowed.admits(**words) ? "" : out_of_range(key, value_text(slot));
  }
  if (const auto* list = std::get_if<std::vector<double>*>(&slot)) {
    for (double value : **list) {
      if (!key.allowed.admits(value)) return fmt::format("{} has {}, must be {}", key.name, value, key.allowed.text());
    }
    return "";
  }
  const auto number = [](const auto& place) -> std::optional<double> {
    using Place = std::decay_t<decltype(place)>;
    if constexpr (std::is_same_v<Place, std::optional<int>*>) {
      return place->has_value() ? std::optional<double>(**place) : std::nullopt;
    } else if constexpr (std::is_pointer_v<Place>) {
      if constexpr (std::is_arithmetic_v<std::remove_pointer_t<Place>>) return static_cast<double>(*place);
    }
    return std::nullopt;
  };
  const std::optional<double> value = std::visit(number, slot);
  if (!value || key.allowed.admits(*value)) return "";
  const std::string must = key.allowed.text();
  return fmt::format("{} is {}, must be {}", key.name, value_text(slot), must.empty() ? "finite" : must);
}

std::string why_ranges(const Config& config) {
  Config copy = config;
  for (const Key& key : config_keys()) {
    const std::string why = why_range(key, key.slot(copy, false));
    if (!why.empty()) return why;
  }
  return "";
}

std::string why_name(const std::string& name) {
  const bool plain =
      name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == std::string::npos;
  if (plain && !name.empty() && name[0] != '.') return "";
  return fmt::format("name is {}, must be letters, digits, '-', '_' and '.': it names the run's folder",
                     in_quotes(name));
}

std::string why_train(const Config& config) {
  const TrainConfig& t = config.train;
  if (t.batch_sequences % t.microbatches != 0) {
    return fmt::format("train.microbatches is {}, must divide train.batch_sequences ({})", t.microbatches,
                       t.batch_sequences);
  }
  if ((t.gradient_lanes & (t.gradient_lanes - 1)) != 0) {
    return fmt::format("train.gradient_lanes is {}, must be a power of two (1, 2, 4, ...)", t.gradient_lanes);
  }
  if (t.microbatches % t.gradient_lanes != 0) {
    return fmt::format("train.gradient_lanes is {}, must divide train.microbatches ({})", t.gradient_lanes,
                       t.microbatches);
  }
  if (config.model.has_mtp() && t.sequence_length < 3) {
    return fmt::format("train.sequence_length is {}, must be 3.. with model.num_nextn_predict_layers = 1",
                       t.sequence_length);
  }
  if (t.sequence_length > config.model.max_position_embeddings) {
    return fmt::format("train.sequence_length is {}, must be at most model.max_position_embeddings ({})",
                       t.sequence_length, config.model.max_position_embeddings);
  }
  if (config.generate.length_max > config.model.max_position_embeddings) {
    return fmt::format("generate.length_max is {}, must be at most model.max_position_embeddings ({})",
                       config.generate.length_max, config.model.max_position_embeddings);
  }
  return "";
}

std::string why_expert(const ModelConfig& model, const std::string& name) {
  const auto expert = expert_of(name);
  const auto says = [&](const std::string& rest) {
    return fmt::format("train.experts has {}, {}", in_quotes(name), rest);
  };
  if (!expert) return says("must be a layer and an expert of it, as in \"1.3\"");
  const auto [layer, number] = *expert;
  if (layer < 0 || layer >= model.layers_with_mtp())
    return says(fmt::format("but the layers are 0..{}", model.layers_with_mtp() - 1));
  if (!model.is_moe_layer(layer))
    return says(fmt::format("but layer {} has no experts (model.first_k_dense_replace is {})", layer,
                            model.first_k_dense_replace));
  if (number < 0 || number >= model.n_routed_experts)
    return says(fmt::format("but the experts of a layer are 0..{}", model.n_routed_experts - 1));
  return "";
}

std::string why_experts(const Config& config) {
  const TrainConfig& t = config.train;
  if (!config.has_frozen()) {
    const char* key = !t.experts.empty() ? "train.experts" : t.experts_threshold > 0 ? "train.experts_threshold" : "";
    return *key == 0 ? "" : fmt::format("{} is set, but train.trainable is \"all\": set it to \"experts\"", key);
  }
  if (!config.model.is_moe_layer(config.model.layers_with_mtp() - 1))
    return "train.trainable is \"experts\", must be \"all\": the model has no experts";
  if (t.experts.empty() && t.experts_threshold == 0)
    return "train.experts is empty, must name experts for train.trainable = \"experts\", as in [\"1.3\"]; or set "
           "train.experts_threshold to have them chosen";
  std::set<std::string> known;
  for (const std::string& name : t.experts) {
    if (const std::string why = why_expert(config.model, name); !why.empty()) return why;
    if (!known.insert(name).second) return fmt::format("train.experts has {} twice: name it once", in_quotes(name));
  }
  return "";
}

std::string why_arithmetic(const Config& config) {
  const std::string& operations = config.data.arithmetic_operations;
  if (operations.empty() || operations.find_first_not_of("+-*") != std::string::npos) {
    return fmt::format("data.arithmetic_operations is {}, must be some of + - *, as in \"+-\"", in_quotes(operations));
  }
  if (!tokenizer_file_of(config.data.tokenizer).empty()) {
    return fmt::format("data.tokenizer is {}, must be \"bytes\" for data.kind = \"arithmetic\"",
                       in_quotes(config.data.tokenizer));
  }
  if (config.model.vocab_size < 128) {
    return fmt::format("model.vocab_size is {}, must be 128.. for data.kind = \"arithmetic\", whose tokens are ASCII",
                       config.model.vocab_size);
  }
  return "";
}

// The files of `key`, one of which is not there.
std::string why_files(const std::string& key, const std::vector<std::string>& files) {
  for (const std::string& file : files) {
    std::error_code failed;
    if (!std::filesystem::exists(file, failed)) {
      return fmt::format("{} names {}, which does not exist: give the path with --set {}=PATH", key, file, key);
    }
    if (std::filesystem::is_directory(file, failed)) {
      return fmt::format("{} names {}, which is a folder: name the files in it", key, file);
    }
  }
  return "";
}

std::string why_task(const Config& config) {
  const TaskConfig& t = config.task;
  const bool is_learned = config.data.kind == "task";
  if (t.names.empty()) {
    return is_learned
               ? "task.names is empty, must name a task for data.kind = \"task\": --set 'task.names=[\"reverse\"]'"
               : "";
  }
  if (t.level_max < t.level_min) {
    return fmt::format("task.level_max is {}, must be at least task.level_min ({})", t.level_max, t.level_min);
  }
  if (t.operations.empty() || t.operations.find_first_not_of("+-*") != std::string::npos) {
    return fmt::format("task.operations is {}, must be some of + - *, as in \"+-\"", in_quotes(t.operations));
  }
  bool has_file_task = false;
  for (const std::string& name : t.names) {
    const int most = level_most(name);
    if (most == 0) {
      return fmt::format("task.names has {}, must be of arithmetic, reverse, sort, countdown, jsonl", in_quotes(name));
    }
    if (t.level_max > most) {
      return fmt::format("task.level_max is {}, must be at most {} for task {}", t.level_max, most, name);
    }
    if (name == "jsonl") has_file_task = true;
  }
  if (has_file_task && t.files.empty()) return "task.files is empty, must name a file for task jsonl";
  const int tokens = has_file_task ? 256 : 128;
  if (config.model.vocab_size < tokens) {
    return fmt::format("model.vocab_size is {}, must be {}.. for task.names, whose tokens are bytes",
                       config.model.vocab_size, tokens);
  }
  return why_files("task.files", t.files);
}

// Whoever samples answers needs a task, and room for them.
std::string why_rollouts(const Config& config) {
  if (config.evaluate.problems > 0 && config.task.names.empty())
    return "evaluate.problems asks for answers, but task.names is empty: name a task, as in task.names = [\"reverse\"]";
  if (config.has_answers() && config.kind != "evaluate" && config.evaluate.split == "train")
    return fmt::format(
        "evaluate.split is \"train\", must be \"held_out\" for kind = {}: what a model trains on tells nothing of "
        "what it learned",
        in_quotes(config.kind));
  if (config.kind == "evaluate" && !config.has_answers())
    return "evaluate.problems is 0, must be 1.. for kind = \"evaluate\", with task.names";
  if (config.kind == "distill" && config.task.names.empty())
    return "task.names is empty, must name a task for kind = \"distill\": its problems are asked of the teacher";
  if (!config.has_rollouts()) return "";
  const GrpoConfig& g = config.grpo;
  if (config.task.names.empty())
    return "task.names is empty, must name a task for kind = \"grpo\": task.names = [\"reverse\"]";
  if (config.train.batch_sequences % g.group_size != 0)
    return fmt::format("grpo.group_size is {}, must divide train.batch_sequences ({}): a step learns from whole groups",
                       g.group_size, config.train.batch_sequences);
  if (config.model.has_mtp())
    return "model.num_nextn_predict_layers is 1, must be 0 for kind = \"grpo\": sampled tokens train the main head "
           "alone";
  if (config.generate_length() > config.train.sequence_length)
    return fmt::format("generate.length_max is {}, must be at most train.sequence_length ({}) for kind = \"grpo\"",
                       config.generate.length_max, config.train.sequence_length);
  if (g.beta > 0 && config.model.tie_word_embeddings && config.layout.stages > 1)
    return "grpo.beta needs the reference policy's embedding in the last stage too: with model.tie_word_embeddings set "
           "layout.stages = 1";
  if (g.reference_every > 0 && g.beta == 0)
    return "grpo.reference_every is set, but grpo.beta is 0: no reference policy is used";
  return "";
}

std::string why_judge(const JudgeConfig& judge) {
  if (judge.cpu_seconds < judge.wall_seconds) return "";
  return fmt::format(
      "judge.cpu_seconds is {}, must be below judge.wall_seconds ({}): a loop is a verdict, a hang is none",
      judge.cpu_seconds, judge.wall_seconds);
}

std::string why_data(const Config& config) {
  if (config.has_rollouts() || config.kind == "evaluate" || config.kind == "distill") return "";
  const DataConfig& d = config.data;
  if (d.kind == "task") return "";  // why_task
  if (d.kind == "arithmetic") return why_arithmetic(config);
  if (d.kind == "none" || d.kind == "random") return "";
  if (d.files.empty()) {
    return fmt::format("data.files is empty, must name a file for data.kind = \"{}\": --set data.files=PATH", d.kind);
  }
  if (const std::string why = why_files("data.files", d.files); !why.empty()) return why;
  if (!d.weights.empty() && d.weights.size() != d.files.size()) {
    return fmt::format("data.weights has {} numbers, must have one for each of data.files ({}), or none",
                       d.weights.size(), d.files.size());
  }
  if (const std::string file = tokenizer_file_of(d.tokenizer); !file.empty()) {
    return std::filesystem::is_regular_file(file)
               ? ""
               : fmt::format("data.tokenizer is {}, but there is no file {}: name a tokenizer.json, or \"bytes\"",
                             in_quotes(d.tokenizer), file);
  }
  if (config.model.vocab_size < 256) {
    return fmt::format("model.vocab_size is {}, must be 256.. for data.kind = \"{}\", whose tokens are bytes",
                       config.model.vocab_size, d.kind);
  }
  return "";
}

// replicas <= microbatches follows: replicas divides the lanes, which divide the microbatches.
std::string why_layout(const Config& config) {
  const LayoutConfig& l = config.layout;
  const ModelConfig& m = config.model;
  if (config.train.gradient_lanes % l.replicas != 0) {
    return fmt::format("layout.replicas is {}, must divide train.gradient_lanes ({}): each replica takes whole lanes",
                       l.replicas, config.train.gradient_lanes);
  }
  if (l.stages > m.num_hidden_layers) {
    return fmt::format("layout.stages is {}, must be at most model.num_hidden_layers ({}): a stage has a layer",
                       l.stages, m.num_hidden_layers);
  }
  const bool has_experts = m.is_moe_layer(m.layers_with_mtp() - 1);
  if (!has_experts && l.expert_shards > 1) {
    return fmt::format("layout.expert_shards is {}, must be 1: the model has no experts", l.expert_shards);
  }
  if (has_experts && l.expert_shards > m.n_routed_experts) {
    return fmt::format("layout.expert_shards is {}, must be at most model.n_routed_experts ({})", l.expert_shards,
                       m.n_routed_experts);
  }
  if (has_experts && l.chunk_rows_max < rows_together(config)) {
    return fmt::format(
        "layout.chunk_rows_max is {}, must be {}.. with train.dtype = \"{}\": so many rows of an expert stay "
        "together",
        l.chunk_rows_max, rows_together(config), config.train.dtype);
  }
  const std::int64_t stages = std::int64_t{l.replicas} * l.stages;
  const std::int64_t shards = static_cast<std::int64_t>(owners(config).size()) - stages;
  if (l.nodes > stages + shards) {
    return fmt::format("layout.nodes is {}, must be at most {}: there are {} stage and {} shard actors to place",
                       l.nodes, stages + shards, stages, shards);
  }
  return "";
}

std::string why_limits(const LimitsConfig& limits) {
  if (limits.silence_ms >= 2 * std::int64_t{limits.heartbeat_ms}) return "";
  return fmt::format("limits.silence_ms is {}, must be at least twice limits.heartbeat_ms ({})", limits.silence_ms,
                     limits.heartbeat_ms);
}

std::string why_model(const ModelConfig& model) {
  const std::string why = why_invalid(model);
  return why.empty() ? "" : "model." + why;
}

std::string why_ports(const std::string& ports) try {
  parse_ports(ports);
  return "";
} catch (const Error&) {
  return fmt::format("launch.ports is \"{}\", must be a port, a range such as \"4711-4720\", or \"0\" for any", ports);
}

}  // namespace

std::string why_out_of_range(const Config& config) { return why_ranges(config); }

std::string why_impossible(const Config& config) {
  std::string why = why_ranges(config);
  if (why.empty()) why = why_name(config.name);
  if (why.empty()) why = why_model(config.model);
  if (why.empty()) why = why_train(config);
  if (why.empty()) why = why_experts(config);
  if (why.empty()) why = why_data(config);
  if (why.empty()) why = why_task(config);
  if (why.empty()) why = why_rollouts(config);
  if (why.empty()) why = why_judge(config.judge);
  if (why.empty()) why = why_layout(config);
  if (why.empty()) why = why_limits(config.limits);
  if (why.empty()) why = why_ports(config.launch.ports);
  return why;
}

void check_config(const Config& config) {
  const std::string why = why_impossible(config);
  if (!why.empty()) throw Error("{}", why);
}

}  // namespace troupe
