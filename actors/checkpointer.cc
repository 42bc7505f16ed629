#include "actors/checkpointer.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "actors/build_info.h"
#include "actors/checkpoint/manifest.h"
#include "actors/rules/placement.h"
#include "actors/rules/state_arrays.h"
#include "actors/shadow.h"
#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "kernels/base/mutant.h"

namespace troupe {

namespace {

constexpr Address kConductor{Role::conductor, 0};
constexpr int kPartsInFlight = 4;  // per owner
constexpr const char* kSuffixes[kStateArrays] = {"", ".m", ".v", ""};

nlohmann::json describe(const std::vector<Provenance>& provenance) {
  auto list = nlohmann::json::array();
  for (const Provenance& p : provenance) {
    list.push_back({{"source", p.source}, {"licence", p.licence}, {"sha256", p.sha256}, {"bytes", p.bytes}});
    if (!p.note.empty()) list.back()["note"] = p.note;
  }
  return list;
}

// Empty, or which data of a checkpoint's run are no longer what it learned from.
std::string changed_data(const std::string& checkpoint, const std::vector<Provenance>& now) {
  std::ifstream file(checkpoint + "/manifest.json");
  const auto manifest = nlohmann::json::parse(file, nullptr, false);
  const auto before = manifest.is_object() ? manifest.value("data", nlohmann::json::array()) : nlohmann::json::array();
  for (std::size_t i = 0; i < std::min(before.size(), now.size()); ++i) {
    const std::string was = before[i].value("sha256", now[i].sha256);
    if (was != now[i].sha256)
      return fmt::format(
          "{} has other contents than when this run began (sha256 {} then, {} now): bring the old ones back, or start "
          "a new run with train.start_from = \"{}\"",
          now[i].source, was.substr(0, 12), now[i].sha256.substr(0, 12), checkpoint);
  }
  return "";
}

}  // namespace

Checkpointer::Checkpointer(const Context& context, const Config& config, std::string run_folder,
                           std::vector<Provenance> provenance)
    : context_(context), config_(config), run_folder_(std::move(run_folder)), provenance_(std::move(provenance)) {
  for (const Provenance& p : provenance_)
    if (!p.note.empty()) log_info("event=data source=\"{}\" note=\"{}\"", p.source, p.note);
  plan_files();
}

void Checkpointer::plan_files() {
  std::vector<SafetensorsTensor> model, optimizer, reference;
  for (const Parameter& p : model_parameters(config_.model)) {
    for (int kind = 0; kind < kStateArrays; ++kind) {
      if (!has_array(config_, p, kind)) continue;
      auto& file = kind == 0 ? model : kind == 3 ? reference : optimizer;
      file.push_back({p.name + kSuffixes[kind], "F32", shape_of(p)});
      expected_ += p.elements();
    }
  }
  model_ = plan_safetensors(model, {{"format", "pt"}});
  optimizer_ = plan_safetensors(optimizer, {});
  if (!reference.empty()) reference_ = plan_safetensors(reference, {});
}

std::string Checkpointer::folder(std::int64_t version) const {
  return run_folder_ + "/checkpoints/" + checkpoint_name(version);
}

void Checkpointer::on(const Restore& restore, const Address&) {
  attempt_ = restore.attempt;
  restore_ = restore;
  lent_.clear();
  version_ = -1;  // a save under way is begun again, or was not asked for by anybody who lives
  finish_token_ = 0;
  owed_.clear();
  if (!restore.path.empty() && !restore.weights_only)
    if (const std::string problem = changed_data(restore.path, provenance_); !problem.empty())
      context_.post(kConductor, Restored{restore.version, attempt_, problem});
  for (const Address& owner : snapshot_owners(config_))
    context_.post(owner, Credit{Channel::snapshot, 0, kPartsInFlight, attempt_});
}

void Checkpointer::on(const SnapshotBegin& begin, const Address&) {
  version_ = begin.version;
  state_ = begin.state;
  received_ = 0;
  missing_.clear();
  for (const Address& owner : snapshot_owners(config_))
    for (const Parameter& p : parameters_of(config_, owner))
      for (int kind = 0; kind < kStateArrays; ++kind) missing_[owner] += has_array(config_, p, kind) ? p.elements() : 0;
  problem_.clear();
  partial_ = folder(version_) + ".partial";
  model_path_ = partial_ + "/model.safetensors";
  optimizer_path_ = partial_ + "/optimizer.safetensors";
  reference_path_ = partial_ + "/reference.safetensors";
  Disk& disk = context_.disk();
  disk.make_folder(partial_);
  disk.write_text(model_path_, model_.header);
  disk.write_text(optimizer_path_, optimizer_.header);
  if (config_.has_reference()) disk.write_text(reference_path_, reference_.header);
}

void Checkpointer::on(const SnapshotPart& part, const Address& from) {
  if (part.version != version_ || (part.attempt != attempt_ && !mutant(Mutant::part_of_forgotten_save))) return;
  const char* suffix = kSuffixes[part.kind];
  const SafetensorsPlan& plan = part.kind == 0 ? model_ : part.kind == 3 ? reference_ : optimizer_;
  const std::string& file = part.kind == 0 ? model_path_ : part.kind == 3 ? reference_path_ : optimizer_path_;
  context_.disk().write(file, plan.offset.at(part.name + suffix) + static_cast<std::uint64_t>(part.offset) * 4,
                        part.values);
  owed_[next_token_] = from;
  context_.disk().report(context_.handle(), next_token_++);
  received_ += static_cast<std::int64_t>(part.values.size / 4);
  missing_[from] -= static_cast<std::int64_t>(part.values.size / 4);
  if (received_ == expected_) finish();
}

void Checkpointer::finish() {
  const std::string partial = partial_;
  Disk& disk = context_.disk();
  if (mutant(Mutant::manifest_first)) disk.run([partial] { write_manifest(partial, {}); });
  if (mutant(Mutant::pruned_early))
    for (const CheckpointEntry& older : list_checkpoints(run_folder_)) disk.remove_folder(older.path);
  disk.write_text(partial + "/config.json", model_config_to_json(config_.model).dump(1) + "\n");
  disk.write_text(partial + "/state.json", state_ + "\n");
  const nlohmann::json extra = {
      {"version", version_}, {"data", describe(provenance_)}, {"build", build_version()}, {"machine", machine_kind()}};
  if (!mutant(Mutant::manifest_first)) disk.run([partial, extra] { write_manifest(partial, extra); });
  disk.commit_folder(partial, folder(version_));
  finish_token_ = next_token_++;
  if (mutant(Mutant::done_before_disk)) context_.post(kConductor, CheckpointDone{version_, folder(version_), ""});
  disk.report(context_.handle(), finish_token_);
}

void Checkpointer::on(const DiskDone& done, const Address&) {
  const auto owed = owed_.find(done.token);
  const bool finished = done.token == finish_token_;
  if (!finished && owed == owed_.end()) return;  // of a save that a new attempt forgot
  if (problem_.empty()) problem_ = done.problem;
  if (!finished) {
    context_.post(owed->second, Credit{Channel::snapshot, 0, 1, attempt_});
    owed_.erase(owed);
    return;
  }
  const std::string path = folder(version_);
  if (problem_.empty()) prune();
  context_.post(kConductor, CheckpointDone{version_, path, problem_});
  version_ = -1;
  finish_token_ = 0;
}

Checkpointer::Lent::Lent(const Config& config, const Address& holder, const Restore& restore)
    : parameters(parameters_of(config, holder.role == Role::shadow ? owners(config).at(holder.index) : holder)),
      parts(state_parts_of(config, parameters)),
      file(config, parameters, restore) {}

const Checkpointer::Lent& Checkpointer::lent_to(const Address& holder) {
  return lent_.try_emplace(holder, config_, holder, restore_).first->second;
}

// What the file lacks is given as who reads it would make it: moments begin at zero, the policy is the reference.
void Checkpointer::on(const Fetch& fetch, const Address& from) try {
  if (fetch.attempt != attempt_) return;
  const Lent& lent = lent_to(from);
  const StatePart& part = lent.parts.at(static_cast<std::size_t>(fetch.part));
  const Parameter& parameter = lent.parameters[part.parameter];
  const SnapshotPart out{fetch.version, attempt_,   parameter.name,
                         part.kind,     part.begin, context_.pool().take(static_cast<std::size_t>(part.count) * 4)};
  const int kind = part.kind == 3 && !lent.file.has(3) ? 0 : part.kind;
  if (lent.file.has(kind))
    lent.file.read(parameter, kind, part.begin, part.count, out.values.as<float>());
  else
    std::fill_n(out.values.as<float>(), part.count, 0.0F);
  context_.post(from, out);
} catch (const Error& error) {
  context_.post(kConductor, Restored{restore_.version, attempt_, error.what()});
}

void Checkpointer::on(const Report& best, const Address&) {
  best_ = nlohmann::json::parse(best.json).at("version").get<std::int64_t>();
}

// The last `keep_last` stay, and the best.
void Checkpointer::prune() {
  std::vector<CheckpointEntry> all = list_checkpoints(run_folder_);
  const auto keep = static_cast<std::size_t>(std::max(1, config_.checkpoint.keep_last));
  for (std::size_t i = 0; i + keep < all.size(); ++i) {
    if (config_.checkpoint.keep_best && all[i].version == best_) continue;
    context_.disk().remove_folder(all[i].path);
  }
}

}  // namespace troupe
