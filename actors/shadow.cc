#include "actors/shadow.h"

#include "actors/rules/placement.h"
#include "kernels/base/mutant.h"

namespace troupe {

namespace {
constexpr Address kConductor{Role::conductor, 0};
}

std::vector<Parameter> parameters_of(const Config& config, const Address& owner) {
  const auto shapes = stage_shapes(config);
  if (owner.role == Role::stage)
    return stage_parameters(config, shapes.at(owner.index % static_cast<std::uint32_t>(config.layout.stages)));
  const auto shards = static_cast<std::uint32_t>(config.layout.expert_shards);
  return shard_parameters(config, shapes.at(owner.index / shards), static_cast<int>(owner.index % shards));
}

Shadow::Shadow(const Context& context, const Config& config, const Address& owner)
    : context_(context),
      of_(owner),
      owner_(context, config, parameters_of(config, owner), 1, 1, 0, Owner::Use::keeps),
      restoring_(context, config, owner_, [this](const Restore& restore, const std::string& problem) {
        group_.forget();
        taking_.reset();
        early_.reset();
        context_.post(kConductor, Restored{restore.version, restore.attempt, problem});
      }) {}

void Shadow::on(const Restore& restore, const Address&) {
  if (restoring_.begin(restore)) attempt_ = restore.attempt;
}

// The owner has voted on what this decides, so its gradient is here.
void Shadow::on(const Decision& decision, const Address&) {
  if (decision.attempt != attempt_ || restoring_.active() || decision.step != owner_.version() || owner_.applying())
    return;
  CHECK(owner_.voted(), "{}: decision {} without a gradient", to_string(context_.self()), decision.step);
  auto work = owner_.apply(decision);
  if (mutant(Mutant::shadow_keeps_old)) work.clear();
  run_all(std::move(work), &Shadow::applied);
}

void Shadow::run_all(std::vector<Ops> work, void (Shadow::*next)()) {
  group_.run({SegmentClass::apply, owner_.version(), 0, 0}, std::move(work), 0, [this, next] { (this->*next)(); });
}

// A gradient of the next step may come while the last decision is applied: it waits in the message that brought it.
void Shadow::on(const ShadowGradient& gradient, const Address& from) {
  if (gradient.attempt != attempt_ || restoring_.active()) return;
  if (gradient.step != owner_.version()) {
    early_ = std::pair(gradient, from);
    return;
  }
  taking_ = std::pair(gradient, from);
  run_all(owner_.take_gradient(gradient.sums), &Shadow::taken);
}

void Shadow::taken() {
  const auto [gradient, from] = *std::exchange(taking_, std::nullopt);
  owner_.set_voted();
  context_.post(from, GradientHeld{gradient.step, gradient.attempt});
}

void Shadow::on(const SegmentDone& done, const Address&) {
  if (!restoring_.takes(done)) group_.segment_done();
}

void Shadow::applied() {
  owner_.committed(owner_.last_decision());
  if (!early_) return;
  const auto [gradient, from] = *std::exchange(early_, std::nullopt);
  on(gradient, from);
}

}  // namespace troupe
