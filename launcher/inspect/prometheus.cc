#include "launcher/inspect/prometheus.h"

#include <fmt/format.h>

#include <cmath>
#include <iterator>

namespace troupe {

namespace {

using Labels = std::vector<std::pair<std::string, std::string>>;

std::string escaped(const std::string& value) {
  std::string text;
  for (const char c : value) {
    if (c == '\n') {
      text += "\\n";
      continue;
    }
    if (c == '\\' || c == '"') text += '\\';
    text += c;
  }
  return text;
}

std::string number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  return fmt::format("{}", value);
}

// A family: HELP and TYPE, then its samples, as the format wants them together.
class Text {
 public:
  void family(const char* name, const char* type, const char* help) {
    name_ = name;
    fmt::format_to(std::back_inserter(text_), "# HELP {0} {1}\n# TYPE {0} {2}\n", name, help, type);
  }
  void sample(double value, const Labels& labels = {}) {
    text_ += name_;
    const char* before = "{";
    for (const auto& [label, said] : labels) {
      text_ += fmt::format("{}{}=\"{}\"", before, label, escaped(said));
      before = ",";
    }
    text_ += fmt::format("{} {}\n", labels.empty() ? "" : "}", number(value));
  }
  void gauge(const char* name, const char* help, double value) {
    family(name, "gauge", help);
    sample(value);
  }
  const std::string& text() const { return text_; }

 private:
  std::string name_, text_;
};

std::string node_of(const NodeView& node) { return std::to_string(node.node); }
Labels labels_of(const ActorView& actor) {
  return {{"actor", to_string(actor.address)}, {"node", std::to_string(actor.node)}};
}

void tell_run(const View& view, Text& out) {
  out.family("troupe_run_info", "gauge", "Which run this is; always 1.");
  const RunSource source = view.options.source;
  out.sample(1, {{"run", view.options.run},
                 {"name", view.name},
                 {"source", source == RunSource::live   ? "live"
                            : source == RunSource::over ? "over"
                                                        : "simulated"}});
  out.gauge("troupe_healthy", "1: nothing stands still, and a run that is over is finished.", view.healthy ? 1 : 0);
  out.gauge("troupe_paused", "1: somebody paused the run.", view.paused ? 1 : 0);
  out.gauge("troupe_step", "Optimizer steps done.", static_cast<double>(view.step));
  out.gauge("troupe_steps", "Optimizer steps that the run is to do.", static_cast<double>(view.steps));
  out.gauge("troupe_attempt", "Losses of a process, so far.", view.attempt);
  out.gauge("troupe_data_age_seconds", "Age of the oldest board of a process that runs.",
            static_cast<double>(view.data_age_us) * 1e-6);
}

void tell_figures(const View& view, Text& out) {
  struct Figure {
    const char *key, *name, *help;
  };
  const Figure kFigures[] = {{"loss", "troupe_loss", "Loss of the last step, nats a token."},
                             {"reward", "troupe_reward", "Mean reward of the last step's answers."},
                             {"tokens_per_second", "troupe_tokens_per_second", "Tokens a second of the last step."},
                             {"mfu", "troupe_mfu_ratio", "Model FLOPs used, as a share of what the hardware has."},
                             {"cost_dollars", "troupe_cost_dollars", "What the run has cost so far."}};
  const nlohmann::json& step = view.figures.step;
  if (!step.is_object()) return;
  for (const auto& [key, name, help] : kFigures)
    if (step.contains(key) && step[key].is_number()) out.gauge(name, help, step[key].get<double>());
}

void tell_nodes(const View& view, Text& out) {
  const auto each = [&](const char* name, const char* help, auto value) {
    out.family(name, "gauge", help);
    for (const NodeView& node : view.nodes) out.sample(static_cast<double>(value(node)), {{"node", node_of(node)}});
  };
  each("troupe_node_up", "1: the process runs.", [](const NodeView& n) { return n.life == "running" ? 1 : 0; });
  each("troupe_node_incarnation", "How often it was started.", [](const NodeView& n) { return n.incarnation; });
  each("troupe_node_memory_bytes", "What its actors and messages hold.", [](const NodeView& n) { return n.bytes; });
  each("troupe_node_memory_peak_bytes", "The most that it held.", [](const NodeView& n) { return n.bytes_peak; });
  each("troupe_node_memory_bound_bytes", "What the plan allows it.", [](const NodeView& n) { return n.bytes_bound; });
  each("troupe_node_segments_ready", "Segments that no thread has taken.",
       [](const NodeView& n) { return n.told.ready; });
  out.family("troupe_node_bill_seconds_total", "counter", "Thread seconds, by what they went to.");
  for (const NodeView& node : view.nodes)
    for (std::size_t bin = 0; bin < kBins; ++bin)
      out.sample(static_cast<double>(node.told.bill_us[bin]) * 1e-6,
                 {{"node", node_of(node)}, {"bin", to_string(static_cast<Bin>(bin))}});
}

void tell_actors(const View& view, Text& out) {
  const auto each = [&](const char* name, const char* type, const char* help, auto value) {
    out.family(name, type, help);
    for (const ActorView& actor : view.actors) out.sample(static_cast<double>(value(actor)), labels_of(actor));
  };
  each("troupe_actor_queue_messages", "gauge", "Messages that wait in its mailbox.",
       [](const ActorView& a) { return a.queue; });
  each("troupe_actor_oldest_message_seconds", "gauge", "Age of the oldest message that waits.",
       [](const ActorView& a) { return static_cast<double>(a.oldest_age_us) * 1e-6; });
  each("troupe_actor_messages_handled_total", "counter", "Messages that its process has handled.",
       [](const ActorView& a) { return a.handled; });
  each("troupe_actor_busy_ratio", "gauge", "Share of the time since the last look in which its segments ran.",
       [](const ActorView& a) { return a.busy; });
  each("troupe_actor_handling_ratio", "gauge", "Share of the time since the last look in which its handlers ran.",
       [](const ActorView& a) { return a.handling; });
}

}  // namespace

std::string prometheus_text(const View& view) {
  Text out;
  tell_run(view, out);
  tell_figures(view, out);
  tell_nodes(view, out);
  tell_actors(view, out);
  return out.text();
}

}  // namespace troupe
