#include "actors/bill.h"

#include <utility>

namespace troupe {

std::int64_t total_us(const Account& account) {
  std::int64_t sum = 0;
  for (const auto& [cause, us] : account) sum += us;
  return sum;
}

std::int64_t total_us(const Account& account, Bin bin) {
  std::int64_t sum = 0;
  for (const auto& [cause, us] : account) sum += cause.bin == bin ? us : 0;
  return sum;
}

void add(Account& account, const Account& more) {
  for (const auto& [cause, us] : more) account[cause] += us;
}

namespace {

// Moves what `bin_counts` of all that was spent since `then` to redo.
template <typename Counts>
void move_to_redo(Account& account, const Account& then, const Counts& bin_counts) {
  std::int64_t lost_us = 0;
  for (auto& [cause, us] : account) {
    if (cause.bin == Bin::redo || cause.bin == Bin::start_up || !bin_counts(cause.bin)) continue;
    const auto before = then.find(cause);
    const std::int64_t kept_us = before == then.end() ? 0 : before->second;
    lost_us += us - kept_us;
    us = kept_us;
  }
  account[{Bin::redo, kNoHolder}] += lost_us;
}

bool is_wait(Bin bin) { return bin == Bin::bubble || bin == Bin::imbalance || bin == Bin::waiting; }

}  // namespace

void lose_since(NodeBill& bill, std::int64_t version) {
  if (bill.versions.empty() || bill.versions.rbegin()->first < version) {
    // Others saw the step decided, so its work stands; what this node waited since, it waited for who was lost.
    if (!bill.versions.empty()) move_to_redo(bill.account, bill.versions.rbegin()->second, is_wait);
    bill.versions[version] = bill.account;
    return;
  }
  const auto later = bill.versions.upper_bound(version);
  const Account then = later == bill.versions.begin() ? Account{} : std::prev(later)->second;
  move_to_redo(bill.account, then, [](Bin) { return true; });
  bill.versions.erase(bill.versions.lower_bound(version), bill.versions.end());
  bill.versions[version] = bill.account;
}

Meter::Meter(std::uint32_t incarnation, std::int64_t ask_us)
    : ask_us_(ask_us), cause_{incarnation > 1 ? Bin::redo : Bin::start_up, kNoHolder}, ran_(incarnation > 1) {}

// The idle time that came meanwhile is for the caller to charge.
std::int64_t Meter::charge_busy(const Usage& usage) {
  const std::array<std::pair<Use, Bin>, 6> busy{{{Use::learn, Bin::useful},
                                                 {Use::rollout, Bin::rollout},
                                                 {Use::score, Bin::scoring},
                                                 {Use::evaluate, Bin::evaluation},
                                                 {Use::snapshot, Bin::checkpoint},
                                                 {Use::load, ran_ ? Bin::redo : Bin::start_up}}};
  for (const auto& [use, bin] : busy)
    if (const std::int64_t us = usage.of(use) - seen_.of(use); us != 0) bill_.account[{bin, kNoHolder}] += us;
  return usage.of(Use::idle) - std::exchange(seen_, usage).of(Use::idle);
}

void Meter::charge_idle(const Ask& ask) {
  if (idle_us_ == 0) return;
  const bool waking = seen_.ready > 0 && seen_.threads_idle > 0;
  cause_ = waking ? Cause{Bin::messages, kNoHolder} : cause_of(ask(), ran_);
  bill_.account[cause_] += std::exchange(idle_us_, 0);
}

void Meter::turn(const Usage& usage, const Ask& ask) {
  idle_us_ += charge_busy(usage);
  if (idle_us_ >= ask_us_) charge_idle(ask);
}

void Meter::rest(const Usage& usage) {
  const bool work = cause_.bin != Bin::start_up && cause_.bin != Bin::redo;
  bill_.account[work ? Cause{Bin::messages, kNoHolder} : cause_] += charge_busy(usage);
}

void Meter::see(const Message& message) {
  if (const auto* decision = std::get_if<Decision>(&message)) decided(*decision);
  if (const auto* begin = std::get_if<Restore>(&message)) restore(*begin);
}

// It comes once to every actor of the node.
void Meter::decided(const Decision& decision) {
  const std::int64_t version = decision.step + 1;
  if (!attempt_ || decision.attempt != *attempt_ || bill_.versions.contains(version)) return;
  bill_.versions[version] = bill_.account;
  if (decision.checkpoint) checkpoints_[version] = bill_.account;
  if (checkpoints_.size() > kCheckpointsMax) checkpoints_.erase(checkpoints_.begin());
  if (bill_.versions.size() > kVersionsMax) bill_.versions.erase(bill_.versions.begin());
}

void Meter::restore(const Restore& restore) {
  if (attempt_ && restore.attempt <= *attempt_) return;
  const bool again = std::exchange(attempt_, restore.attempt).has_value();
  ran_ = ran_ || again;
  bill_.versions.insert(checkpoints_.begin(), checkpoints_.end());
  if (again)
    lose_since(bill_, restore.version);
  else
    bill_.versions[restore.version] = bill_.account;
  checkpoints_.erase(checkpoints_.upper_bound(restore.version), checkpoints_.end());
}

NodeBill Meter::bill(const Usage& usage, const Ask& ask, std::int64_t since_us, std::int64_t now_us) {
  idle_us_ += charge_busy(usage);
  charge_idle(ask);
  NodeBill told = bill_;
  told.since_us = since_us;
  told.until_us = now_us;
  told.versions.insert(checkpoints_.begin(), checkpoints_.end());
  return told;
}

}  // namespace troupe
