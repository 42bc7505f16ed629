#include "launcher/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "kernels/base/error.h"
#include "launcher/bill.h"
#include "launcher/program.h"

namespace troupe {

namespace {

constexpr std::int64_t kLineEveryMs = 5000;   // when nobody watches live
constexpr std::int64_t kRedrawEveryMs = 100;  // when somebody does

std::int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// JSON has no NaN: a loss that isn't finite is written as null.
double number(const nlohmann::json& report, const char* key) {
  return report.at(key).is_number() ? report.at(key).get<double>() : std::nan("");
}

std::string escape(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\n')
      out += "\\n";
    else
      out += c;
  }
  return out;
}

std::string grouped(double value) {
  std::string digits = fmt::format("{:.0f}", value);
  for (auto at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > 0; at -= 3)
    digits.insert(static_cast<std::size_t>(at), 1, ',');
  return digits;
}

}  // namespace

std::string human_time(double seconds) {
  const auto s = static_cast<std::int64_t>(std::llround(seconds));
  if (s >= 86400) return fmt::format("{}d {:02}h", s / 86400, s / 3600 % 24);
  if (s >= 3600) return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
  return fmt::format("{}:{:02}", s / 60, s % 60);
}

Progress::Progress(const Config& config, bool quiet)
    : config_(config), quiet_(quiet), terminal_(isatty(STDOUT_FILENO) == 1) {}
Progress::~Progress() { end_line(); }

void Progress::end_line() {
  if (open_line_) std::fputs("\n", stdout);
  open_line_ = false;
  std::fflush(stdout);
}

// A passing line is drawn over by the next one on a terminal; elsewhere it is printed now and then.
void Progress::line(const std::string& text, bool passing) {
  if (quiet_) return;
  if (passing && terminal_) {
    std::printf("\r\033[K%s", text.c_str());
    open_line_ = true;
    std::fflush(stdout);
    return;
  }
  if (open_line_) std::fputs("\r\033[K", stdout);
  open_line_ = false;
  std::printf("%s\n", text.c_str());
  std::fflush(stdout);
}

void Progress::step(const nlohmann::json& r) {
  const std::int64_t done = r.at("step").get<std::int64_t>() + 1, steps = r.at("steps");
  const double seconds = r.at("step_seconds");
  seconds_per_step_ = steps_seen_ == 0 ? seconds : 0.95 * seconds_per_step_ + 0.05 * seconds;
  ++steps_seen_;
  tokens_ = r.at("tokens");
  train_seconds_ += seconds;
  const std::int64_t now = now_ms();
  const bool due = now - last_shown_ms_ >= (terminal_ ? kRedrawEveryMs : kLineEveryMs);
  if (!due && done != steps && done != 1 && r.at("verdict") == "commit") return;
  last_shown_ms_ = now;
  std::string text =
      fmt::format("step {:>{}}/{}  loss {:.4f}  {} tok/s  MFU {:.0f}%", done, std::to_string(steps).size(), steps,
                  number(r, "loss"), grouped(r.at("tokens_per_second")), 100 * r.at("mfu").get<double>());
  if (r.contains("reward"))
    text = fmt::format(
        "step {:>{}}/{}  reward {:.3f}  accuracy {:.1f}%  length {:.1f}  entropy {:.3f}  flat groups {:.0f}%", done,
        std::to_string(steps).size(), steps, number(r, "reward"), 100 * number(r, "accuracy"), number(r, "length_mean"),
        number(r, "entropy"), 100 * number(r, "flat_groups"));
  else if (!r.at("load_max_over_mean").empty())
    text += fmt::format("  busiest expert {:.2f}x", r.at("worst_load").get<double>());
  if (useful_ >= 0) text += fmt::format("  useful {:.0f}%", 100 * useful_);
  text += fmt::format("  ${:.4f}  {} left", r.at("cost_dollars").get<double>(),
                      human_time(static_cast<double>(steps - done) * seconds_per_step_));
  if (r.at("verdict") != "commit") text += "  (step skipped: loss not finite or a spike)";
  line(text, r.at("verdict") == "commit" && done != steps);
}

void Progress::show_answers(const nlohmann::json& r) {
  const std::string loss =
      loss_version_ == r.at("version") ? fmt::format("held-out loss {:.4f}, ", held_out_loss_) : "";
  line(fmt::format("after step {}: {}{} held-out problems answered right: {:.1f}% at temperature {}, {:.1f}% greedy, "
                   "{:.1f}% pass@{}",
                   r.at("version").get<std::int64_t>(), loss, r.at("problems").get<int>(), 100 * number(r, "accuracy"),
                   number(r, "temperature"), 100 * number(r, "greedy"), 100 * number(r, "pass"),
                   r.at("pass_k").get<int>()),
       false);
  task_answers_.clear();
  for (const auto& a : r.at("answers"))
    task_answers_ += fmt::format("  {}{}   {}\n", escape(a.at("prompt")), escape(a.at("written")),
                                 a.at("right").get<bool>() ? "right" : "wrong, it is " + escape(a.at("answer")));
}

void Progress::show(const nlohmann::json& r) {
  const std::string kind = r.at("kind");
  if (kind == "step") return step(r);
  if (kind == "bill") {
    useful_ = r.at("useful");
    bill_ = bill_table(r);
    memory_ = memory_text(r);
  }
  if (kind == "evaluation") {
    held_out_loss_ = number(r, "loss");
    evaluate_seconds_ += r.at("seconds").get<double>();
    std::string text = fmt::format("held-out loss {:.4f} ({:.4f} bits a token) over {} tokens", held_out_loss_,
                                   number(r, "bits_per_token"), r.at("tokens").get<std::int64_t>());
    if (!r.at("load_max_over_mean").empty())
      text += fmt::format(", busiest expert {:.2f}x the mean", r.at("worst_load").get<double>());
    loss_version_ = r.at("version");
    if (!config_.has_answers()) line(fmt::format("after step {}: {}", loss_version_, text), false);
  } else if (kind == "answers") {
    show_answers(r);
  } else if (kind == "checkpoint") {
    const std::string trouble = r.at("problem");
    unsaved_.clear();
    if (trouble.empty()) {
      checkpoint_ = r.at("path");
      return;
    }
    end_line();
    unsaved_ = fmt::format("checkpoint {} was not written: {}", r.at("version").get<std::int64_t>(), trouble);
    std::fprintf(stderr, "warning: %s; training goes on\n", unsaved_.c_str());
  } else if (kind == "exact_match") {
    problems_ = r.at("problems");
    right_ = r.at("right");
    share_ = r.at("share");
    for (const auto& a : r.at("answers")) {
      const std::string prompt = a.at("prompt"), written = a.at("written");
      answers_ += fmt::format(
          "  {}{}   {}\n", prompt, escape(written),
          a.at("right").get<bool>() ? "right" : fmt::format("wrong, it is {}", a.at("answer").get<std::string>()));
    }
  }
}

void Progress::expect_saved(const std::string& resume) const {
  if (!unsaved_.empty())
    throw Error("{}; what was learned since the one before is lost: make room, then continue with: {}", unsaved_,
                resume);
}

void Progress::summary(const std::string& run_folder) {
  end_line();
  if (quiet_) return;
  std::printf("\n");
  if (held_out_loss_ >= 0) std::printf("held-out loss   %.4f nats a token\n", held_out_loss_);
  if (!task_answers_.empty()) std::printf("answers\n%s", task_answers_.c_str());
  if (share_ >= 0) {
    std::printf("exact match     %.1f %% (%lld of %lld held-out problems, greedy)\n", 100 * share_,
                static_cast<long long>(right_), static_cast<long long>(problems_));
    std::printf("answers\n%s", answers_.c_str());
  }
  if (!checkpoint_.empty()) std::printf("model           %s (config.json, model.safetensors)\n", checkpoint_.c_str());
  std::printf("talk to it      %s generate %s --prompt \"...\"\n", shell_quoted(program()).c_str(),
              shell_quoted(run_folder).c_str());
  const double rate = config_.hardware.dollars_per_hour * config_.layout.nodes;
  std::printf("bill            %s tokens in %s of training (%s evaluating) at $%.3g an hour\n%s",
              grouped(static_cast<double>(tokens_)).c_str(), human_time(train_seconds_).c_str(),
              human_time(evaluate_seconds_).c_str(), rate, bill_.c_str());
  if (!memory_.empty()) std::printf("memory          %s\n", memory_.c_str());
  std::fflush(stdout);
}

}  // namespace troupe
