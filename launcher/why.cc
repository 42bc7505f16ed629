// The search: breadth first over waits, from the conductor's on. Every way ends in a root of some kind; the hardest kind
// is told (a dead process before a lost message), and of several the one that was reached first.
#include "launcher/why.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <map>
#include <optional>

#include "actors/rules/placement.h"

namespace troupe {

namespace {

using Actor = BoardPage::Actor;

constexpr Address kConductor{Role::conductor, 0};
// Boards are written every 50 ms, each at its own moment: what is younger than this may be on its way.
constexpr std::int64_t kYoungUs = 2'000'000;
constexpr std::int64_t kLinkUs = 5'000'000;

struct Candidate {
  RootKind kind = RootKind::working;
  std::int64_t since_us = 0;
  std::string root;
  int link = -1;  // the last of its chain
  // Of a process or of a way between two: a chain that comes there leads to it.
  std::optional<std::uint32_t> node{}, peer{};
};

struct Link {
  const Actor* actor = nullptr;
  std::size_t wait = 0;
  int before = -1;
};

class Search {
 public:
  Search(const Config& config, const std::vector<BoardPage>& pages, const WhyOptions& options);
  Explanation run();

 private:
  void look_at_processes();
  void look_at_links(const BoardPage& page);
  void follow(const Actor& actor, int before);
  void visit(int link);
  bool own_wait(const Link& link, const Wait& wait, int number);
  bool somebody_else_explains(const Link& link, const Wait& wait) const;
  std::string parties(const Link& link, const Wait& wait) const;
  void add(RootKind kind, std::int64_t since_us, int link, std::string root);
  void add_process(RootKind kind, const BoardPage& page, std::string root);
  void add_way(std::int64_t since_us, std::uint32_t node, std::uint32_t peer, std::string root);
  void lead_to_processes(std::uint32_t from, std::uint32_t to, int link);
  void close_circle();
  Explanation tell(const Candidate& root) const;

  const BoardPage* page_of(std::uint32_t node) const;
  const BoardPage& page_of(const Actor& actor) const { return *pages_by_actor_.at(&actor); }
  std::string place(const Address& address) const;
  std::string line(const Link& link) const;
  std::string age(std::int64_t since_us) const;
  std::string replace(const BoardPage& page) const;
  const Wait& wait_of(const Link& link) const { return link.actor->waits[link.wait]; }
  bool is_old(std::int64_t since_us) const { return options_.now_us - since_us > kYoungUs; }

  const Config& config_;
  const std::vector<BoardPage>& pages_;
  const WhyOptions& options_;
  std::map<Address, std::uint32_t> places_;
  std::map<Address, const Actor*> actors_;
  std::map<const Actor*, const BoardPage*> pages_by_actor_;
  std::map<std::pair<const Actor*, std::size_t>, int> seen_;  // wait -> its link
  std::deque<Link> links_;
  std::vector<Candidate> roots_;
  int circle_ = -1;  // a link that leads back
};

Search::Search(const Config& config, const std::vector<BoardPage>& pages, const WhyOptions& options)
    : config_(config), pages_(pages), options_(options), places_(place_actors(config)) {
  for (const BoardPage& page : pages_)
    for (const Actor& actor : page.actors) {
      actors_[actor.address] = &actor;
      pages_by_actor_[&actor] = &page;
    }
}

// ---- Words ----------------------------------------------------------------------------------------------------------

std::string Search::age(std::int64_t since_us) const {
  return fmt::format("{:.1f} s", static_cast<double>(std::max<std::int64_t>(0, options_.now_us - since_us)) * 1e-6);
}

std::string Search::place(const Address& address) const {
  const auto found = places_.find(address);
  if (address.role == Role::supervisor) return "the launcher";
  return found == places_.end() ? to_string(address) : fmt::format("{} (node {})", to_string(address), found->second);
}

std::string Search::line(const Link& link) const {
  const Wait& wait = wait_of(link);
  const std::string from = wait.holder == link.actor->address ? "its own" : place(wait.holder);
  return fmt::format("{} waits for {} of {}, held by {}, for {} of {} s (limits.stall_seconds)",
                     place(link.actor->address), to_string(wait.what), describe(wait.item), from, age(wait.since_us),
                     config_.limits.stall_seconds);
}

std::string Search::replace(const BoardPage& page) const {
  if (config_.layout.nodes > 1) return fmt::format("kill -9 {} has it replaced", page.pid);
  return fmt::format("kill -9 {} ends it; continue with: {}", page.pid, options_.resume);
}

const BoardPage* Search::page_of(std::uint32_t node) const {
  for (const BoardPage& page : pages_)
    if (page.node.node == node) return &page;
  return nullptr;
}

// ---- Processes and links --------------------------------------------------------------------------------------------

void Search::add(RootKind kind, std::int64_t since_us, int link, std::string root) {
  roots_.push_back({kind, since_us, std::move(root), link, {}, {}});
}

void Search::add_process(RootKind kind, const BoardPage& page, std::string root) {
  roots_.push_back({kind, page.turn_us, std::move(root), -1, page.node.node, {}});
}

void Search::add_way(std::int64_t since_us, std::uint32_t node, std::uint32_t peer, std::string root) {
  roots_.push_back({RootKind::link, since_us, std::move(root), -1, node, peer});
}

void Search::lead_to_processes(std::uint32_t from, std::uint32_t to, int link) {
  for (Candidate& root : roots_) {
    const bool way = root.peer && ((root.node == from && root.peer == to) || (root.node == to && root.peer == from));
    if (root.link < 0 && (way || (!root.peer && root.node == to))) root.link = link;
  }
}

std::string launcher_of(const BoardPage& page, const std::string& resume) {
  if (page.launcher_pid == page.pid || page.launcher == Life::dead)
    return fmt::format("nobody replaces it; continue with: {}", resume);
  if (page.launcher == Life::stopped)
    return fmt::format("its launcher, which would replace it, is stopped: kill -CONT {}", page.launcher_pid);
  return fmt::format("its launcher (process {}) should be replacing it", page.launcher_pid);
}

// What is wrong with a process needs no chain that leads to it: boards of the others may be older than the harm.
void Search::look_at_processes() {
  for (const BoardPage& page : pages_) {
    const std::string who = fmt::format("node {} (process {})", page.node.node, page.pid), since = age(page.turn_us);
    const auto stuck = std::find_if(page.actors.begin(), page.actors.end(),
                                    [](const Actor& actor) { return !actor.handling.empty(); });
    if (page.life == Life::dead)
      add_process(
          RootKind::dead, page,
          fmt::format("{} is dead, its last turn was {} ago; {}", who, since, launcher_of(page, options_.resume)));
    else if (page.life == Life::stopped)
      add_process(RootKind::stopped, page,
                  fmt::format("{} is stopped, its last turn was {} ago; kill -CONT {} lets it go on, {}", who, since,
                              page.pid, replace(page)));
    else if (!is_old(page.turn_us))
      look_at_links(page);
    else if (stuck != page.actors.end())
      add_process(RootKind::handler, page,
                  fmt::format("{} has been handling {} from {} for {}, and nothing else on its node can run; {}",
                              place(stuck->address), stuck->handling, to_string(stuck->handling_from),
                              age(stuck->handling_since_us), replace(page)));
    else
      add_process(RootKind::silent, page,
                  fmt::format("{} runs, but its loop took its last turn {} ago: its machine is overloaded or swaps, or "
                              "a system call does not return; {}",
                              who, since, replace(page)));
  }
}

void Search::look_at_links(const BoardPage& page) {
  const std::uint32_t node = page.node.node;
  for (std::uint32_t i = 0; i < page.node.peers_count; ++i) {
    const BoardPeer& peer = page.node.peers[i];
    const BoardPage* other = page_of(peer.node);
    if (other == nullptr || other->life != Life::running || is_old(other->turn_us)) continue;
    if (options_.now_us - peer.heard_us > kLinkUs)
      add_way(peer.heard_us, node, peer.node,
              fmt::format("node {} has heard nothing from node {} for {}, and both live: the way between them is cut; "
                          "after twice limits.silence_ms ({} ms) one of them is replaced",
                          node, peer.node, age(peer.heard_us), config_.limits.silence_ms));
    if (peer.missing_since_us > 0 && is_old(peer.missing_since_us))
      add_way(peer.missing_since_us, node, peer.node,
              fmt::format("a frame from node {} to node {} is missing for {}, and {} that came after it wait: the "
                          "transport lost it; after twice limits.silence_ms ({} ms) one of them is replaced",
                          peer.node, node, age(peer.missing_since_us), peer.early, config_.limits.silence_ms));
  }
}

// ---- Waits ----------------------------------------------------------------------------------------------------------

void Search::follow(const Actor& actor, int before) {
  for (std::size_t i = 0; i < actor.waits.size(); ++i)
    if (seen_.try_emplace({&actor, i}, static_cast<int>(links_.size())).second) links_.push_back({&actor, i, before});
}

// The same thing is asked of several, when who asks can't know which of them has it.
bool is_asked_of_several(const Wait& wait) {
  return wait.what == Awaited::evaluation || wait.what == Awaited::generated || wait.what == Awaited::snapshot_part ||
         wait.what == Awaited::answers;
}

bool Search::somebody_else_explains(const Link& link, const Wait& wait) const {
  if (!is_asked_of_several(wait)) return false;
  for (const Wait& other : link.actor->waits) {
    const auto holder = actors_.find(other.holder);
    const bool same = other.what == wait.what && other.item == wait.item && other.holder != wait.holder;
    if (same && holder != actors_.end() && !owed(config_, *link.actor, other, *holder->second).because.empty())
      return true;
  }
  return false;
}

// Between whom a message was lost: of several, whoever may have sent it; of an evaluation also the last that answered.
std::string Search::parties(const Link& link, const Wait& wait) const {
  std::string all = place(link.actor->address);
  if (!is_asked_of_several(wait)) return all + " and " + place(wait.holder);
  const auto stages = static_cast<std::uint32_t>(config_.layout.stages);
  bool first = true;
  for (const Wait& other : link.actor->waits) {
    if (other.what != wait.what || other.item != wait.item || other.holder.role == Role::loader) continue;
    const std::uint32_t index = other.holder.index;
    if (first && wait.what == Awaited::evaluation)
      all += ", " + place(index % stages > 0 ? Address{Role::stage, index - 1} : Address{Role::loader, 0});
    all += ", " + place(other.holder);
    first = false;
  }
  return all;
}

// Segments and disk jobs of the node itself. True: this wait is done with.
bool Search::own_wait(const Link& link, const Wait& wait, int number) {
  if (wait.what == Awaited::verdict) {
    add(is_old(wait.since_us) ? RootKind::jury : RootKind::working, wait.since_us, number,
        fmt::format(
            "{} has asked for the verdict on answer {} to prompt {} of rollout {} since {}; a judge that hangs is "
            "replaced after judge.wall_seconds ({})",
            place(link.actor->address), wait.item.chunk, wait.item.microbatch, wait.item.step, age(wait.since_us),
            config_.judge.wall_seconds));
    return true;
  }
  if (wait.what != Awaited::segment && wait.what != Awaited::disk) return false;
  const BoardNode& node = page_of(*link.actor).node;
  const bool segment = wait.what == Awaited::segment;
  const std::int64_t since_us = std::max(wait.since_us, segment ? node.finished_us : node.disk_us);
  const std::uint64_t left = segment ? node.pending : node.disk_jobs;
  const std::string who = place(link.actor->address), of = describe(wait.item);
  if (!is_old(since_us))
    add(RootKind::working, since_us, number,
        fmt::format("nothing stands still: {} {} {}", who, segment ? "computes" : "writes", of));
  else if (left == 0)
    add(RootKind::completion, since_us, number,
        fmt::format("{} waits for {} of {}, but node {} has none left: the word that it is done was lost; {}", who,
                    to_string(wait.what), of, node.node, replace(page_of(*link.actor))));
  else if (segment)
    add(RootKind::segment, since_us, number,
        fmt::format("the device of node {} has finished no segment for {} with {} to do, the one of {} among them: a "
                    "kernel that does not return, or a machine that is overloaded; {}",
                    node.node, age(since_us), left, of, replace(page_of(*link.actor))));
  else
    add(RootKind::disk, since_us, number,
        fmt::format("the disk of node {} has done none of its {} jobs for {}, writing {}: look at the file system of "
                    "the run's folder",
                    node.node, left, age(since_us), of));
  return true;
}

void Search::visit(int number) {
  const Link link = links_[static_cast<std::size_t>(number)];
  const Wait& wait = wait_of(link);
  if (own_wait(link, wait, number)) return;
  if (wait.what == Awaited::leave)
    return add(RootKind::paused, wait.since_us, number,
               fmt::format("somebody paused the run {} ago; it goes on when it is resumed, or stopped to be saved",
                           age(wait.since_us)));
  if (wait.holder.role == Role::supervisor)
    return add(is_old(wait.since_us) ? RootKind::launcher : RootKind::working, wait.since_us, number,
               fmt::format("the launcher has not said {}; if its process is gone or stopped, continue with: {}",
                           to_string(wait.what), options_.resume));
  const auto found = actors_.find(wait.holder);
  if (found == actors_.end()) {
    const auto place = places_.find(wait.holder);
    return add(is_old(wait.since_us) ? RootKind::dead : RootKind::working, wait.since_us, number,
               fmt::format("{} is nowhere: node {} has no board; its process has yet to start, or never did",
                           to_string(wait.holder), place == places_.end() ? 0 : place->second));
  }
  const Actor& holder = *found->second;
  const BoardPage& page = page_of(holder);
  lead_to_processes(page_of(*link.actor).node.node, page.node.node, number);
  const Owed why = owed(config_, *link.actor, wait, holder);
  for (const std::size_t i : why.because) {
    const auto [place, fresh] = seen_.try_emplace({&holder, i}, static_cast<int>(links_.size()));
    if (fresh) links_.push_back({&holder, i, number});
    if (!fresh && circle_ < 0) circle_ = number;
  }
  if (!why.because.empty() || holder.more || somebody_else_explains(link, wait)) return;
  const bool young = !is_old(wait.since_us) || !holder.handling.empty();
  if (young)
    add(RootKind::working, wait.since_us, number,
        fmt::format("nothing stands still: {} of {} is on its way", to_string(wait.what), describe(wait.item)));
  else
    add(RootKind::lost, wait.since_us, number,
        fmt::format("{} of {} was lost between {}: {} waits for {} since {}, and who should have sent it owes nothing "
                    "that it knows of; {}",
                    why.lost, describe(wait.item), parties(link, wait), place(link.actor->address),
                    to_string(wait.what), age(wait.since_us), replace(page)));
}

Explanation Search::tell(const Candidate& root) const {
  Explanation told;
  told.kind = root.kind;
  told.root = root.root;
  told.since_us = root.since_us;
  for (int at = root.link; at >= 0; at = links_[static_cast<std::size_t>(at)].before) {
    const Link& link = links_[static_cast<std::size_t>(at)];
    told.links.insert(told.links.begin(), line(link));
    told.chain.insert(told.chain.begin(), {link.actor->address, wait_of(link)});
  }
  return told;
}

// Of boards from different moments, waits that are long over seem to lead back: a circle is as young as its youngest.
void Search::close_circle() {
  std::int64_t since_us = 0;
  for (int at = circle_; at >= 0; at = links_[static_cast<std::size_t>(at)].before)
    since_us = std::max(since_us, wait_of(links_[static_cast<std::size_t>(at)]).since_us);
  if (is_old(since_us))
    add(RootKind::circle, since_us, circle_,
        "they wait for each other, and nobody else is waited for: a fault of the program");
  else
    add(RootKind::working, since_us, circle_, "nothing stands still: they hand work to each other");
}

Explanation Search::run() {
  look_at_processes();
  const auto conductor = actors_.find(kConductor);
  if (conductor != actors_.end()) follow(*conductor->second, -1);
  for (std::size_t next = 0; next < links_.size(); ++next) visit(static_cast<int>(next));
  if (roots_.empty() && circle_ >= 0) close_circle();
  if (roots_.empty())
    return {{}, {}, "nobody waits for anything: the run is at its end or has yet to begin", RootKind::working, 0};
  const auto harder = [](const Candidate& a, const Candidate& b) { return a.kind < b.kind; };
  return tell(*std::min_element(roots_.begin(), roots_.end(), harder));
}

}  // namespace

std::string describe(const WorkKey& item) {
  std::string text = fmt::format("step {}", item.step);
  if (item.kind == WorkKind::evaluate) text = fmt::format("the evaluation of version {}", item.step);
  if (item.kind == WorkKind::generate) text = fmt::format("the answers of version {}", item.step);
  if (item.microbatch < 0) return text;
  return fmt::format("{} microbatch {} layer {} chunk {} {}", text, item.microbatch, item.layer, item.chunk,
                     item.direction == Direction::forward ? "forward" : "backward");
}

std::string Explanation::text() const {
  std::string all;
  for (const std::string& link : links) all += link + "\n";
  return all + "root: " + root + "\n";
}

bool stands_still(const Explanation& why, const Config& config, std::int64_t now_us) {
  switch (why.kind) {
    case RootKind::working:
    case RootKind::paused:
      return false;
    case RootKind::segment:
    case RootKind::disk:
    case RootKind::jury:
    case RootKind::launcher:
      return now_us - why.since_us >= std::int64_t{1'000'000} * config.limits.stall_seconds;
    default:
      return true;
  }
}

Explanation explain(const Config& config, const std::vector<BoardPage>& pages, const WhyOptions& options) {
  return Search(config, pages, options).run();
}

}  // namespace troupe
