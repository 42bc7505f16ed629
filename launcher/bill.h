// The bill of a run: what all nodes tell, added up, and what nobody can tell (a process that starts, is lost, or ends)
// charged by the launcher. So the bins sum to nodes x threads x wall time if every node's own bill is right; a line of
// metrics.jsonl says both sums. Times price they are the cost; a resumed run goes on from the cost that it had.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "actors/bill.h"
#include "actors/config.h"

namespace troupe {

nlohmann::json to_json(const NodeBill& bill);
NodeBill node_bill_from(const nlohmann::json& json);

class RunBill {
 public:
  // REQUIRES: config.device.threads is resolved. Times are of one clock.
  RunBill(const Config& config, std::int64_t begin_us);
  // What earlier processes of this run had spent, by their lines in metrics.jsonl: all since `version` was for nothing.
  void go_on(const std::string& metrics_path, std::int64_t version);

  void tell(std::uint32_t node, NodeBill bill);
  // The node is gone; what it did since it last told is for redoing.
  void lost(std::uint32_t node);
  // All are at this version and go on.
  void ready(std::int64_t version);
  // A report with its cost so far, and the bill's line after it when one is due.
  std::vector<nlohmann::json> hear(nlohmann::json report, std::int64_t now_us);
  // Wall time that [budget] leaves, at least a microsecond; 0: it has no limit of hours or dollars.
  std::int64_t allowance_us(std::int64_t now_us) const;
  // The line of metrics.jsonl (see actors/metrics.h), as told so far; `ended`: until now, whatever was told.
  nlohmann::json line(bool ended, std::int64_t now_us) const;

 private:
  struct Member {
    Account past;                // of incarnations before, and of the times between them
    std::vector<NodeBill> dead;  // that wait for the version to which the run goes back
    NodeBill told;
    Account found;               // causes behind its waits for the conductor
    std::int64_t looked_us = 0;  // of those waits, already looked behind
    double memory_mib = 0;       // of any incarnation
    bool telling = false, replaced = false;
    std::int64_t charged_us = 0;  // the time that `past` and `dead` reach to
  };
  void look_behind(const Account& leader);
  static Account settled(const Member& member);
  double dollars(std::int64_t thread_us) const;
  Account sum(bool ended, std::int64_t now_us, std::int64_t& wall_us) const;

  const Config& config_;
  std::int64_t threads_, begin_us_, version_ = 0, last_line_us_ = 0;
  std::vector<Member> members_;
  std::uint32_t leader_;  // the conductor's node
  int losses_ = 0;
  Account before_;                   // of earlier processes of this run
  std::int64_t wall_before_us_ = 0;  // thread-microseconds
};

// The line of a time in which every thread of the run was there for one thing, before any step; what the run's metrics
// already bill is in it.
nlohmann::json bill_of_time(const Config& config, Bin bin, std::int64_t begin_us, std::int64_t end_us,
                            const std::string& metrics_path);

// "128 + 171 MiB at most", node by node; empty: the line tells of none.
std::string memory_text(const nlohmann::json& line);

// The end of a run, a line for each bin and the total; a bin that somebody caused names the worst.
std::string bill_table(const nlohmann::json& line);

}  // namespace troupe
