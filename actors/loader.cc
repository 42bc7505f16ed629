#include "actors/loader.h"

#include <utility>

#include "actors/rules/placement.h"

namespace troupe {

namespace {

constexpr Address kConductor{Role::conductor, 0};

}  // namespace

Loader::Loader(const Context& context, const Config& config, std::shared_ptr<const Corpus> corpus)
    : context_(context), config_(config), corpus_(std::move(corpus)) {}

void Loader::on(const Restore& restore, const Address&) {
  attempt_ = restore.attempt;
  next_step_ = restore.version;
  const auto replicas = static_cast<std::size_t>(config_.layout.replicas);
  credits_.assign(replicas, 0);
  orders_.assign(replicas, {});
  sampled_.clear();
  begun_ = -1;
  for (const auto& [credit, from] : std::exchange(early_credits_, {})) on(credit, from);
}

void Loader::on(const Credit& credit, const Address& from) {
  if (is_future(credit.attempt, attempt_)) early_credits_.emplace_back(credit, from);
  if (credit.attempt != attempt_) return;
  if (from == context_.self()) return prepare();
  const std::size_t replica = from.index / static_cast<std::size_t>(config_.layout.stages);
  credits_.at(replica) += credit.count;
  drain(replica);
}

void Loader::on(const StartStep& start, const Address&) {
  if (start.attempt != attempt_) return;
  next_step_ = start.step + 1;
  if (config_.has_rollouts()) {
    begun_ = start.step;
    return begin_sampled_step();
  }
  queue(WorkKind::train, start.step, config_.train.microbatches,
        corpus_->counts(start.step, config_.train.microbatches));
}

void Loader::on(const StartEvaluation& start, const Address&) {
  if (start.attempt != attempt_) return;
  const bool full = start.version >= config_.train.steps;
  const int microbatches = corpus_ ? corpus_->held_out_microbatches(full ? 0 : config_.evaluate.tokens_max) : 0;
  queue(WorkKind::evaluate, start.version, microbatches, {});
}

void Loader::on(const TokenBatch& batch, const Address&) {
  if (batch.key.attempt != attempt_) return;
  if (batch.key.kind != WorkKind::train) {
    const auto replica = static_cast<std::size_t>(batch.key.microbatch % config_.layout.replicas);
    orders_[replica].push_back({batch.key, batch.target_tokens, 0, batch});
    return drain(replica);
  }
  sampled_[batch.key.step][batch.key.microbatch] = batch;
  begin_sampled_step();
}

void Loader::begin_sampled_step() {
  const auto step = sampled_.find(begun_);
  if (step == sampled_.end() || static_cast<int>(step->second.size()) < config_.train.microbatches) return;
  sampled_.erase(sampled_.begin(), step);
  StepCounts counts;
  for (const auto& [microbatch, batch] : step->second) {
    counts.target_tokens = batch.target_tokens;
    counts.tokens += static_cast<std::int64_t>(batch.sequences) * batch.length;
  }
  queue(WorkKind::train, std::exchange(begun_, -1), config_.train.microbatches, counts);
}

std::optional<TokenBatch> Loader::take_sampled(const WorkKey& key) {
  if (key.kind != WorkKind::train || !config_.has_rollouts()) return std::nullopt;
  return std::move(sampled_.at(key.step).at(key.microbatch));
}

void Loader::queue(WorkKind kind, std::int64_t step, int microbatches, const StepCounts& counts) {
  context_.post(kConductor, StepPlan{kind, step, attempt_, microbatches, counts.target_tokens, counts.mtp_target_tokens,
                                     counts.tokens});
  for (std::int32_t m = 0; m < microbatches; ++m) {
    WorkKey key{kind, Direction::forward, step, attempt_, m, 0, 0};
    orders_[static_cast<std::size_t>(m % config_.layout.replicas)].push_back(
        {key, counts.target_tokens, counts.mtp_target_tokens, take_sampled(key)});
  }
  for (std::size_t r = 0; r < orders_.size(); ++r) drain(r);
}

// A word to itself comes behind what it sent: the next batch is made while others work on that one.
void Loader::drain(std::size_t replica) {
  auto& orders = orders_[replica];
  bool sent = false;
  for (; credits_[replica] > 0 && !orders.empty(); sent = true) {
    --credits_[replica];
    send(replica, orders.front());
    orders.pop_front();
  }
  if (sent && !orders.empty()) context_.post(context_.self(), Credit{Channel::microbatch, 0, 0, attempt_});
}

void Loader::prepare() {
  for (auto& orders : orders_)
    if (!orders.empty() && !orders.front().ready) orders.front().ready = batch_of(orders.front());
}

void Loader::send(std::size_t replica, const Order& order) {
  const int stages = config_.layout.stages;
  TokenBatch batch = order.ready ? *order.ready : batch_of(order);
  if (stages > 1) context_.post(stage_address(config_, static_cast<int>(replica), stages - 1), batch);
  context_.post(stage_address(config_, static_cast<int>(replica), 0), std::move(batch));
}

TokenBatch Loader::batch_of(const Order& order) const {
  const Batch batch = order.key.kind == WorkKind::train ? corpus_->train(order.key.step, order.key.microbatch)
                                                        : corpus_->held_out(order.key.microbatch);
  PayloadPool& pool = context_.pool();
  return {order.key,
          batch.sequences,
          batch.length,
          static_cast<std::int32_t>(batch.spans.size() / 4),
          order.target_tokens,
          order.mtp_target_tokens,
          to_payload(pool, batch.ids),
          to_payload(pool, batch.targets),
          to_payload(pool, batch.mtp_targets),
          to_payload(pool, batch.positions),
          to_payload(pool, batch.spans),
          {},
          {}};
}

}  // namespace troupe
