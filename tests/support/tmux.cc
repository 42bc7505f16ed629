#include "tests/support/tmux.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "tests/support/catch.h"

namespace troupe::test {

namespace {

constexpr const char* kTmux = "/usr/bin/tmux";
constexpr int kLimit = 120;  // seconds
constexpr int kLooks = 400, kLookMs = 50;

bool in_time(const std::function<bool()>& happened) {
  for (int i = 0; i < kLooks; ++i) {
    if (happened()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(kLookMs));
  }
  return happened();
}

}  // namespace

bool has_tmux() {
  const bool has = ::access(kTmux, X_OK) == 0;
  if (!has) WARN("skipped: there is no tmux here; ./dev test installs it");
  return has;
}

// A Ctrl-C ends the command, not its shell. Should the test be killed, tmux and what runs in it end after kLimit.
Terminal::Terminal(const std::string& command, int columns, int rows) {
  tmux({"new-session", "-d", "-x", std::to_string(columns), "-y", std::to_string(rows),
        fmt::format("trap : INT; (trap '' INT; sleep {}; kill -9 $$) & {}", kLimit, command)});
}

Terminal::~Terminal() { tmux({"kill-server"}); }

// -u: its screen is UTF-8 whatever the locale.
std::string Terminal::tmux(const Arguments& arguments) const {
  Arguments all{kTmux, "-u", "-f", "/dev/null", "-S", folder_ / "tmux"};
  all.insert(all.end(), arguments.begin(), arguments.end());
  return run(all).out;
}

void Terminal::press(const std::vector<std::string>& keys) const {
  for (const std::string& key : keys) tmux({"send-keys", key});
}

void Terminal::resize(int columns, int rows) const {
  tmux({"resize-window", "-x", std::to_string(columns), "-y", std::to_string(rows)});
}

std::string Terminal::screen() const { return tmux({"capture-pane", "-p"}); }
std::string Terminal::screen_with_colours() const { return tmux({"capture-pane", "-p", "-e"}); }
std::string Terminal::ask(const std::string& format) const { return tmux({"display-message", "-p", format}); }

bool Terminal::shows(const std::string& text) const {
  return in_time([&] { return screen().find(text) != std::string::npos; });
}

bool Terminal::shows_no_more(const std::string& text) const {
  return in_time([&] { return screen().find(text) == std::string::npos; });
}

}  // namespace troupe::test
