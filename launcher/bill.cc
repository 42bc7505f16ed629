#include "launcher/bill.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "actors/rules/decision.h"
#include "actors/rules/placement.h"
#include "launcher/metrics_file.h"

namespace troupe {

using nlohmann::json;

namespace {

json to_json(const Account& account) {
  json list = json::array();
  for (const auto& [cause, us] : account)
    list.push_back({static_cast<int>(cause.bin), static_cast<int>(cause.holder.role), cause.holder.index, us});
  return list;
}

Account account_from(const json& list) {
  Account account;
  for (const json& one : list) {
    const Address holder{static_cast<Role>(one.at(1).get<int>()), one.at(2)};
    account[{static_cast<Bin>(one.at(0).get<int>()), holder}] += one.at(3).get<std::int64_t>();
  }
  return account;
}

constexpr std::int64_t kLineEveryUs = 1'000'000;
constexpr std::size_t kNodesShown = 8;
constexpr Address kConductor{Role::conductor, 0};
constexpr Cause kLed{Bin::waiting, kConductor};

std::int64_t us_of(const Account& account, const Cause& cause) {
  const auto found = account.find(cause);
  return found == account.end() ? 0 : found->second;
}

double seconds(std::int64_t us) { return static_cast<double>(us) * 1e-6; }

// Bins of a line of metrics.jsonl; who was waited for is not read again.
Account bins_of(const json& line) {
  Account account;
  for (std::size_t i = 0; i < kBins; ++i) {
    const double spent = line.at("thread_seconds").value(to_string(static_cast<Bin>(i)), 0.0);
    if (spent > 0) account[{static_cast<Bin>(i), kNoHolder}] = std::llround(spent * 1e6);
  }
  return account;
}

// The most waited for in this bin; null: it has no holders.
json worst_of(const Account& account, Bin bin) {
  const std::pair<const Cause, std::int64_t>* worst = nullptr;
  for (const auto& entry : account)
    if (entry.first.bin == bin && entry.first.holder != kNoHolder && (worst == nullptr || entry.second > worst->second))
      worst = &entry;
  if (worst == nullptr) return nullptr;
  return {{"holder", to_string(worst->first.holder)}, {"thread_seconds", seconds(worst->second)}};
}

}  // namespace

json to_json(const NodeBill& bill) {
  json versions = json::array();
  for (const auto& [version, account] : bill.versions) versions.push_back({version, to_json(account)});
  return {{"since", bill.since_us},
          {"until", bill.until_us},
          {"account", to_json(bill.account)},
          {"versions", std::move(versions)},
          {"memory_mib", bill.memory_mib}};
}

NodeBill node_bill_from(const json& j) {
  NodeBill bill{j.at("since"), j.at("until"), account_from(j.at("account")), {}, 0};
  bill.memory_mib = j.at("memory_mib");
  for (const json& one : j.at("versions")) bill.versions[one.at(0)] = account_from(one.at(1));
  return bill;
}

RunBill::RunBill(const Config& config, std::int64_t begin_us)
    : config_(config), threads_(std::max(1, config.device.threads)), begin_us_(begin_us) {
  leader_ = place_actors(config).at(kConductor);
  members_.resize(static_cast<std::size_t>(config.layout.nodes));
  for (Member& member : members_) member.charged_us = begin_us;
}

void RunBill::go_on(const std::string& metrics_path, std::int64_t version) {
  Account kept, last;
  for_each_metric(metrics_path, [&](const std::string& kind, const json& line) {
    if (kind != "bill") return;
    last = bins_of(line);
    wall_before_us_ = std::llround(line.at("wall_thread_seconds").get<double>() * 1e6);
    if (line.at("version").get<std::int64_t>() <= version) kept = last;
  });
  NodeBill all{0, 0, last, {{version, kept}}, 0};
  lose_since(all, version);
  before_ = all.account;
}

// A gap before an incarnation's first moment is start-up, or redo when it replaces another.
void RunBill::tell(std::uint32_t node, NodeBill bill) {
  Member& member = members_.at(node);
  if (!member.telling) {
    member.past[{member.replaced ? Bin::redo : Bin::start_up, kNoHolder}] +=
        threads_ * (bill.since_us - member.charged_us);
    member.charged_us = bill.since_us;
    member.telling = true;
  }
  if (node == leader_) look_behind(bill.account);
  member.memory_mib = std::max(member.memory_mib, bill.memory_mib);
  member.told = std::move(bill);
}

// Others know no more than that they wait for the conductor; what its own node was idle for meanwhile is what they all
// waited for. Where that node worked they waited for it indeed.
void RunBill::look_behind(const Account& leader) {
  Account meanwhile;
  std::int64_t all_us = 0;
  for (const auto& [cause, us] : leader)
    if (const std::int64_t more_us = us - us_of(members_[leader_].told.account, cause); more_us > 0)
      all_us += meanwhile[cause] = more_us;
  for (Member& member : members_) {
    const std::int64_t led_us = us_of(member.told.account, kLed);
    const std::int64_t more_us = led_us - std::exchange(member.looked_us, led_us);
    if (&member == &members_[leader_] || more_us <= 0) continue;
    for (const auto& [cause, us] : meanwhile) {
      const bool idle = cause.bin == Bin::bubble || cause.bin == Bin::imbalance || cause.bin == Bin::waiting ||
                        cause.bin == Bin::checkpoint;
      const double share = static_cast<double>(us) / static_cast<double>(all_us);
      if (idle) member.found[cause] += std::llround(static_cast<double>(more_us) * share);
    }
  }
}

// A lost attempt may have taken waits back that were looked behind: no more is moved than is there.
Account RunBill::settled(const Member& member) {
  Account account = member.told.account;
  const std::int64_t there_us = us_of(account, kLed), found_us = total_us(member.found);
  const double share = found_us > there_us ? static_cast<double>(there_us) / static_cast<double>(found_us) : 1;
  for (const auto& [cause, us] : member.found) {
    const std::int64_t moved_us =  // rounded up, they might sum to more
        std::min<std::int64_t>(std::llround(static_cast<double>(us) * share), us_of(account, kLed));
    account[cause] += moved_us;
    account[kLed] -= moved_us;
  }
  return account;
}

void RunBill::lost(std::uint32_t node) {
  Member& member = members_.at(node);
  member.replaced = true;
  ++losses_;
  if (!member.telling) return;
  member.told.account = settled(member);
  member.found.clear();
  member.looked_us = 0;
  member.charged_us = member.told.until_us;
  member.dead.push_back(std::move(member.told));
  member.told = {};
  member.telling = false;
}

void RunBill::ready(std::int64_t version) {
  version_ = version;
  for (Member& member : members_) {
    for (NodeBill& dead : member.dead) {
      lose_since(dead, version);
      add(member.past, dead.account);
    }
    member.dead.clear();
  }
}

// Until now, or as far as each node has told.
Account RunBill::sum(bool ended, std::int64_t now_us, std::int64_t& wall_us) const {
  Account all = before_;
  wall_us = wall_before_us_;
  for (const Member& member : members_) {
    add(all, member.past);
    for (const NodeBill& dead : member.dead) add(all, dead.account);
    add(all, settled(member));
    const std::int64_t told_us = member.telling ? member.told.until_us : member.charged_us;
    const std::int64_t until_us = ended ? now_us : told_us;
    const bool redone = member.replaced && !member.telling;
    if (until_us > told_us) all[{redone ? Bin::redo : Bin::start_up, kNoHolder}] += threads_ * (until_us - told_us);
    wall_us += threads_ * (until_us - begin_us_);
  }
  return all;
}

std::int64_t RunBill::allowance_us(std::int64_t now_us) const {
  const BudgetConfig& budget = config_.budget;
  const double rate = config_.hardware.dollars_per_hour * config_.layout.nodes;
  double hours = 0;
  if (budget.max_hours > 0) hours = budget.max_hours;
  if (budget.max_cost > 0 && rate > 0)
    hours = hours > 0 ? std::min(hours, budget.max_cost / rate) : budget.max_cost / rate;
  if (hours == 0) return 0;
  const auto spent_us = wall_before_us_ / (threads_ * config_.layout.nodes) + now_us - begin_us_;
  return std::max<std::int64_t>(kNothingLeftUs, std::llround(hours * 3.6e9) - spent_us);
}

double RunBill::dollars(std::int64_t thread_us) const {
  return seconds(thread_us) / 3600 * config_.hardware.dollars_per_hour / static_cast<double>(threads_);
}

std::vector<json> RunBill::hear(json report, std::int64_t now_us) {
  const std::string kind = report.at("kind");
  if (kind == "step") {
    version_ = report.at("step").get<std::int64_t>() + 1;
    const auto nodes = static_cast<std::int64_t>(members_.size());
    report["cost_dollars"] = dollars(wall_before_us_ + nodes * threads_ * (now_us - begin_us_));
  }
  std::vector<json> lines{std::move(report)};
  if (kind != "step" || now_us - last_line_us_ < kLineEveryUs) return lines;
  last_line_us_ = now_us;
  lines.push_back(line(false, now_us));
  return lines;
}

json RunBill::line(bool ended, std::int64_t now_us) const {
  std::int64_t wall_us = 0;
  const Account account = sum(ended, now_us, wall_us);
  json bins = json::object(), worst = json::object();
  for (std::size_t i = 0; i < kBins; ++i) {
    const auto bin = static_cast<Bin>(i);
    bins[to_string(bin)] = seconds(total_us(account, bin));
    if (json one = worst_of(account, bin); !one.is_null()) worst[to_string(bin)] = std::move(one);
  }
  json memory = json::array();
  for (const Member& member : members_) memory.push_back(member.memory_mib);
  const std::int64_t total = total_us(account);
  const auto useful = static_cast<double>(total_us(account, Bin::useful));
  return {{"kind", "bill"},
          {"version", version_},
          {"wall_thread_seconds", seconds(wall_us)},
          {"total_thread_seconds", seconds(total)},
          {"thread_seconds", std::move(bins)},
          {"worst", std::move(worst)},
          {"losses", losses_},
          {"useful", total > 0 ? useful / static_cast<double>(total) : 0},
          {"memory_mib", std::move(memory)},
          {"cost_dollars", dollars(total)}};
}

json bill_of_time(const Config& config, Bin bin, std::int64_t begin_us, std::int64_t end_us,
                  const std::string& metrics_path) {
  RunBill bill(config, begin_us);
  bill.go_on(metrics_path, 0);
  const std::int64_t each_us = std::max(1, config.device.threads) * (end_us - begin_us);
  for (int n = 0; n < config.layout.nodes; ++n)
    bill.tell(static_cast<std::uint32_t>(n), {begin_us, end_us, {{{bin, kNoHolder}, each_us}}, {}, 0});
  return bill.line(true, end_us);
}

std::string memory_text(const json& line) {
  std::vector<double> mib;
  if (line.contains("memory_mib")) mib = line.at("memory_mib").get<std::vector<double>>();
  std::erase(mib, 0.0);
  if (mib.empty()) return "";
  if (mib.size() <= kNodesShown) {
    std::string text;
    for (const double one : mib) text += fmt::format("{}{:.0f}", text.empty() ? "" : " + ", one);
    return text + " MiB at most";
  }
  const auto [least, most] = std::minmax_element(mib.begin(), mib.end());
  return fmt::format("{:.0f} to {:.0f} MiB at most, of {} nodes", *least, *most, mib.size());
}

std::string bill_table(const json& line) {
  const double total = std::max(1e-9, line.at("total_thread_seconds").get<double>()), cost = line.at("cost_dollars");
  const auto row = [&](const std::string& name, double spent, const std::string& note) {
    return fmt::format("  {:<12}{:>11.1f} s{:>8.1f} %{:>12}   {}\n", name, spent, 100 * spent / total,
                       fmt::format("${:.4f}", cost * spent / total), note);
  };
  std::string text;
  for (std::size_t i = 0; i < kBins; ++i) {
    const auto bin = static_cast<Bin>(i);
    const double spent = line.at("thread_seconds").at(to_string(bin));
    if (spent == 0) continue;
    std::string note = meaning(bin);
    if (const auto worst = line.at("worst").find(to_string(bin)); worst != line.at("worst").end())
      note += fmt::format("; most for {}: {:.1f} s", worst->at("holder").get<std::string>(),
                          worst->at("thread_seconds").get<double>());
    if (bin == Bin::redo && line.at("losses") > 0) note += fmt::format("; {} lost", line.at("losses").get<int>());
    text += row(to_string(bin), spent, note);
  }
  return text + row("total", line.at("total_thread_seconds"), "of all compute threads");
}

}  // namespace troupe
