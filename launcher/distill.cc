#include "launcher/distill.h"

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "actors/checkpoint/manifest.h"
#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "launcher/answers_figures.h"
#include "launcher/config.h"
#include "launcher/config_keys.h"
#include "launcher/evaluate_tasks.h"
#include "launcher/world.h"

namespace troupe {

namespace fs = std::filesystem;

namespace {

// The teacher, asked what the phase says.
Loaded load_teacher(const Config& phase, const std::string& teacher) {
  Loaded model = load_model(teacher, {"kind=\"evaluate\""});
  Config& c = model.config;
  c.task = phase.task;
  c.judge = phase.judge;
  c.train.seed = phase.train.seed;
  c.grpo.completion_max = phase.grpo.completion_max;
  c.evaluate = {};
  c.evaluate.exact_match_problems = 0;
  c.evaluate.problems = phase.distill.problems;
  c.evaluate.samples = phase.distill.samples;
  c.evaluate.temperature = phase.distill.temperature;
  c.evaluate.split = "train";
  check_config(c);
  c.train.steps = 0;  // whatever version it is, nothing follows
  return model;
}

std::string trace_line(const EvaluatedProblem& problem, const EvaluatedAnswer& answer, const std::string& digest) {
  return nlohmann::json{{"prompt", problem.problem},
                        {"completion", answer.response},
                        {"task", problem.task},
                        {"level", problem.level},
                        {"teacher", digest}}
             .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) +
         "\n";
}

}  // namespace

void write_traces(const Config& phase, const std::string& teacher, const std::string& path, bool quiet) {
  if (fs::exists(path)) return;
  start_log("troupe", "", LogLevel::warning);
  const Loaded model = load_teacher(phase, teacher);
  const auto tasks = open_tasks(model.config);
  const std::string digest = weights_digest(model.checkpoint);
  std::string text;
  int kept = 0, asked = 0;
  for (const EvaluatedProblem& problem :
       without_repeats(answer_problems(model, tasks, [](std::size_t, std::size_t) {}))) {
    int own = 0;
    asked += static_cast<int>(problem.sampled.size());
    for (const EvaluatedAnswer& answer : problem.sampled) {
      if (!answer.correct || answer.truncated || own >= phase.distill.keep) continue;
      text += trace_line(problem, answer, digest);
      ++own;
      ++kept;
    }
  }
  if (kept == 0)
    throw Error(
        "{}: the teacher {} got none of {} answers right; train it longer, or choose another with "
        "distill.teacher",
        path, teacher, asked);
  fs::create_directories(fs::path(path).parent_path());
  std::ofstream file(path + ".partial");
  file << text;
  if (!file.flush()) throw Error("{}: can't be written; is the disk full?", path);
  file.close();
  fs::rename(path + ".partial", path);
  if (!quiet) std::printf("kept %d right answers of %d: %s\n", kept, asked, path.c_str());
}

// An answer to a task ends as the task's answers do.
Config student_of(const Config& phase, const std::string& traces) {
  Config config = phase;
  config.data.kind = "chat";
  config.data.files = {fs::absolute(traces).lexically_normal().string()};
  if (config.data.tokenizer == "bytes" && config.data.chat_template == "plain")
    config.model.eos_token_id = kEndOfAnswer;
  return config;
}

}  // namespace troupe
