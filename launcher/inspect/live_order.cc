#include "launcher/inspect/live_order.h"

#include "actors/rules/placement.h"
#include "kernels/base/error.h"
#include "messages/codec.h"

namespace troupe {

namespace {

LiveOrder injection(const Control& control, const std::map<Address, std::uint32_t>& places) {
  if (control.message.empty()) throw Error("inject must be told the message; by number goes a simulated world alone");
  std::string problem;
  const auto envelope = envelope_from_json(control.message, problem);
  if (!envelope) throw Error("nothing can be injected: {}", problem);
  const auto place = places.find(envelope->to);
  if (place == places.end())
    throw Error("nothing can be injected: {} is no actor of this run", to_string(envelope->to));
  const Frame frame = encode(*envelope, {.sequence = 1}, false);
  return {place->second, Inject{{frame.header.begin(), frame.header.end()}}};
}

}  // namespace

LiveOrder live_order(const Control& control, const Config& config) {
  const auto places = place_actors(config);
  const std::uint32_t leader = places.at({Role::conductor, 0});
  switch (control.what) {
    case Control::Do::pause:
      return {leader, Pause{true}};
    case Control::Do::resume:
      return {leader, Pause{false}};
    case Control::Do::step:
      return {leader, Pause{true, 1}};
    case Control::Do::inject:
      return injection(control, places);
    case Control::Do::kill:
      return {control.node, KillNode{}};
    default:
      throw Error("only a simulated world can do that");
  }
}

}  // namespace troupe
