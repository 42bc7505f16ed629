#include "launcher/inspect/asked_nodes.h"

#include <algorithm>

#include "kernels/base/error.h"
#include "launcher/config.h"
#include "launcher/inspect/live_order.h"
#include "launcher/journal_clocks.h"
#include "launcher/loop.h"

namespace troupe {

namespace {

constexpr std::uint32_t kRecordsMax = 100'000;  // of a node, looked at for rates

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

// From the node's clock to ours.
void shift(BoardPage& page, std::int64_t offset_us) {
  const auto move = [&](std::int64_t& time_us) {
    if (time_us > 0) time_us -= offset_us;
  };
  for (std::int64_t* time_us : {&page.turn_us, &page.node.tick_us, &page.node.finished_us, &page.node.disk_us})
    move(*time_us);
  for (BoardPeer& peer : page.node.peers) {
    move(peer.heard_us);
    move(peer.missing_since_us);
  }
  for (BoardPage::Actor& actor : page.actors) {
    move(actor.handling_since_us);
    move(actor.oldest_us);
    for (Wait& wait : actor.waits) move(wait.since_us);
  }
  for (BoardPage::Thread& thread : page.threads) move(thread.since_us);
}

}  // namespace

AskedNodes::AskedNodes(const std::string& addresses, std::string token, bool can_control) : token_(std::move(token)) {
  for (std::string& address : split(addresses)) {
    Asked& asked = nodes_.emplace_back();
    asked.address = std::move(address);
  }
  config_ = config_from_text(client(nodes_[0]).ask<ConfigText>(ReadConfig{}).toml, nodes_[0].address, {},
                             false);  // its data is elsewhere
  plan_ = make_plan(config_, 0);
  options_.run = addresses;
  options_.can_control = can_control;
  options_.resume = "troupe train RUN/config.toml --out RUN --resume";
}

NodeClient& AskedNodes::client(Asked& asked) const {
  if (!asked.client) asked.client = std::make_unique<NodeClient>(asked.address, token_);
  return *asked.client;
}

bool AskedNodes::look_at(Asked& asked) const try {
  NodeClient& node = client(asked);
  const std::int64_t asked_us = monotonic_us();
  const auto snapshot = node.ask<Snapshot>(ReadSnapshot{});
  asked.offset_us = snapshot.now_us - (asked_us + monotonic_us()) / 2;
  auto page = read_board(snapshot.board.data(), snapshot.board.size());
  if (!page) throw Error("{}: its board is of another build", asked.address);
  shift(*page, asked.offset_us);
  asked.page = std::move(page);
  return true;
} catch (const Error&) {
  asked.client.reset();
  return false;
}

View AskedNodes::look() {
  Observed now;
  for (Asked& asked : nodes_) {
    const bool answers = look_at(asked);
    if (!asked.page) continue;
    asked.page->life = answers ? Life::running : Life::stopped;
    now.pages.push_back(*asked.page);
  }
  now.now_us = monotonic_us();
  now.traffic = traffic_of(journals(kRecordsMax), now.now_us - kTrafficUs);
  View view = make_view(config_, plan_, now, before_ ? &*before_ : nullptr, metrics_.look(), options_);
  for (NodeView& node : view.nodes) node.clock_offset_us = node_of(node.node).offset_us;
  before_ = std::move(now);
  return view;
}

AskedNodes::Asked& AskedNodes::node_of(std::uint32_t node) {
  for (Asked& asked : nodes_)
    if (asked.page && asked.page->node.node == node) return asked;
  throw Error("node {} is not among those that are asked ({})", node, options_.run);
}

std::vector<JournalPage> AskedNodes::journals(std::uint64_t most) {
  std::vector<JournalPage> pages;
  for (Asked& asked : nodes_) {
    if (!asked.client) continue;
    try {
      const auto part = asked.client->ask<JournalPart>(
          ReadJournal{0, static_cast<std::uint32_t>(std::min<std::uint64_t>(most, 0xFFFFFFFF))});
      auto page = read_journal(part.journal.data(), part.journal.size());
      if (!page) continue;
      pages.push_back(std::move(*page));
    } catch (const Error&) {
      asked.client.reset();
    }
  }
  to_own_clock(pages);
  return pages;
}

// Journals lie by the clock of one of the nodes; views have ours.
void AskedNodes::to_own_clock(std::vector<JournalPage>& pages) {
  lay_clocks(pages);
  const auto lowest = std::min_element(pages.begin(), pages.end(), [](const JournalPage& a, const JournalPage& b) {
    return a.owner.node < b.owner.node;
  });
  if (lowest == pages.end()) return;
  const std::int64_t offset_us = node_of(lowest->owner.node).offset_us;
  for (JournalPage& page : pages)
    for (JournalRecord& record : page.records) {
      record.begin_us -= offset_us;
      if (record.sent_us != 0) record.sent_us -= offset_us;
    }
}

std::string AskedNodes::control(const Control& control) {
  if (!options_.can_control) throw Error("nobody may control this run from here: give --allow-control");
  const LiveOrder order = live_order(control, config_);
  return client(node_of(order.node)).obey(order.node, order.what);
}

std::string AskedNodes::token() {
  if (token_.empty()) throw Error("the run's token is needed: give --token-file RUN/token");
  return token_;
}

}  // namespace troupe
