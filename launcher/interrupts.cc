#include "launcher/interrupts.h"

#include <csignal>

namespace troupe {

namespace {

volatile std::sig_atomic_t count = 0;
void count_interrupt(int) { count = count + 1; }

}  // namespace

void catch_interrupts() {
  struct sigaction action {};
  action.sa_handler = count_interrupt;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

int interrupts() { return count; }

}  // namespace troupe
