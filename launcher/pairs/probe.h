// A process on a host that `troupe doctor --hosts` looks at: it tells what its doctor finds, and is one end of the ways to
// other hosts. It writes nothing that stays, and ends with its launcher: at its word, with its standard input, or when it
// hears nothing from it.
//
// On the control socket, one JSON object a line:
//   launcher -> probe  probe {transport, interface}   alive {}   clock {}   end {}
//                      meet {match, peer, address, leads}, and the other host the same   part {match}: stop measuring
//   probe -> launcher  facts {doctor, address, machine, ports}   failed {sentence}   alive {}   clock {us}
//                      met {match}, of who follows: it may begin
//                      measured {match, figures}, of who leads   unmeasured {match, problem}
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "launcher/pairs/meter.h"
#include "messages/control_socket.h"

namespace troupe {

// To the end; the exit code. Throws Error: this host can't take part.
int probe(ControlSocket& socket, const nlohmann::json& begin);

constexpr int kProbeBeatMs = 500, kProbeSilenceMs = 5000;

nlohmann::json to_json(const PairFigures& figures);
PairFigures pair_figures_from(const nlohmann::json& told);

}  // namespace troupe
