// The handshake by which a node process joins a run from elsewhere: each side proves that it knows the run's token by an
// HMAC-SHA256 over random words of both, so that the token itself never travels. Pure. One JSON object a line:
//   node -> launcher  join {protocol, build, digest, node, incarnation, words}
//   launcher -> node  prove {words, proof}   or refused {sentence}, and nothing more
//   node -> launcher  proof {proof}
// Then the launcher's start (launcher/processes.h), or refused.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace troupe {

constexpr int kJoinProtocol = 1;

struct JoinRequest {
  int protocol = kJoinProtocol;
  std::string build, words;
  std::string digest;  // of the configuration that it was started for; empty: it takes the launcher's
  std::uint32_t node = 0, incarnation = 0;
};
std::string to_line(const JoinRequest& request);
// Empty: it is none.
std::optional<JoinRequest> join_request(const std::string& line);

std::string random_words();  // 64 hexadecimal digits
// Of the launcher, or of the node, that it knows `token`. theirs: the launcher's words.
std::string proof_of(const std::string& token, bool of_launcher, const JoinRequest& request, const std::string& theirs);

}  // namespace troupe
