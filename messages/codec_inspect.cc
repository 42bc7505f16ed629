#include "messages/codec_inspect.h"

#include <capnp/message.h>
#include <capnp/serialize.h>

#include <cstring>
#include <utility>

#include "messages/schema.capnp.h"

namespace troupe {

namespace {

constexpr std::uint64_t kTraversalFactor = 8;  // a crafted message may point many times at the same words

template <typename... Handlers>
struct Either : Handlers... {
  using Handlers::operator()...;
};
template <typename... Handlers>
Either(Handlers...) -> Either<Handlers...>;  // clang needs it said

capnp::Data::Reader data_of(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const kj::byte*>(bytes.data()), bytes.size()};
}
capnp::Text::Reader text_of(const std::string& text) { return {text.c_str(), text.size()}; }
std::vector<std::byte> bytes_of(capnp::Data::Reader data) {
  const auto* begin = reinterpret_cast<const std::byte*>(data.begin());
  return {begin, begin + data.size()};
}
std::string string_of(capnp::Text::Reader text) { return {text.begin(), text.size()}; }

std::vector<std::byte> framed(capnp::MessageBuilder& builder) {
  const kj::Array<capnp::word> words = capnp::messageToFlatArray(builder);
  const auto length = static_cast<std::uint32_t>(words.asBytes().size());
  std::vector<std::byte> out(sizeof length + length);
  std::memcpy(out.data(), &length, sizeof length);
  std::memcpy(out.data() + sizeof length, words.begin(), length);
  return out;
}

// read(root) of a message in these bytes; empty if they are none.
template <typename Root, typename Read>
auto read_root(const std::byte* bytes, std::size_t size, Read read) -> decltype(read(typename Root::Reader())) {
  if (size == 0 || size % sizeof(capnp::word) != 0) return std::nullopt;
  kj::Array<capnp::word> words = kj::heapArray<capnp::word>(size / sizeof(capnp::word));
  std::memcpy(words.begin(), bytes, size);
  const capnp::ReaderOptions limits{.traversalLimitInWords = kTraversalFactor * words.size(), .nestingLimit = 8};
  try {
    capnp::FlatArrayMessageReader message(words, limits);
    if (message.getEnd() != words.end()) return std::nullopt;
    return read(message.getRoot<Root>());
  } catch (const kj::Exception&) {
    return std::nullopt;
  }
}

std::optional<InspectRequest> request_from(wire::InspectRequest::Reader w) {
  InspectRequest request{string_of(w.getToken()), {}};
  switch (w.which()) {
    case wire::InspectRequest::READ_SNAPSHOT:
      request.what = ReadSnapshot{};
      return request;
    case wire::InspectRequest::SUBSCRIBE:
      request.what = Subscribe{w.getSubscribe()};
      return request;
    case wire::InspectRequest::READ_JOURNAL:
      request.what = ReadJournal{w.getReadJournal().getFirst(), w.getReadJournal().getMost()};
      return request;
    case wire::InspectRequest::READ_CONFIG:
      request.what = ReadConfig{};
      return request;
    case wire::InspectRequest::PAUSE:
      request.what = Pause{w.getPause().getOn(), w.getPause().getSteps()};
      return request;
    case wire::InspectRequest::KILL:
      request.what = KillNode{};
      return request;
    case wire::InspectRequest::INJECT:
      request.what = Inject{bytes_of(w.getInject())};
      return request;
  }
  return std::nullopt;
}

std::optional<InspectReply> reply_from(wire::InspectReply::Reader w) {
  switch (w.which()) {
    case wire::InspectReply::REFUSED:
      return NodeRefused{string_of(w.getRefused())};
    case wire::InspectReply::SNAPSHOT:
      return Snapshot{w.getSnapshot().getNowUs(), bytes_of(w.getSnapshot().getBoard())};
    case wire::InspectReply::JOURNAL:
      return JournalPart{w.getJournal().getWritten(), bytes_of(w.getJournal().getJournal())};
    case wire::InspectReply::CONFIG:
      return ConfigText{string_of(w.getConfig())};
    case wire::InspectReply::SAID:
      return Said{string_of(w.getSaid())};
  }
  return std::nullopt;
}

}  // namespace

std::vector<std::byte> encode(const InspectRequest& request) {
  capnp::MallocMessageBuilder builder;
  auto w = builder.initRoot<wire::InspectRequest>();
  w.setToken(text_of(request.token));
  std::visit(
      Either{[&](const ReadSnapshot&) { w.setReadSnapshot(); }, [&](const Subscribe& s) { w.setSubscribe(s.every_ms); },
             [&](const ReadJournal& r) {
               auto range = w.initReadJournal();
               range.setFirst(r.first);
               range.setMost(r.most);
             },
             [&](const ReadConfig&) { w.setReadConfig(); },
             [&](const Pause& p) {
               auto pause = w.initPause();
               pause.setOn(p.on);
               pause.setSteps(p.steps);
             },

             [&](const KillNode&) { w.setKill(); }, [&](const Inject& i) { w.setInject(data_of(i.frame)); }},
      request.what);
  return framed(builder);
}

std::vector<std::byte> encode(const InspectReply& reply) {
  capnp::MallocMessageBuilder builder;
  auto w = builder.initRoot<wire::InspectReply>();
  std::visit(Either{[&](const NodeRefused& r) { w.setRefused(text_of(r.sentence)); },
                    [&](const Snapshot& s) {
                      auto snapshot = w.initSnapshot();
                      snapshot.setNowUs(s.now_us);
                      snapshot.setBoard(data_of(s.board));
                    },
                    [&](const JournalPart& j) {
                      auto part = w.initJournal();
                      part.setWritten(j.written);
                      part.setJournal(data_of(j.journal));
                    },
                    [&](const ConfigText& c) { w.setConfig(text_of(c.toml)); },
                    [&](const Said& s) { w.setSaid(text_of(s.sentence)); }},
             reply);
  return framed(builder);
}

std::optional<InspectRequest> decode_inspect_request(const std::byte* bytes, std::size_t size) {
  if (size > kInspectRequestMax) return std::nullopt;
  return read_root<wire::InspectRequest>(bytes, size, request_from);
}

std::optional<InspectReply> decode_inspect_reply(const std::byte* bytes, std::size_t size) {
  if (size > kInspectReplyMax) return std::nullopt;
  return read_root<wire::InspectReply>(bytes, size, reply_from);
}

}  // namespace troupe
