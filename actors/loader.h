// Loader: sends each step's microbatches to the first stages (and the tokens to the last ones) as credits allow. It
// remembers nothing: (step, microbatch) -> data is a pure function, so its position is the step. With rollouts the data
// come from the rollout buffer, ready made.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "actors/config.h"
#include "actors/data/corpus.h"
#include "actors/node.h"
#include "actors/wait.h"

namespace troupe {

class Loader {
 public:
  Loader(const Context& context, const Config& config, std::shared_ptr<const Corpus> corpus);

  void on(const Restore& restore, const Address& from);
  void on(const Credit& credit, const Address& from);
  void on(const StartStep& start, const Address& from);
  void on(const StartEvaluation& start, const Address& from);
  void on(const TokenBatch& batch, const Address& from);  // of a rollout, from the rollout buffer
  void on(const Stop&, const Address&) {}
  void waits(Waits& out) const;
  void credits(std::vector<Credits>& out) const;
  std::uint32_t attempt() const { return attempt_; }
  std::int64_t version() const { return next_step_; }

 private:
  struct Order {
    WorkKey key;
    std::int64_t target_tokens, mtp_target_tokens;
    std::optional<TokenBatch> ready;  // made ahead, or with rollouts by the rollout buffer
  };
  void queue(WorkKind kind, std::int64_t step, int microbatches, const StepCounts& counts);
  void begin_sampled_step();
  std::optional<TokenBatch> take_sampled(const WorkKey& key);
  void drain(std::size_t replica);
  void send(std::size_t replica, const Order& order);
  TokenBatch batch_of(const Order& order) const;
  void prepare();  // what will be sent next

  Context context_;
  const Config& config_;
  std::shared_ptr<const Corpus> corpus_;
  std::uint32_t attempt_ = kNoAttempt;
  std::int64_t next_step_ = -1;  // after the last that was begun
  std::vector<std::pair<Credit, Address>> early_credits_;
  std::vector<int> credits_;               // per replica
  std::vector<std::deque<Order>> orders_;  // per replica, in increasing microbatch
  // With rollouts: what steps to come learn from, by step and microbatch; the step that waits for its own.
  std::map<std::int64_t, std::map<std::int32_t, TokenBatch>> sampled_;
  std::int64_t begun_ = -1;
};

}  // namespace troupe
