#include "launcher/jury.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <deque>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/log.h"
#include "launcher/judge.h"
#include "launcher/judge_process.h"

namespace troupe {
namespace {

using Clock = std::chrono::steady_clock;

struct Job {
  std::uint32_t actor = 0;
  std::uint64_t token = 0;
  std::string request;
};

// A place at the jury's table, with or without a judge.
struct Seat {
  JudgeProcess judge;
  bool has_greeted = false;
  std::optional<Job> job;
  Clock::time_point deadline;  // of the job
};

void signal_event(int event) {
  const std::uint64_t one = 1;
  CHECK(::write(event, &one, sizeof(one)) == sizeof(one), "eventfd is full: {}", std::strerror(errno));
}
void clear_event(int event) {
  std::uint64_t count = 0;
  [[maybe_unused]] const ssize_t drained = ::read(event, &count, sizeof(count));
}

class ProcessJury final : public Jury {
 public:
  explicit ProcessJury(JuryOptions options)
      : options_(std::move(options)),
        told_event_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
        asked_event_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
        seats_(static_cast<std::size_t>(options_.judge.processes)) {
    CHECK(told_event_ >= 0 && asked_event_ >= 0, "no eventfd: {}", std::strerror(errno));
    thread_ = std::thread([this] { work_until_closed(); });
  }
  // What is undecided stays so.
  ~ProcessJury() override {
    closing_ = true;
    signal_event(asked_event_);
    thread_.join();
    ::close(told_event_);
    ::close(asked_event_);
  }

  void submit(std::uint32_t actor, std::uint64_t token, std::string request) override {
    CHECK(jobs_ < kJobsMax, "{} requests wait for the jury", jobs_.load());
    CHECK(request.find('\n') == std::string::npos, "a request of more than one line");
    ++jobs_;
    {
      const std::lock_guard lock(mutex_);
      asked_.push_back({actor, token, std::move(request)});
    }
    signal_event(asked_event_);
  }
  void take_outcomes(std::vector<JuryOutcome>& out) override {
    if (!told_.load(std::memory_order_acquire)) return;
    const std::lock_guard lock(mutex_);
    told_.store(false, std::memory_order_relaxed);
    clear_event(told_event_);
    for (JuryOutcome& outcome : outcomes_) out.push_back(std::move(outcome));
    outcomes_.clear();
  }
  int outcome_fd() const override { return told_event_; }
  std::size_t jobs() const override { return jobs_; }

 private:
  void work_until_closed();
  void seat_jobs();
  void seat(Seat& seat, Job job);
  void look(int milliseconds);
  void hear(Seat& seat);
  void lose(Seat& seat, const std::string& why);
  void tell(Seat& seat, std::string verdict, std::string problem);
  int milliseconds_left() const;

  const JuryOptions options_;
  const int told_event_, asked_event_;
  std::atomic<std::size_t> jobs_{0};
  std::atomic<bool> closing_{false};
  std::atomic<bool> told_{false};  // outcomes_ isn't empty: asked at every turn, so without the lock
  std::mutex mutex_;
  std::deque<Job> asked_;
  std::vector<JuryOutcome> outcomes_;
  // The thread's own.
  std::vector<Seat> seats_;
  std::set<std::string> notes_;
  std::thread thread_;
};

// Judges die with the thread that started them, so all is done by one.
void ProcessJury::work_until_closed() {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);  // those of the process are others' to see; SIGPIPE is not worth dying for
  while (!closing_) {
    seat_jobs();
    look(milliseconds_left());
    for (Seat& seat : seats_)
      if (seat.job && Clock::now() >= seat.deadline) lose(seat, "hung");
  }
  for (Seat& seat : seats_) seat.judge.end();
}

void ProcessJury::seat_jobs() {
  for (Seat& free : seats_) {
    while (!free.job) {
      std::optional<Job> job;
      {
        const std::lock_guard lock(mutex_);
        if (asked_.empty()) return;
        job = std::move(asked_.front());
        asked_.pop_front();
      }
      seat(free, std::move(*job));
    }
  }
}

void ProcessJury::seat(Seat& seat, Job job) {
  seat.deadline = Clock::now() + std::chrono::seconds(options_.judge.wall_seconds);
  seat.job = std::move(job);
  if (!seat.judge.is_up()) {
    seat.has_greeted = false;
    const std::string why = seat.judge.start(options_.program);
    if (!why.empty()) return tell(seat, "", "the judge did not start: " + why);
    seat.judge.send(settings_line({.judge = options_.judge, .rules = options_.rules, .folder = seat.judge.folder()}));
  }
  seat.judge.send(seat.job->request);
}

int ProcessJury::milliseconds_left() const {
  std::optional<Clock::time_point> first;
  for (const Seat& seat : seats_)
    if (seat.job && (!first || seat.deadline < *first)) first = seat.deadline;
  if (!first) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(*first - Clock::now()).count();
  return static_cast<int>(std::clamp<std::int64_t>(left, 0, 60'000));
}

void ProcessJury::look(int milliseconds) {
  std::vector<pollfd> watched{{.fd = asked_event_, .events = POLLIN, .revents = 0}};
  for (const Seat& seat : seats_) {
    watched.push_back({.fd = seat.judge.read_fd(), .events = POLLIN, .revents = 0});
    watched.push_back({.fd = seat.judge.write_fd(), .events = POLLOUT, .revents = 0});
  }
  if (::poll(watched.data(), watched.size(), milliseconds) <= 0) return;
  if (watched[0].revents != 0) clear_event(asked_event_);
  for (std::size_t i = 0; i < seats_.size(); ++i) {
    if (watched[2 * i + 2].revents != 0) seats_[i].judge.flush();
    if (watched[2 * i + 1].revents != 0) hear(seats_[i]);
  }
}

void ProcessJury::hear(Seat& seat) {
  std::vector<std::string> lines;
  const bool is_open = seat.judge.receive(lines);
  for (const std::string& line : lines) {
    const std::vector<std::string> notes = notes_of(line);
    for (const std::string& note : notes) {
      if (!notes_.insert(note).second) continue;
      log_warning("event=judge note=\"{}\"", note);
      const bool is_of_a_command = seat.has_greeted;  // whose author waits for rewards
      if (is_of_a_command && log_is_a_file()) std::fprintf(stderr, "\nwarning: %s\n", note.c_str());
    }
    if (!std::exchange(seat.has_greeted, true) || !notes.empty()) continue;
    if (!seat.job) return lose(seat, "spoke unasked");
    tell(seat, line, "");
  }
  if (!is_open) lose(seat, "died");
}

void ProcessJury::lose(Seat& seat, const std::string& why) {
  const std::string how = seat.judge.end();
  if (!seat.job) return;
  if (why == "hung") {
    tell(seat, "",
         fmt::format("the judge hung: no verdict within {} s (judge.wall_seconds)", options_.judge.wall_seconds));
  } else {
    tell(seat, "", fmt::format("the judge {} ({})", why, how.empty() ? "its output was no line of verdict" : how));
  }
}

void ProcessJury::tell(Seat& seat, std::string verdict, std::string problem) {
  const Job job = std::move(*seat.job);
  seat.job.reset();
  --jobs_;
  const std::lock_guard lock(mutex_);
  outcomes_.push_back({job.actor, job.token, std::move(verdict), std::move(problem)});
  told_.store(true, std::memory_order_release);
  signal_event(told_event_);
}

}  // namespace

JuryOptions jury_options(const Config& config) { return {.judge = config.judge, .rules = verify_rules(config)}; }

std::unique_ptr<Jury> make_process_jury(JuryOptions options) {
  return std::make_unique<ProcessJury>(std::move(options));
}

}  // namespace troupe
