#include "launcher/launch/handshake.h"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include <array>
#include <nlohmann/json.hpp>

#include "kernels/base/error.h"
#include "kernels/base/hex.h"

namespace troupe {

using nlohmann::json;

namespace {
constexpr std::size_t kWordsBytes = 32;
}

std::string to_line(const JoinRequest& request) {
  return json{{"kind", "join"},          {"protocol", request.protocol},       {"build", request.build},
              {"node", request.node},    {"incarnation", request.incarnation}, {"words", request.words},
              {"digest", request.digest}}
      .dump();
}

std::optional<JoinRequest> join_request(const std::string& line) {
  const json told = json::parse(line, nullptr, false);
  try {
    if (told.is_discarded() || told.at("kind") != "join") return std::nullopt;
    return JoinRequest{told.at("protocol"), told.at("build"), told.at("words"),
                       told.at("digest"),   told.at("node"),  told.at("incarnation")};
  } catch (const json::exception&) {
    return std::nullopt;
  }
}

std::string random_words() {
  std::array<unsigned char, kWordsBytes> bytes{};
  if (RAND_bytes(bytes.data(), bytes.size()) != 1) throw Error("this machine has no random numbers to give");
  return to_hex({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

std::string proof_of(const std::string& token, bool of_launcher, const JoinRequest& request,
                     const std::string& theirs) {
  const std::string text = fmt::format("{} {} {} {} {}", of_launcher ? "launcher" : "node", request.node,
                                       request.incarnation, request.words, theirs);
  std::array<unsigned char, EVP_MAX_MD_SIZE> proof{};
  unsigned int size = 0;
  HMAC(EVP_sha256(), token.data(), static_cast<int>(token.size()), reinterpret_cast<const unsigned char*>(text.data()),
       text.size(), proof.data(), &size);
  return to_hex({reinterpret_cast<const char*>(proof.data()), size});
}

}  // namespace troupe
