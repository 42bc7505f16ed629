// What a person sees while a run goes on: one live line, and at the end the results, the answers and the bill.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "actors/config.h"

namespace troupe {

class Progress {
 public:
  explicit Progress(const Config& config, bool quiet = false);
  ~Progress();
  // One report of the conductor or line of the bill (kind: bill, ready, step, evaluation, checkpoint, exact_match, generation, problem,
  // finished).
  void show(const nlohmann::json& report);
  // The end: losses, answers, where the model lies, the bill.
  // Throws Error if the last checkpoint of all was not written. `resume`: the command that goes on from the one before.
  void expect_saved(const std::string& resume) const;
  void summary(const std::string& run_folder);

 private:
  void step(const nlohmann::json& report);
  void show_answers(const nlohmann::json& report);
  void line(const std::string& text, bool passing);
  void end_line();

  const Config& config_;
  bool quiet_, terminal_, open_line_ = false;
  std::int64_t last_shown_ms_ = 0, steps_seen_ = 0;
  double seconds_per_step_ = 0, train_seconds_ = 0, useful_ = -1, held_out_loss_ = -1, share_ = -1,
         evaluate_seconds_ = 0;
  std::int64_t loss_version_ = -1, problems_ = 0, right_ = 0, tokens_ = 0;
  std::string answers_, task_answers_, checkpoint_, bill_, memory_;
  std::string unsaved_;  // why the last checkpoint was not written
};

std::string human_time(double seconds);

}  // namespace troupe
