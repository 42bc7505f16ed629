#include "launcher/stall.h"

#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "launcher/board_file.h"
#include "launcher/loop.h"
#include "launcher/program.h"

namespace troupe {

namespace {
constexpr std::int64_t kLookUs = 1'000'000;
}

// A new incarnation counts as progress too.
bool StallRule::look(std::int64_t now_us, const std::vector<BoardPage>& pages) {
  std::uint64_t sum = pages.size();
  for (const BoardPage& page : pages) sum = sum * 31 + page.progress() * 1'000'003 + page.node.incarnation;
  if (sum != seen_ || since_us_ < 0) {
    seen_ = sum;
    since_us_ = now_us;
    told_ = false;
  }
  if (told_ || pages.empty() || now_us - since_us_ < limit_us_) return false;
  told_ = true;
  return true;
}

Stalls::Stalls(const Config& config, RunFolder& folder)
    : config_(config), folder_(folder), rule_(std::int64_t{1'000'000} * config.limits.stall_seconds) {}

void Stalls::look() {
  const std::int64_t now_us = monotonic_us();
  if (now_us - looked_us_ < kLookUs) return;
  looked_us_ = now_us;
  const auto pages = read_boards(folder_.path(), config_.layout.nodes);
  if (rule_.look(now_us, pages)) tell(now_us, pages);
}

void Stalls::tell(std::int64_t now_us, const std::vector<BoardPage>& pages) {
  const Explanation why = explain(config_, pages, {now_us, resume_command(folder_.path())});
  std::fprintf(stderr, "\nno progress for %d s (limits.stall_seconds):\n%s", config_.limits.stall_seconds,
               why.text().c_str());
  folder_.append_metrics(nlohmann::json{
      {"kind", "stall"},
      {"seconds", config_.limits.stall_seconds},
      {"chain", why.links},
      {"root", why.root}}.dump());
}

StallThread::StallThread(const Config& config, RunFolder& folder) : stalls_(config, folder) {
  thread_ = std::thread([this] {
    std::unique_lock lock(mutex_);
    while (!wake_.wait_for(lock, std::chrono::microseconds(kLookUs), [this] { return over_; })) stalls_.look();
  });
}

StallThread::~StallThread() {
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

}  // namespace troupe
