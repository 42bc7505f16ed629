// Ctrl-C and SIGTERM, counted: whoever waits looks, finishes what must not be cut and stops.
#pragma once

#include <exception>

namespace troupe {

void catch_interrupts();
int interrupts();  // since the program began
// SIGUSR1 interrupts too, as Slurm sends it when a job's time is nearly up; time_is_up: it has come.
void catch_time_signal();
bool time_is_up();

// Thrown where nothing is lost by ending at once.
class Interrupted : public std::exception {
 public:
  const char* what() const noexcept override { return "interrupted"; }
};

}  // namespace troupe
