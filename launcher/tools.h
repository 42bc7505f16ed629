// The commands besides training. Each returns the process's exit code and throws Error.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace troupe {

struct GenerateOptions {
  std::string run;  // a run, a checkpoint or a Hugging Face directory
  std::vector<std::string> prompts;
  double temperature = 0, top_p = 1;
  std::uint64_t seed = 1;
  int tokens_max = 128;
  std::string stop;   // one token; empty: the tokenizer's end token, or with bytes none
  bool chat = false;  // a prompt is a user's message, in the run's data.template
  std::vector<std::string> sets;
};
int generate(const GenerateOptions& options);

struct TokenizeOptions {
  std::string tokenizer, out;
  std::vector<std::string> files;  // .txt: one text; .jsonl: documents
  std::string text_key = "text";
  std::string end;  // content of the token that ends a document; empty: as the tokenizer says
};
int tokenize(const TokenizeOptions& options);

struct EvaluateOptions {
  std::string run;
  std::vector<std::string> files;  // empty: the run's own held-out part
  std::vector<std::string> sets;
  // With tasks: answers to held-out problems instead of a loss.
  std::vector<std::string> tasks;
  int problems = 256, samples = 16, tokens_max = 0;  // tokens_max 0: as the run has it
  double temperature = 1, top_p = 1;
  std::string levels;                 // "2-4"; empty: the run's own
  std::optional<std::uint64_t> seed;  // none: the run's own
  std::string out, compare;           // folder; another model, or the answers that it gave
  std::vector<std::string> against;   // files that the problems must not be in
  int ngram = 10;
  bool quiet = false;
  bool silent = false;        // no line on standard output
  bool tokens_fixed = false;  // an answer may not be longer, whatever the given solutions are
};
int evaluate(const EvaluateOptions& options);
int evaluate_tasks(const EvaluateOptions& options);

struct CheckOptions {
  std::string fixture, out, weights;  // weights: another safetensors file than model.safetensors
  std::vector<std::string> sets;
};
int check(const CheckOptions& options);
// The same for a fixture of the GRPO loss (its config.json has a group_size).
bool is_grpo_fixture(const std::string& folder);
int check_grpo(const CheckOptions& options);

struct ExportOptions {
  std::string run, out, dtype = "float32";
};
int export_model(const ExportOptions& options);

struct SimulateOptions {
  std::string config_path;  // numbers of this run; empty: drawn
  std::vector<std::string> sets;
  std::uint64_t seed = 1, seeds = 1;
  bool losses = false, rollouts = false, quiet = false, trace = false, shrink = false;
  std::string faults_path;          // empty: the usual faults
  std::vector<std::string> faults;  // "network.drop.chance=0" over them
};
struct SimulateStepOptions {
  std::string cluster, load;  // hardware file, or its name; "even", "zipf:0.5" or a file
  int replicas = 0;           // simulated, that stand for all; 0: all
  int lose = 0;               // nodes, each in the middle of the step
  double start_seconds = 60;  // until a replacement is there
};
int simulate_step(const SimulateOptions& options, const SimulateStepOptions& step);
// 0: every law held in every world.
int simulate(const SimulateOptions& options);

struct TimelineOptions {
  std::vector<std::string> runs;  // each drawn under the one before, all to one scale
  std::string out;                // the SVG
  std::int64_t step = -1;         // that is drawn; -1: one after the middle of what was recorded
};
int timeline(const TimelineOptions& options);

struct TraceOptions {
  std::string run, out;
  std::optional<std::int64_t> from_step, to_step;  // to_step absent: that one step
  std::optional<double> last_seconds;
};
// What the journals tell, for Perfetto.
int trace(const TraceOptions& options);

// What --do asks of a live run: the word, and what follows it.
constexpr std::array<const char*, 5> kInspectOrders{"pause", "step", "resume", "kill=NODE", "inject=MESSAGE"};
struct InspectOptions {
  std::string run;       // a run's folder, or addresses of its nodes
  std::string simulate;  // instead: a configuration, run in virtual time
  std::vector<std::string> sets;
  std::uint64_t seed = 1;  // of the simulated world
  std::string token;       // a file; empty: RUN/token
  bool once = false, json = false;
  bool allow_control = false;          // pause, step, resume, kill, for who has the run's token
  std::string order;                   // only this is done, one of kInspectOrders
  std::string sort = "actor", filter;  // of the actors
  int limit = 0;                       // actors shown; 0: all
  // The page over HTTP, until Ctrl-C.
  bool web = false;
  int port = 8080;  // 0: any that is free
  std::string listen = "127.0.0.1";
};
// 0: the run is healthy, or over and finished. kUnhealthy: it is not.
int inspect(const InspectOptions& options);
constexpr int kUnhealthy = 3;

struct DoctorOptions {
  bool json = false;
  std::string on;  // instead of this machine: hosts:FILE, slurm, local:N, as `troupe launch` takes them
  std::string ssh = "ssh", program, interface, ports = "0";
};
// 0: a run can start on this machine.
int doctor(const DoctorOptions& options);
// The same of several hosts, and of the ways between them.
int doctor_hosts(const DoctorOptions& options);

// All that a run has to show, as one SVG: curves, experts' load, bill, a step's timeline.
int plot(const std::string& run, const std::string& out);

struct CompareOptions {
  std::vector<std::string> runs;
  std::string out;  // an SVG with the runs' curves; empty: the table alone
};
int compare(const CompareOptions& options);
int digest(const std::string& run);
int why(const std::string& path);
struct PlanOptions {
  std::string config_path;
  std::vector<std::string> sets;
  std::vector<std::string> clusters;  // hardware files; none: where each actor of this run lives
  int gpus = 0;                       // 0: layout.nodes
  double budget_dollars = 0, deadline_days = 0;
  double checkpoint_seconds = 60, recovery_seconds = 300;
  std::optional<double> start_seconds;  // of a replacement: the recovery is simulated, instead of recovery_seconds
  int simulate = 0;                     // layouts, the first that fit
  bool published = false;               // DeepSeek's figures beside the forecast's
  bool json = false;
};
int plan(const PlanOptions& options);
int plan_clusters(const PlanOptions& options);
struct RehearseOptions {
  std::string config_path;
  std::vector<std::string> sets;
  int steps = 40;
  double seconds_max = 60;
  bool apart = false;  // every node on a machine of its own
  bool json = false;
};
int rehearse(const RehearseOptions& options);
int show_config(const std::string& config_path, const std::vector<std::string>& sets, bool keys);

}  // namespace troupe
