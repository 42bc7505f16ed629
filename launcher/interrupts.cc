#include "launcher/interrupts.h"

#include <csignal>
#include <cstdint>
#include <ctime>

namespace troupe {

namespace {

volatile std::sig_atomic_t count = 0;
volatile std::sig_atomic_t timed = 0;

// What is sent to a process and to its group comes twice, and means once.
constexpr std::int64_t kTwiceNs = 100'000'000;
volatile std::int64_t last_ns = 0;
void count_interrupt(int) {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  const std::int64_t now_ns = std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
  if (count == 0 || now_ns - last_ns > kTwiceNs) count = count + 1;
  last_ns = now_ns;
}
// Said again, it says no more.
void note_time(int) {
  if (timed == 0) count = count + 1;
  timed = 1;
}

}  // namespace

void catch_interrupts() {
  struct sigaction action {};
  action.sa_handler = count_interrupt;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

int interrupts() { return count; }

void catch_time_signal() {
  struct sigaction action {};
  action.sa_handler = note_time;
  sigaction(SIGUSR1, &action, nullptr);
}

bool time_is_up() { return timed != 0; }

}  // namespace troupe
