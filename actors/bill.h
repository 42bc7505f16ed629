// The bill of a node: every microsecond of every compute thread in one bin. The law: the bins sum to threads x time.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>

#include "actors/rules/bill.h"
#include "kernels/usage.h"
#include "messages/message.h"

namespace troupe {

// Thread-microseconds by cause. Bounded: a holder is an actor of the run.
using Account = std::map<Cause, std::int64_t>;
std::int64_t total_us(const Account& account);
std::int64_t total_us(const Account& account, Bin bin);
void add(Account& account, const Account& more);

// What a node tells the launcher: its account, and what the account was when it came to each of its last versions.
struct NodeBill {
  std::int64_t since_us = 0, until_us = 0;  // of the machine's clock
  Account account;
  std::map<std::int64_t, Account> versions;
  double memory_mib = 0;  // the most that its process held at once; 0: nobody looked
};
// The run goes on from `version`: all that was spent since is redo now, except what was start-up. Of a version that it did
// not come to, because others alone saw it decided, its waits are; one that it no longer knows counts as the one before.
void lose_since(NodeBill& bill, std::int64_t version);

class Meter {
 public:
  // incarnation: above 1 the node replaces a lost one, and even its start is redo.
  // ask_us: so much idle time may come together before the actors are asked what they wait for.
  static constexpr std::int64_t kAskUs = 100;  // thread-microseconds
  explicit Meter(std::uint32_t incarnation, std::int64_t ask_us = kAskUs);
  using Ask = std::function<const NodeWaits&()>;
  // A turn begins: idle time since the last one is charged to what the actors wait for. They are asked when enough of
  // it has come together.
  void turn(const Usage& usage, const Ask& ask);
  // The turn is over: idle time since it began is the loop's own.
  void rest(const Usage& usage);
  // A decision that came, and an attempt that begins.
  void see(const Message& message);
  // REQUIRES: since_us is when the device began.
  NodeBill bill(const Usage& usage, const Ask& ask, std::int64_t since_us, std::int64_t now_us);

 private:
  static constexpr std::size_t kVersionsMax = 8, kCheckpointsMax = 4;
  std::int64_t charge_busy(const Usage& usage);
  void charge_idle(const Ask& ask);
  void decided(const Decision& decision);
  void restore(const Restore& restore);

  std::int64_t ask_us_;
  Usage seen_;
  std::int64_t idle_us_ = 0;  // not charged yet
  Cause cause_;
  bool ran_;
  std::optional<std::uint32_t> attempt_;
  NodeBill bill_;
  std::map<std::int64_t, Account> checkpoints_;  // versions from which a run may go on later
};

}  // namespace troupe
