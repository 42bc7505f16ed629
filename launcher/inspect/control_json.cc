#include "launcher/inspect/control_json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <vector>

namespace troupe {

using nlohmann::json;

namespace {

constexpr std::uint64_t kMessagesMax = 1'000'000'000;
constexpr double kSecondsMax = 1e9;

using Do = Control::Do;
struct Verb {
  Do what;
  std::vector<std::string> must, may;
};

const std::map<std::string, Verb>& verbs() {
  static const std::map<std::string, Verb> kVerbs{{"pause", {Do::pause, {}, {}}},
                                                  {"resume", {Do::resume, {}, {}}},
                                                  {"kill", {Do::kill, {"node"}, {}}},
                                                  {"restart", {Do::restart, {"node"}, {}}},
                                                  {"step", {Do::step, {}, {}}},
                                                  {"run", {Do::run, {}, {"messages", "until"}}},
                                                  {"back", {Do::back, {"messages"}, {}}},
                                                  {"drop", {Do::drop, {"id"}, {}}},
                                                  {"delay", {Do::delay, {"id", "us"}, {}}},
                                                  {"inject", {Do::inject, {}, {"id", "message"}}}};
  return kVerbs;
}

template <typename Strings>
bool among(const Strings& words, const std::string& word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

// A whole number from `least` to `most`.
std::uint64_t count_in(const json& of, const char* key, std::uint64_t least, std::uint64_t most) {
  const json& value = of.at(key);
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() < least || value.get<std::uint64_t>() > most)
    throw Misasked("{} must be a whole number, {} to {}", key, least, most);
  return value.get<std::uint64_t>();
}

double seconds_in(const json& of, const char* key, double unit, double most) {
  const json& value = of.at(key);
  const double number = value.is_number() ? value.get<double>() : -1;
  if (!(number >= 0 && number <= most)) throw Misasked("{} must be a number, 0 to {}", key, most);
  return number * unit;
}

std::string text_in(const json& of, const char* key) {
  if (!of.at(key).is_string()) throw Misasked("{} must be a text", key);
  return of.at(key);
}

std::string kind_in(const json& of) {
  const std::string kind = text_in(of, "receives");
  for (std::size_t i = 0; i < std::variant_size_v<Message>; ++i)
    if (kind == kind_name(i)) return kind;
  throw Misasked("receives must be a kind of message, such as ExpertResult");
}

Address actor_in(const json& of) {
  const auto actor = actor_named(text_in(of, "actor"));
  if (!actor) throw Misasked("actor must be one's name, such as stage 0");
  return *actor;
}

std::uint64_t id_in(const json& of) {
  const std::string text = text_in(of, "id");
  std::uint64_t id = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), id);
  if (problem != std::errc() || end != text.data() + text.size() || id == 0)
    throw Misasked("id must be a message's number, as a text of digits");
  return id;
}

void take_until(const json& until, Control& control) {
  if (!until.is_object() || until.empty()) throw Misasked("until must be one of step, seconds, actor with receives");
  const bool receives = until.contains("actor");
  for (const auto& [key, value] : until.items())
    if (receives ? !among(std::vector<std::string>{"actor", "receives"}, key)
                 : (key != "step" && key != "seconds") || until.size() != 1)
      throw Misasked("until must be one of step, seconds, actor with receives");
  if (until.contains("step")) control.until_step = static_cast<std::int64_t>(count_in(until, "step", 0, kMessagesMax));
  if (until.contains("seconds")) control.until_seconds = seconds_in(until, "seconds", 1, kSecondsMax);
  if (receives) control.receiver = actor_in(until);
  if (until.contains("receives")) control.receives = kind_in(until);
}

void take(const json& asked, Control& control) {
  if (asked.contains("node")) control.node = static_cast<std::uint32_t>(count_in(asked, "node", 0, 1 << 20));
  if (asked.contains("messages")) control.messages = count_in(asked, "messages", 1, kMessagesMax);
  if (asked.contains("until")) take_until(asked["until"], control);
  if (asked.contains("id")) control.id = id_in(asked);
  if (asked.contains("us")) control.delay_seconds = seconds_in(asked, "us", 1e-6, kSecondsMax * 1e6);
  if (asked.contains("message")) control.message = asked["message"].dump();
  if (control.what == Do::inject && asked.contains("id") == asked.contains("message"))
    throw Misasked("inject must be told one of id, of a simulated world's message, and message, for a live run");
  if (control.what == Do::run && !asked.contains("messages") && !asked.contains("until"))
    throw Misasked("run must be told how far: messages, or until");
}

}  // namespace

Control control_of(const std::string& body) {
  const json asked = json::parse(body, nullptr, false);
  if (!asked.is_object()) throw Misasked("the request is no JSON object, such as {{\"do\": \"pause\"}}");
  if (!asked.contains("do") || !asked["do"].is_string()) throw Misasked("\"do\" must say what is to be done");
  const std::string word = asked["do"];
  const auto verb = verbs().find(word);
  if (verb == verbs().end())
    throw Misasked("do must be pause, resume, kill, restart, step, run, back, drop, delay or inject");
  const auto& [what, must, may] = verb->second;
  for (const std::string& key : must)
    if (!asked.contains(key)) throw Misasked("{} must be told {}", word, key);
  for (const auto& [key, value] : asked.items())
    if (key != "do" && !among(must, key) && !among(may, key))
      throw Misasked("{} takes {}", word,
                     must.empty() && may.empty() ? "nothing more" : fmt::format("nothing called so: {}", key));
  Control control;
  control.what = what;
  take(asked, control);
  return control;
}

std::optional<Address> actor_named(const std::string& name) {
  const std::size_t space = name.rfind(' ');
  if (space == std::string::npos) return std::nullopt;
  std::uint32_t index = 0;
  const char *begin = name.data() + space + 1, *end = name.data() + name.size();
  const auto [stop, problem] = std::from_chars(begin, end, index);
  if (problem != std::errc() || stop != end) return std::nullopt;
  std::string role = name.substr(0, space);
  std::replace(role.begin(), role.end(), ' ', '_');
  for (std::uint8_t i = 0; i < kRoles; ++i) {
    const Address address{static_cast<Role>(i), index};
    if (to_string(address) == fmt::format("{} {}", role, index)) return address;
  }
  return std::nullopt;
}

}  // namespace troupe
