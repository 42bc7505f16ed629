#include "launcher/interrupts.h"

#include <csignal>

namespace troupe {

namespace {

volatile std::sig_atomic_t count = 0;
volatile std::sig_atomic_t timed = 0;
void count_interrupt(int) { count = count + 1; }
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
