#include "launcher/simulation/laws.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "actors/checkpoint/manifest.h"
#include "actors/rules/placement.h"

namespace troupe {

using nlohmann::json;

namespace {

// All of a decision that must not depend on the attempt, every bit of it.
std::string numbers_of(const Decision& d) {
  const auto bits = [](double value) { return std::bit_cast<std::uint64_t>(value); };
  std::string text = fmt::format("verdict {} updates {} clip {:x} rate {:x} norm {:x}", static_cast<int>(d.verdict),
                                 d.updates, bits(d.clip_scale), bits(d.learning_rate), bits(d.gradient_norm));
  for (const ExpertCounts& layer : d.counts)
    text += fmt::format(" layer {}: {}", layer.layer, fmt::join(layer.counts, ","));
  return text;
}

}  // namespace

void Ledger::breaks(const std::string& sentence) {
  if (broken_.empty()) broken_ = sentence;
}

void Ledger::see(const Envelope& envelope) {
  if (const auto* plan = std::get_if<StepPlan>(&envelope.message); plan != nullptr && plan->kind == WorkKind::train)
    plans_[{plan->step, plan->attempt}] = *plan;
  if (const auto* vote = std::get_if<Vote>(&envelope.message)) see_vote(*vote, envelope.from);
  if (const auto* decision = std::get_if<Decision>(&envelope.message)) see_decision(*decision, envelope.to);
}

void Ledger::see_vote(const Vote& vote, const Address& from) {
  ++votes_seen_;
  votes_[{vote.step, vote.attempt}][from] = vote;
}

void Ledger::see_decision(const Decision& decision, const Address& to) {
  const std::string numbers = numbers_of(decision);
  const auto [known, first] = decided_.try_emplace(decision.step, numbers);
  if (known->second != numbers)
    breaks(fmt::format("step {} was decided as \"{}\", and for {} in attempt {} as \"{}\"", decision.step,
                       known->second, to_string(to), decision.attempt, numbers));
  if (first) check_votes(decision);
}

// Law 2: no token dropped, none counted twice.
void Ledger::check_votes(const Decision& decision) {
  const auto found = votes_.find({decision.step, decision.attempt});
  if (found == votes_.end()) return;  // decided again from what was kept
  std::map<std::int32_t, int> microbatches;
  std::map<std::int32_t, std::int64_t> rows_of_layer;
  std::int64_t targets = 0, mtp_targets = 0;
  const auto stages = static_cast<std::uint32_t>(config_.layout.stages);
  for (const auto& [owner, vote] : found->second) {
    const bool has_head = owner.role == Role::stage && owner.index % stages == stages - 1;
    for (const MicrobatchLoss& loss : vote.losses) {
      if (has_head) ++microbatches[loss.microbatch];
      targets += loss.targets;
      mtp_targets += loss.mtp_targets;
    }
    for (const ExpertCounts& layer : vote.counts)
      for (const std::int64_t count : layer.counts) rows_of_layer[layer.layer] += count;
  }
  StepCounts expected;
  if (corpus_ != nullptr)
    expected = corpus_->counts(decision.step, config_.train.microbatches);
  else
    expected.target_tokens = plans_.at({decision.step, decision.attempt}).target_tokens;
  if (targets != expected.target_tokens)
    breaks(fmt::format("step {} counted {} targets of {}", decision.step, targets, expected.target_tokens));
  if (config_.model.has_mtp() && mtp_targets != expected.mtp_target_tokens)
    breaks(
        fmt::format("step {} counted {} second targets of {}", decision.step, mtp_targets, expected.mtp_target_tokens));
  for (std::int32_t m = 0; m < config_.train.microbatches; ++m)
    if (microbatches[m] != 1)
      breaks(fmt::format("step {} counted microbatch {} {} times", decision.step, m, microbatches[m]));
  check_rows(decision, rows_of_layer);
}

void Ledger::check_rows(const Decision& decision, const std::map<std::int32_t, std::int64_t>& rows_of_layer) {
  for (const auto& [layer, rows] : rows_of_layer) {
    const int length = config_.train.sequence_length - (layer == config_.model.num_hidden_layers ? 1 : 0);
    const std::int64_t tokens = corpus_ != nullptr ? std::int64_t{config_.train.batch_sequences} * length
                                                   : plans_.at({decision.step, decision.attempt}).tokens;
    const std::int64_t routed = tokens * config_.model.num_experts_per_tok;
    if (rows != routed)
      breaks(fmt::format("step {} routed {} rows of {} in layer {}", decision.step, rows, routed, layer));
  }
}

// ---- Curves ---------------------------------------------------------------------------------------------------------

namespace {

void enter(Curve& curve, std::map<std::int64_t, std::string>& place, std::int64_t number, const std::string& text) {
  const auto [known, first] = place.try_emplace(number, text);
  if (!first && known->second != text && curve.broken.empty())
    curve.broken = fmt::format("{} was reported as {} and again as {}", number, known->second, text);
}

}  // namespace

// After each "ready" of version v the steps v, v+1, ... follow in turn.
void read_curve(Curve& curve, const std::vector<Report>& reports) {
  std::int64_t next = 0;
  for (const Report& report : reports) {
    const json line = json::parse(report.json);
    if (report.kind == "ready") next = line.at("version").get<std::int64_t>();
    if (report.kind == "evaluation")
      enter(curve, curve.evaluations, line.at("version"), fmt::format("loss {}", line.at("loss").dump()));
    if (report.kind == "answers")
      enter(curve, curve.evaluations, -1 - line.at("version").get<std::int64_t>(),
            fmt::format("answers {}", report.json));
    if (report.kind != "step") continue;
    const auto step = line.at("step").get<std::int64_t>();
    if (step != next && curve.broken.empty())
      curve.broken = fmt::format("step {} was committed where step {} was due", step, next);
    next = step + 1;
    std::string text;
    for (const char* key : {"loss", "mtp_loss", "balance_loss", "gradient_norm", "learning_rate", "verdict", "tokens"})
      text += fmt::format("{} {} ", key, line.at(key).dump());
    enter(curve, curve.steps, step, text);
  }
}

std::map<std::string, std::string> rollouts_of(const std::string& folder) {
  std::map<std::string, std::string> all;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(folder + "/rollouts", none)) {
    const std::string name = entry.path().filename().string();
    if (!name.ends_with(".partial")) all[name] = sha256_file(entry.path().string() + "/answers.jsonl");
  }
  return all;
}

std::string rollout_problem(const std::map<std::string, std::string>& found,
                            const std::map<std::string, std::string>& undisturbed) {
  for (const auto& [name, digest] : undisturbed) {
    const auto own = found.find(name);
    if (own == found.end()) return fmt::format("{} is in no journal", name);
    if (own->second != digest) return fmt::format("{} has other answers than undisturbed", name);
  }
  return "";
}

std::string difference(const Undisturbed& reference, const Curve& curve, const std::string& digest) {
  for (const auto& [step, text] : reference.curve.steps) {
    const auto found = curve.steps.find(step);
    if (found == curve.steps.end()) return fmt::format("step {} is missing", step);
    if (found->second != text) return fmt::format("step {} is {}, undisturbed {}", step, found->second, text);
  }
  for (const auto& [version, text] : reference.curve.evaluations) {
    const auto found = curve.evaluations.find(version);
    if (found != curve.evaluations.end() && found->second != text)
      return fmt::format("the evaluation of version {} has {}, undisturbed {}", version, found->second, text);
  }
  if (!digest.empty() && digest != reference.digest)
    return fmt::format("the final weights are {}, undisturbed {}", digest.substr(0, 12),
                       reference.digest.substr(0, 12));
  return "";
}

// ---- Checkpoints ----------------------------------------------------------------------------------------------------

std::string state_digest(const std::string& checkpoint) {
  return sha256_file(checkpoint + "/model.safetensors") + sha256_file(checkpoint + "/optimizer.safetensors");
}

std::string checkpoint_problem(const std::string& checkpoint, std::int64_t version, const Undisturbed* reference) {
  std::ifstream file(checkpoint + "/manifest.json");
  const json manifest = json::parse(file);
  for (const auto& entry : std::filesystem::directory_iterator(checkpoint)) {
    const std::string name = entry.path().filename().string();
    if (name != "manifest.json" && !manifest.at("files").contains(name))
      return fmt::format("{}: the manifest does not name {}", checkpoint, name);
  }
  if (reference == nullptr || state_digest(checkpoint) == reference->states.at(version)) return "";
  return fmt::format("{} is not the undisturbed state of version {}", checkpoint, version);
}

std::string broken_by(const json& bill) {
  const double wall = bill.at("wall_thread_seconds");
  double sum = 0;
  for (const auto& [bin, spent] : bill.at("thread_seconds").items()) {
    if (spent.get<double>() < 0) return fmt::format("the bin \"{}\" of the bill holds {} s", bin, spent.get<double>());
    sum += spent.get<double>();
  }
  if (std::abs(sum - wall) <= 0.001 * wall) return "";
  return fmt::format("the bins of the bill sum to {} s, and the threads had {} s", sum, wall);
}

}  // namespace troupe
