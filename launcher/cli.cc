#include "launcher/cli.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "actors/build_info.h"
#include "kernels/base/error.h"
#include "launcher/bench_hardware.h"
#include "launcher/bench_ops.h"
#include "launcher/config_keys.h"
#include "launcher/interrupts.h"
#include "launcher/judge.h"
#include "launcher/launch/launch_run.h"
#include "launcher/processes.h"
#include "launcher/profile.h"
#include "launcher/tools.h"
#include "launcher/train.h"
#include "launcher/typed_number.h"

namespace troupe {

namespace {

struct Arguments {
  TrainOptions train;
  LaunchRun launch;
  JoinOptions join;
  GenerateOptions generate;
  TokenizeOptions tokenize;
  EvaluateOptions evaluate;
  CheckOptions check;
  ExportOptions export_model;
  PlanOptions plan;
  SimulateOptions simulate;
  SimulateStepOptions step;
  bool one_step = false;
  RehearseOptions rehearse;
  ProfileOptions profile;
  BenchOptions bench;
  BenchHardwareOptions bench_hardware;
  TimelineOptions timeline;
  TraceOptions trace;
  CompareOptions compare;
  InspectOptions inspect;
  DoctorOptions doctor;
  std::string digest_run, why_run, config_path, plot_run, plot_out;
  std::vector<std::string> sets;
  int nodes = 0, socket = -1;
  bool keys = false;
};

void add_set(CLI::App* command, std::vector<std::string>& sets) {
  command
      ->add_option("--set", sets, "change a configuration key: --set train.steps=300 (a TOML value); may be repeated")
      ->type_name("KEY=VALUE")
      ->take_all()
      ->allow_extra_args(false);
}

template <typename Number>
CLI::Option* add_number(CLI::App* command, const char* name, Number& number, const char* meaning) {
  return command->add_option(name, number, meaning)->check(why_not_finite);
}

template <typename Seed>
CLI::Option* add_seed(CLI::App* command, Seed& seed, const char* meaning) {
  return command->add_option("--seed", seed, meaning)->type_name("N")->check(why_not_unsigned);
}

CLI::App* add_train(CLI::App& app, Arguments& a) {
  CLI::App* c = app.add_subcommand("train", "train the model that CONFIG describes; everything goes to one folder");
  c->add_option("CONFIG", a.train.config_path, "configuration file (TOML), e.g. configs/quickstart.toml")->required();
  c->add_option("--out", a.train.out, "the run's folder (default runs/NAME)")->type_name("DIR");
  c->add_option("--nodes", a.nodes, "processes on this machine (layout.nodes)")
      ->type_name("N")
      ->check(CLI::PositiveNumber);
  c->add_flag("--resume", a.train.resume, "continue from the run's last checkpoint, on any legal layout");
  c->add_flag("--quiet", a.train.quiet, "no progress line");
  add_set(c, a.train.sets);
  c->footer("Example: troupe train configs/quickstart.toml --out runs/first --set train.seed=2");
  return c;
}

void add_launch(CLI::App& app, Arguments& a) {
  LaunchRun& l = a.launch;
  CLI::App* c = app.add_subcommand("launch", "train on this machine, on hosts that ssh reaches, or under Slurm");
  c->add_option("CONFIG", l.train.config_path, "configuration file (TOML)")->required();
  c->add_option("--on", l.on, "local, local:N (processes), hosts:FILE (a host a line, \"NAME slots=N\"), slurm")
      ->type_name("WHERE");
  c->add_option("--out", l.train.out, "the run's folder (default runs/NAME)")->type_name("DIR");
  c->add_option("--nodes", l.nodes, "processes (default: all that the hosts take, but for spare ones)")
      ->type_name("N")
      ->check(CLI::PositiveNumber);
  c->add_option("--spares", l.spares, "the last so many hosts wait for another's loss")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber);
  c->add_option("--ssh", l.ssh, "how hosts are reached (default ssh): --ssh \"ssh -F FILE\"")->type_name("COMMAND");
  c->add_option("--program", l.program, "where this program is on the hosts (default: where it is here)")
      ->type_name("PATH");
  c->add_option("--interface", l.interface, "the network that nodes talk over: eth0, mlx5_0:1 (default: all)")
      ->type_name("NAME");
  c->add_flag("--dry-run", l.dry_run, "with slurm: print the batch script");
  c->add_flag("--resume", l.train.resume, "continue from the run's last checkpoint, on any legal layout");
  c->add_flag("--quiet", l.train.quiet, "no progress line");
  add_set(c, l.train.sets);
  c->footer(
      "Example: troupe launch configs/moe_0b85.toml --on hosts:hosts.txt --set layout.replicas=4 --set "
      "layout.stages=4");
}

CLI::App* add_generate(CLI::App& app, Arguments& a) {
  CLI::App* c = app.add_subcommand("generate", "let a trained model write");
  c->add_option("RUN", a.generate.run, "a run's folder, one of its checkpoints, or a Hugging Face directory")
      ->required();
  c->add_option("--prompt", a.generate.prompts, "what it continues; may be repeated")
      ->type_name("TEXT")
      ->take_all()
      ->allow_extra_args(false);
  add_number(c, "--temperature", a.generate.temperature, "0 (default): always the likeliest token")->type_name("T");
  add_number(c, "--top-p", a.generate.top_p, "sample within this much probability (default 1)")->type_name("P");
  add_seed(c, a.generate.seed, "of the sampling (default 1)");
  c->add_option("--tokens", a.generate.tokens_max, "tokens to write at most (default 128)")
      ->type_name("N")
      ->check(CLI::Range(1, 1 << 20));
  c->add_option("--stop", a.generate.stop, "end after this character or token (e.g. a newline: --stop $'\\n')")
      ->type_name("C");
  c->add_flag("--chat", a.generate.chat, "a prompt is a user's message, put into the run's data.template");
  add_set(c, a.generate.sets);
  return c;
}

CLI::App* add_tokenize(CLI::App& app, Arguments& a) {
  CLI::App* c = app.add_subcommand("tokenize", "make tokens of text, once, for data.files of any run");
  c->add_option("FILE", a.tokenize.files, "a .txt is one text; a .jsonl holds documents, each ended by the end token")
      ->required();
  c->add_option("--tokenizer", a.tokenize.tokenizer, "a tokenizer.json of Hugging Face, its folder, or bytes")
      ->required()
      ->type_name("PATH");
  c->add_option("--out", a.tokenize.out, "file to write, OUT.tokens")->required()->type_name("OUT");
  c->add_option("--text-key", a.tokenize.text_key, "key of the text in a JSONL object (default text)")
      ->type_name("KEY");
  c->add_option("--eos", a.tokenize.end, "content of the token that ends a document (default: the tokenizer's)")
      ->type_name("CONTENT");
  c->footer("Example: troupe tokenize --tokenizer models/qwen book.txt --out book.tokens");
  return c;
}

// Answers to held-out problems: what --tasks asks for.
void add_evaluate_tasks(CLI::App* c, EvaluateOptions& e) {
  CLI::Option* tasks = c->add_option("--tasks", e.tasks, "answer held-out problems of these tasks: reverse,countdown")
                           ->type_name("NAME[,NAME...]")
                           ->delimiter(',')
                           ->allow_extra_args(false)
                           ->excludes("--files");
  const auto with_tasks = [&](CLI::Option* option) { return option->needs(tasks); };
  with_tasks(c->add_option("--problems", e.problems, "how many (default 256)"))
      ->type_name("N")
      ->check(CLI::Range(1, 1 << 20));
  with_tasks(c->add_option("--samples", e.samples, "answers to each, beside the greedy one (default 16)"))
      ->type_name("K")
      ->check(CLI::Range(0, 1024));
  with_tasks(add_number(c, "--temperature", e.temperature, "of the sampled answers (default 1)"))->type_name("T");
  with_tasks(add_number(c, "--top-p", e.top_p, "sample within this much probability (default 1)"))->type_name("P");
  with_tasks(c->add_option("--tokens", e.tokens_max, "tokens of an answer at most (default: as the run has it)"))
      ->type_name("N")
      ->check(CLI::Range(1, 1 << 20));
  with_tasks(c->add_option("--levels", e.levels, "difficulty (default: as the run has it)"))->type_name("A-B");
  with_tasks(add_seed(c, e.seed, "of problems and sampling (default: the run's)"));
  with_tasks(c->add_option("--out", e.out, "folder for evaluation.json and answers.jsonl"))->type_name("DIR");
  with_tasks(
      c->add_option("--compare", e.compare,
                    "another model on the same problems: a run, a checkpoint, or an earlier evaluation's folder"))
      ->type_name("OTHER");
  with_tasks(c->add_option("--against", e.against,
                           "look for the problems in training files (.txt, .jsonl), and in rollouts of runs"))
      ->type_name("FILE or RUN");
  with_tasks(c->add_option("--ngram", e.ngram, "with --against: words in a row that count (default 10)"))
      ->type_name("N")
      ->check(CLI::Range(1, 1000));
  with_tasks(c->add_flag("--quiet", e.quiet, "no table and no progress on standard error"));
}

CLI::App* add_evaluate(CLI::App& app, Arguments& a) {
  CLI::App* c = app.add_subcommand(
      "eval", "held-out loss of a trained model (nats a token), or its answers to held-out problems; one JSON line");
  c->add_option("RUN", a.evaluate.run, "a run's folder, one of its checkpoints, or a Hugging Face directory")
      ->required();
  c->add_option(
       "--files", a.evaluate.files,
       "evaluate on these files: on all of a file the model has never seen, on the held-out part of one it has")
      ->type_name("FILE");
  add_evaluate_tasks(c, a.evaluate);
  add_set(c, a.evaluate.sets);
  c->footer("Example: troupe eval runs/first --tasks reverse --problems 256 --samples 16 --out runs/first/evaluation");
  return c;
}

CLI::App* add_check(CLI::App& app, Arguments& a) {
  CLI::App* c =
      app.add_subcommand("check", "run a fixture folder through the production actors and write every tensor it names");
  c->add_option("FIXTURE", a.check.fixture,
                "folder with config.json, train.json, model.safetensors, inputs.safetensors")
      ->required();
  c->add_option("--out", a.check.out, "file to write")->required()->type_name("FILE");
  c->add_option("--weights", a.check.weights,
                "other weights than the folder's model.safetensors (forward and decoding only)")
      ->type_name("FILE");
  add_set(c, a.check.sets);
  return c;
}

CLI::App* add_simulate(CLI::App& app, Arguments& a) {
  CLI::App* c = app.add_subcommand(
      "simulate", "run the production actors in a world of virtual time whose layout and faults a seed draws");
  c->add_option("CONFIG", a.simulate.config_path, "train this model on this data (default: tiny ones, drawn too)");
  add_seed(c, a.simulate.seed, "of the first world (default 1)");
  c->add_option("--seeds", a.simulate.seeds, "worlds, one a seed (default 1)")
      ->type_name("COUNT")
      ->check(CLI::PositiveNumber);
  c->add_flag("--losses", a.simulate.losses, "nodes die and come back");
  c->add_flag("--rollouts", a.simulate.rollouts, "the runs are of reinforcement: answers are sampled and judged");
  c->add_flag("--trace", a.simulate.trace, "every message as it reaches its actor");
  c->add_option("--faults", a.simulate.faults_path, "what strikes, how often: configs/faults/storm.toml")
      ->type_name("FILE");
  c->add_option("--fault", a.simulate.faults, "change a key of it: --fault network.drop.chance=0; may be repeated")
      ->type_name("KEY=VALUE")
      ->take_all()
      ->allow_extra_args(false);
  c->add_flag("--shrink", a.simulate.shrink, "of a seed that breaks a law: the smallest world that still does");
  c->add_flag("--quiet", a.simulate.quiet, "a line only for a world that broke a law");
  CLI::Option* step =
      c->add_flag("--step", a.one_step, "instead: one step of CONFIG, undisturbed, without its numbers");
  c->add_option("--cluster", a.step.cluster, "of the step: hardware file, or its name in configs/hardware")
      ->needs(step)
      ->type_name("FILE");
  c->add_option("--replicas-simulated", a.step.replicas, "of the step: so many stand for all (default: all)")
      ->needs(step)
      ->type_name("N");
  CLI::Option* lose =
      c->add_option("--lose", a.step.lose, "of the step: so many nodes in turn are lost half-way, and replaced")
          ->needs(step)
          ->type_name("N")
          ->check(CLI::PositiveNumber);
  add_number(c, "--start-seconds", a.step.start_seconds,
             "with --lose: until the replacement of a lost node is there (default 60, an assumption)")
      ->needs(lose)
      ->type_name("S")
      ->check(CLI::NonNegativeNumber);
  c->add_option("--load", a.step.load, "of the step's experts: even (default), zipf:EXPONENT, or a file of shares")
      ->needs(step)
      ->type_name("LOAD");
  add_set(c, a.simulate.sets);
  return c;
}

void add_plan(CLI::App& app, PlanOptions& p) {
  CLI::App* c = app.add_subcommand("plan", "where each actor lives and its peak memory, before anything runs");
  c->add_option("CONFIG", p.config_path, "configuration file")->required();
  add_set(c, p.sets);
  CLI::Option* cluster =
      c->add_option("--cluster", p.clusters,
                    "instead: what the run would take on such machines, a name in configs/hardware or a path: memory, "
                    "layouts, time, cost; may be repeated")
          ->type_name("FILE")
          ->take_all()
          ->allow_extra_args(false);
  const auto number = [&](const char* name, double& value, const char* type, const char* meaning) {
    add_number(c, name, value, meaning)->type_name(type)->check(CLI::PositiveNumber)->needs(cluster);
  };
  c->add_option("--gpus", p.gpus, "so many of them (default: layout.nodes)")
      ->type_name("N")
      ->check(CLI::Range(1, 1 << 16))
      ->needs(cluster);
  number("--budget-dollars", p.budget_dollars, "N", "what so much money reaches");
  number("--deadline-days", p.deadline_days, "N", "what so much time reaches, and what it takes to be done by then");
  number("--checkpoint-seconds", p.checkpoint_seconds, "N", "that a checkpoint stops training for (default 60)");
  number("--recovery-seconds", p.recovery_seconds, "N",
         "from the loss of a device until training goes on (default 300)");
  add_number(c, "--start-seconds", p.start_seconds,
             "instead: until a lost device is replaced; what else a recovery takes is simulated (up to 64 devices)")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber)
      ->needs(cluster)
      ->excludes("--recovery-seconds");
  c->add_option("--simulate", p.simulate,
                "the first N layouts that fit are simulated, a step of the production actors each, and ranked by that")
      ->type_name("N")
      ->check(CLI::Range(1, 5))
      ->needs(cluster);
  c->add_flag("--published", p.published, "instead: DeepSeek's published figures beside the forecast's, for V3's shape")
      ->needs(cluster);
  c->add_flag("--json", p.json, "the same as a JSON list, an object for each cluster")
      ->needs(cluster)
      ->excludes("--published");
}

void add_rehearse(CLI::App& app, RehearseOptions& r) {
  CLI::App* c = app.add_subcommand(
      "rehearse", "what a layout's step and memory will be: its first steps in virtual time, each kernel timed here");
  c->add_option("CONFIG", r.config_path, "configuration file")->required();
  c->add_option("--steps", r.steps, "so many, the first three not counted (default 40)")
      ->type_name("N")
      ->check(CLI::Range(5, 100'000));
  add_number(c, "--seconds", r.seconds_max, "after so long it comes to its end, whatever --steps says (default 60)")
      ->type_name("N")
      ->check(CLI::PositiveNumber);
  c->add_flag("--apart", r.apart, "every node has a machine like this one to itself (default: all are on this one)");
  c->add_flag("--json", r.json, "the same as JSON");
  add_set(c, r.sets);
}

CLI::App* add_profile(CLI::App& app, Arguments& a) {
  CLI::App* c = app.add_subcommand(
      "profile", "where every millisecond of a training step goes: threads, ops, messages; or of decoding");
  c->add_option("CONFIG", a.profile.config_path, "configuration file (TOML)")->required();
  c->add_option("--steps", a.profile.steps, "steps measured, after a few that are not (default 10)")
      ->type_name("N")
      ->check(CLI::PositiveNumber);
  CLI::Option* decode =
      c->add_option("--decode", a.profile.decode, "instead of training: so many sequences are written, greedily")
          ->type_name("SEQUENCES")
          ->check(CLI::PositiveNumber);
  c->add_option("--context", a.profile.context, "with --decode: tokens of each prompt (default 256)")
      ->type_name("N")
      ->check(CLI::PositiveNumber)
      ->needs(decode);
  c->add_option("--tokens", a.profile.tokens, "with --decode: tokens written behind each (default 64)")
      ->type_name("N")
      ->check(CLI::Range(2, 1 << 20))
      ->needs(decode);
  add_set(c, a.profile.sets);
  return c;
}

void add_bench_hardware(CLI::App& bench, BenchHardwareOptions& h) {
  CLI::App* c = bench.add_subcommand(
      "hardware", "measure this machine into a hardware file, for device.hardware, plan --cluster and simulate --step");
  c->add_option("CONFIG", h.config_path, "configuration whose products are measured (default: as bench ops)");
  c->add_option("--out", h.out, "file to write (default: standard output)")->type_name("FILE");
  c->add_option("--name", h.name, "of the hardware (default: cpu-here, or h100-here on a GPU)")->type_name("NAME");
  c->add_option("--like", h.like, "hardware file for what can't be measured here (default: cpu, or h100 on a GPU)")
      ->type_name("FILE");
  add_set(c, h.sets);
}

CLI::App* add_bench(CLI::App& app, Arguments& a) {
  CLI::App* bench = app.add_subcommand("bench", "how fast this machine is at what a model is made of");
  bench->require_subcommand(1);
  CLI::App* c = bench->add_subcommand("ops", "each op of a model at its own shapes, beside a large product and a copy");
  c->add_option("CONFIG", a.bench.config_path,
                "configuration file (default: configs/moe_0b85.toml on a GPU, configs/quickstart.toml on a processor)");
  c->add_option("--device", a.bench.device, "what computes (default: as the configuration says)")
      ->type_name("cuda|cpu")
      ->check(CLI::IsMember({"cuda", "cpu"}));
  c->add_option("--only", a.bench.only, "these ops alone, e.g. Product,Attention")
      ->type_name("NAME[,NAME...]")
      ->delimiter(',')
      ->allow_extra_args(false);
  c->add_option("--repeats", a.bench.repeats, "times that each is measured; the median counts (default 5)")
      ->type_name("N")
      ->check(CLI::Range(1, 1000));
  c->add_option("--json", a.bench.json, "write all figures to this file")->type_name("FILE");
  add_set(c, a.bench.sets);
  add_bench_hardware(*bench, a.bench_hardware);
  return bench;
}

CLI::App* add_timeline(CLI::App& app, Arguments& a) {
  CLI::App* c = app.add_subcommand("timeline", "draw what every compute thread did during a step, as SVG");
  c->add_option("RUN", a.timeline.runs, "folders of runs, drawn to one scale")->required();
  c->add_option("--out", a.timeline.out, "file to write")->required()->type_name("FILE");
  c->add_option("--step", a.timeline.step, "the step to draw (default: about the middle)")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber);
  return c;
}

void add_inspect_web(CLI::App* c, InspectOptions& i) {
  CLI::Option* web = c->add_flag("--web", i.web, "serve a page that shows all of it, until Ctrl-C")
                         ->excludes("--once", "--json", "--sort", "--filter", "--limit", "--do");
  const auto with_web = [&](CLI::Option* option) { return option->needs(web); };
  with_web(c->add_option("--port", i.port, "port of the page; 0: any that is free (default 8080)"))
      ->type_name("N")
      ->check(CLI::Range(0, 65535));
  with_web(c->add_option("--listen", i.listen,
                         "address in numbers; other than 127.0.0.1: whoever has the run's token may look"))
      ->type_name("ADDRESS");
}

void add_trace(CLI::App& app, Arguments& a) {
  CLI::App* c = app.add_subcommand("trace", "write what a run's journals tell as a trace, to be opened in Perfetto");
  c->add_option("RUN", a.trace.run, "a run's folder, also of one that goes on")->required();
  c->add_option("--out", a.trace.out, "file to write (JSON)")->required()->type_name("FILE");
  c->add_option("--from-step", a.trace.from_step, "only from this step on")
      ->type_name("A")
      ->check(CLI::NonNegativeNumber);
  c->add_option("--to-step", a.trace.to_step, "to the end of this one (default: of the first)")
      ->type_name("B")
      ->check(CLI::NonNegativeNumber);
  add_number(c, "--last", a.trace.last_seconds, "only the last so many seconds")->type_name("SECONDS");
  c->footer("Open the file at https://ui.perfetto.dev, or in Chrome at chrome://tracing: it is read in the browser.");
}

CLI::App* add_inspect(CLI::App& app, Arguments& a) {
  CLI::App* c = app.add_subcommand("inspect", "what every actor of a run does, and why it is slow or stuck");
  CLI::Option* run = c->add_option("RUN", a.inspect.run,
                                   "a run's folder, also of a run that is stuck, dead or over; or the addresses of its "
                                   "nodes, 127.0.0.1:4711,...");
  c->add_option("--simulate", a.inspect.simulate, "instead: this configuration in virtual time, message by message")
      ->type_name("CONFIG")
      ->excludes(run);
  add_seed(c, a.inspect.seed, "of the simulated world (default 1)");
  add_set(c, a.inspect.sets);
  c->add_option("--token-file", a.inspect.token, "with addresses: the run's token (RUN/token)")->type_name("FILE");
  c->add_flag("--once", a.inspect.once, "one look, then end");
  c->add_flag("--json", a.inspect.json, "one look as JSON");
  c->add_flag("--allow-control", a.inspect.allow_control,
              "pause it, let it go on or take one step, kill a node, for who has the run's token (RUN/token)");
  c->add_option("--do", a.inspect.order,
                fmt::format("one order, and the answer: {}; a step is one, then pause; a message is an Envelope of "
                            "messages/schema.capnp as JSON, and marks the run as tainted",
                            fmt::join(kInspectOrders, ", ")))
      ->type_name("ORDER")
      ->excludes("--once", "--json", "--simulate");
  c->add_option("--sort", a.inspect.sort, "actors by: actor (default), queue, oldest, messages, busy, waits, memory")
      ->type_name("KEY")
      ->check(CLI::IsMember({"actor", "queue", "oldest", "messages", "busy", "waits", "memory"}));
  c->add_option("--filter", a.inspect.filter, "only actors whose line holds this")->type_name("TEXT");
  c->add_option("--limit", a.inspect.limit, "at most so many actors (default: all)")
      ->type_name("N")
      ->check(CLI::PositiveNumber);
  add_inspect_web(c, a.inspect);
  c->footer("It exits with 0 if the run is healthy, or over and finished, and with 3 if it is not.");
  return c;
}

CLI::App* add_plot(CLI::App& app, Arguments& a) {
  CLI::App* c = app.add_subcommand("plot", "draw all that a run has to show as one SVG: curves, load, bill, timeline");
  c->add_option("RUN", a.plot_run, "a run's folder")->required();
  c->add_option("--out", a.plot_out, "file to write")->required()->type_name("FILE");
  return c;
}

void add_compare(CLI::App& app, Arguments& a) {
  CLI::App* c = app.add_subcommand("compare", "runs side by side: what differs, and what came of it");
  c->add_option("RUN", a.compare.runs, "folders of two runs or more")->required();
  c->add_option("--out", a.compare.out, "draw their curves in the same charts, as SVG")->type_name("FILE");
}

void add_doctor(CLI::App& app, Arguments& a) {
  CLI::App* c =
      app.add_subcommand("doctor", "what this machine is, what a run would use of it, and what to fix before one");
  DoctorOptions& d = a.doctor;
  c->add_flag("--json", d.json, "the same as one JSON object");
  CLI::Option* on = c->add_option("--on", d.on,
                                  "instead: other machines and the ways between them, as `troupe launch` names them: "
                                  "hosts:FILE, slurm (inside of a job), local:N (to try it)")
                        ->type_name("WHERE");
  c->add_option_function<std::string>(
       "--hosts", [&d](const std::string& file) { d.on = "hosts:" + file; }, "the same as --on hosts:FILE")
      ->type_name("FILE")
      ->excludes(on);
  c->add_option("--ssh", d.ssh, "how hosts are reached (default ssh): --ssh \"ssh -F FILE\"")->type_name("COMMAND");
  c->add_option("--program", d.program, "where this program is on the hosts (default: where it is here)")
      ->type_name("PATH");
  c->add_option("--interface", d.interface, "the network that nodes talk over: eth0, mlx5_0:1 (default: all)")
      ->type_name("NAME");
  c->add_option("--ports", d.ports, "where hosts come to this machine, as launch.ports: 4711-4720 (default: any)")
      ->type_name("PORTS");
  c->footer("It exits with 0 if a run can start, and with 1 if something is broken that a run needs.");
}

int dispatch(CLI::App& app, Arguments& a) {
  if (app.got_subcommand("train")) {
    if (a.nodes != 0) a.train.sets.push_back(fmt::format("layout.nodes={}", a.nodes));
    return train(a.train);
  }
  if (app.got_subcommand("launch")) return launch(a.launch);
  if (app.got_subcommand("plan")) return plan(a.plan);
  if (app.got_subcommand("rehearse")) return rehearse(a.rehearse);
  if (app.got_subcommand("config")) return show_config(a.config_path, a.sets, a.keys);
  if (app.got_subcommand("generate")) return generate(a.generate);
  if (app.got_subcommand("tokenize")) return tokenize(a.tokenize);
  if (app.got_subcommand("eval")) return evaluate(a.evaluate);
  if (app.got_subcommand("check")) return check(a.check);
  if (app.got_subcommand("export")) return export_model(a.export_model);
  if (app.got_subcommand("profile")) return profile(a.profile);
  if (app.got_subcommand("bench"))
    return app.get_subcommand("bench")->got_subcommand("hardware") ? bench_hardware(a.bench_hardware)
                                                                   : bench_ops(a.bench);
  if (app.got_subcommand("timeline")) return timeline(a.timeline);
  if (app.got_subcommand("trace")) return trace(a.trace);
  if (app.got_subcommand("compare")) return compare(a.compare);
  if (app.got_subcommand("inspect")) return inspect(a.inspect);
  if (app.got_subcommand("plot")) return plot(a.plot_run, a.plot_out);
  if (app.got_subcommand("simulate")) return a.one_step ? simulate_step(a.simulate, a.step) : simulate(a.simulate);
  if (app.got_subcommand("doctor")) return a.doctor.on.empty() ? doctor(a.doctor) : doctor_hosts(a.doctor);
  if (app.got_subcommand("digest")) return digest(a.digest_run);
  if (app.got_subcommand("why")) return why(a.why_run);
  if (app.got_subcommand("judge")) return judge_main();
  return a.join.addresses.empty() ? node_main(a.socket) : node_from_elsewhere(a.join);
}

std::vector<std::string> commands_of(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(command->get_name());
  return names;
}

// The parser would only say that a subcommand is missing.
std::string why_no_command(const CLI::App& app, int argc, char** argv) {
  if (argc < 2 || argv[1][0] == '-') return "";
  const std::vector<std::string> names = commands_of(app);
  if (std::find(names.begin(), names.end(), argv[1]) == names.end()) {
    const std::string near = nearest(argv[1], names);
    return fmt::format("{} is not a command{}; troupe --help lists them all", argv[1],
                       near.empty() ? "" : ", did you mean " + near);
  }
  const std::vector<std::string> more = commands_of(*app.get_subcommand(argv[1]));
  if (more.empty() || (argc > 2 && argv[2][0] == '-')) return "";
  if (argc > 2 && std::find(more.begin(), more.end(), argv[2]) != more.end()) return "";
  return fmt::format("{} must be followed by {}{}; troupe {} --help tells more", argv[1], fmt::join(more, " or "),
                     argc > 2 ? fmt::format(", not by {}", argv[2]) : "", argv[1]);
}

}  // namespace

int run_command_line(int argc, char** argv) {
  CLI::App app("Troupe trains sparse (mixture-of-experts) language models as a company of actors.", "troupe");
  Arguments a;
  app.require_subcommand(1);
  app.set_version_flag("--version", build_version());
  add_train(app, a);
  add_launch(app, a);
  add_plan(app, a.plan);
  add_rehearse(app, a.rehearse);
  add_generate(app, a);
  add_tokenize(app, a);
  add_evaluate(app, a);
  add_check(app, a);
  add_simulate(app, a);
  add_profile(app, a);
  add_bench(app, a);
  add_timeline(app, a);
  add_trace(app, a);
  add_inspect(app, a);
  add_plot(app, a);
  add_compare(app, a);
  add_doctor(app, a);
  CLI::App* exporting = app.add_subcommand("export", "write a trained model as a Hugging Face directory");
  exporting->add_option("RUN", a.export_model.run, "a run's folder or one of its checkpoints")->required();
  exporting->add_option("DIR", a.export_model.out, "folder to make")->required();
  exporting->add_option("--dtype", a.export_model.dtype, "float32 (default) or bfloat16");
  CLI::App* config = app.add_subcommand("config", "show a configuration with every default filled in");
  config->add_option("CONFIG", a.config_path, "configuration file");
  config->add_flag("--keys", a.keys, "all keys with type, default, range and meaning");
  add_set(config, a.sets);
  CLI::App* digesting = app.add_subcommand("digest", "SHA-256 over a run's float32 weights, names sorted bytewise");
  digesting->add_option("RUN", a.digest_run, "a run's folder or one of its checkpoints")->required();
  CLI::App* asking =
      app.add_subcommand("why", "why a run is waiting: who waits for whom, since when, and the root of it");
  asking->add_option("RUN", a.why_run, "a run's folder")->required();
  CLI::App* node = app.add_subcommand("node", "");
  node->group("");
  node->add_option("--socket", a.socket);
  node->add_option("--join", a.join.addresses)->excludes("--socket");
  node->add_option("--config", a.join.config_path);
  node->add_option("--node", a.join.node);
  node->add_option("--incarnation", a.join.incarnation);
  app.add_subcommand("judge", "")->group("");
  if (const std::string problem = why_no_command(app, argc, argv); !problem.empty()) {
    std::fprintf(stderr, "troupe: %s\n", problem.c_str());
    return 2;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  try {
    return dispatch(app, a);
  } catch (const Interrupted&) {
    std::fprintf(stderr, "troupe: interrupted\n");
    return kInterrupted;
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "troupe: not enough memory; `troupe plan` tells what a configuration takes\n");
    return 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "troupe: %s\n", error.what());
    return 1;
  }
}

}  // namespace troupe
