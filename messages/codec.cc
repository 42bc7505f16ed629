// Envelope <-> Frame. codec_fields.h says what each message carries; here are the two directions, the prelude, and the
// checks. Law: whatever bytes arrive, decode returns a message that agrees with itself, or a sentence saying why not.
#include "messages/codec.h"

#include <capnp/compat/json.h>
#include <capnp/message.h>
#include <capnp/serialize.h>
#include <kj/io.h>

#include <array>
#include <cstring>
#include <span>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/mutant.h"
#include "messages/checksum.h"
#include "messages/codec_fields.h"
#include "messages/schema.capnp.h"

namespace troupe {
namespace {

constexpr std::uint32_t kMagic = 0x45505254;  // "TRPE"
constexpr std::uint16_t kVersion = 1;
constexpr std::uint16_t kPayloadChecksumFlag = 1;
constexpr std::size_t kPreludeSize = 56;
constexpr std::size_t kListMax = std::size_t{1} << 20;
// A well-formed header is read once; a crafted one may point many times at the same words. It may not do so for long.
constexpr std::uint64_t kTraversalFactor = 8;
// Of a payload's size on the wire: it is in the device's memory, so it comes by itself.
constexpr std::uint64_t kOnDevice = std::uint64_t{1} << 63;

// The prelude as it lies in memory; schema.capnp draws it.
struct Prelude {
  std::uint32_t magic = kMagic;
  std::uint16_t version = kVersion, flags = 0;
  std::uint32_t header_bytes = 0, header_crc = 0;
  std::uint32_t from_node = 0, from_incarnation = 0;
  std::uint64_t sequence = 0, acknowledge = 0, payload_bytes = 0;
  std::uint32_t payload_crc = 0, to_incarnation = 0;
};
static_assert(sizeof(Prelude) == kPreludeSize && std::has_unique_object_representations_v<Prelude>);

Prelude load_prelude(const Frame& frame) {
  Prelude prelude;
  std::memcpy(&prelude, frame.header.data(), kPreludeSize);
  return prelude;
}

void store_prelude(Frame& frame, Prelude prelude, const LinkHeader& link) {
  prelude.from_node = link.from_node;
  prelude.from_incarnation = link.from_incarnation;
  prelude.to_incarnation = link.to_incarnation;
  prelude.sequence = link.sequence;
  prelude.acknowledge = link.acknowledge;
  prelude.header_crc = 0;
  std::memcpy(frame.header.data(), &prelude, kPreludeSize);
  // The field itself counts as zeros.
  prelude.header_crc = crc32c(0, frame.header);
  std::memcpy(frame.header.data(), &prelude, kPreludeSize);
}

std::uint32_t header_crc_of(const Frame& frame) {
  Prelude prelude = load_prelude(frame);
  prelude.header_crc = 0;
  const std::uint32_t crc = crc32c(0, std::as_bytes(std::span(&prelude, 1)));
  return crc32c(crc, std::span(frame.header).subspan(kPreludeSize));
}

std::size_t aligned(std::size_t offset) {
  return (offset + kPayloadAlignment - 1) / kPayloadAlignment * kPayloadAlignment;
}

template <typename T>
constexpr bool kIsVector = false;
template <typename T, typename Allocator>
constexpr bool kIsVector<std::vector<T, Allocator>> = true;

// Values of each enum that travels; a number past the last is refused.
template <typename E>
constexpr std::uint16_t kEnumValues = 0;
template <>
constexpr std::uint16_t kEnumValues<Role> = kRoles;
template <>
constexpr std::uint16_t kEnumValues<Channel> = kChannels;
template <>
constexpr std::uint16_t kEnumValues<WorkKind> = kWorkKinds;
template <>
constexpr std::uint16_t kEnumValues<Direction> = 2;
template <>
constexpr std::uint16_t kEnumValues<Verdict> = 3;

// Writes members into a wire struct, and payloads beside it.
class Writer {
 public:
  static constexpr bool kWrites = true;
  explicit Writer(Frame& frame) : frame_(frame) {}
  std::size_t payload_bytes() const { return payload_bytes_; }

  template <typename T, typename W, typename Get, typename Set, typename Init>
  void operator()(const T& value, W w, Get get, Set set, Init init) {
    if constexpr (std::is_same_v<T, Payload>) {
      set(w, value.size | (value && value.on_device ? kOnDevice : 0));
      append(value);
    } else if constexpr (std::is_same_v<T, std::string>) {
      set(w, kj::StringPtr(value.c_str(), value.size()));
    } else if constexpr (std::is_enum_v<T>) {
      set(w, static_cast<decltype(get(w))>(value));
    } else if constexpr (std::is_arithmetic_v<T>) {
      set(w, value);
    } else if constexpr (kIsVector<T>) {
      CHECK(value.size() <= kListMax, "a list of {} items is more than a message holds, {}", value.size(), kListMax);
      elements(value, init(w, static_cast<unsigned>(value.size())));
    } else {
      fields(*this, init(w), value);
    }
  }

 private:
  template <typename Vector, typename List>
  void elements(const Vector& values, List list) {
    for (unsigned i = 0; i < values.size(); ++i) {
      if constexpr (std::is_arithmetic_v<typename Vector::value_type>)
        list.set(i, values[i]);
      else
        fields(*this, list[i], values[i]);
    }
  }

  void append(const Payload& payload) {
    if (payload.size == 0) return;
    if (payload.on_device) return frame_.device.push_back(payload);
    static constexpr std::byte kZeros[kPayloadAlignment] = {};
    if (const std::size_t gap = aligned(payload_bytes_) - payload_bytes_; gap > 0) {
      // Owned by nobody and never written: a payload's pointer is only mutable for whoever makes it.
      frame_.payloads.push_back({.data = {std::shared_ptr<void>(), const_cast<std::byte*>(kZeros)}, .size = gap});
      payload_bytes_ += gap;
    }
    frame_.payloads.push_back(payload);
    payload_bytes_ += payload.size;
  }

  Frame& frame_;
  std::size_t payload_bytes_ = 0;
};

// Adds up payloads.
class Counter {
 public:
  static constexpr bool kWrites = true;
  template <typename T, typename W, typename... Accessors>
  void operator()(const T& value, W w, Accessors...) {
    if constexpr (std::is_same_v<T, Payload>)
      bytes += value.size;
    else if constexpr (std::is_class_v<T> && !std::is_same_v<T, std::string> && !kIsVector<T>)
      fields(*this, w, value);
  }
  std::uint64_t bytes = 0;
};

// Whether any payload is on the device.
class DeviceFinder {
 public:
  static constexpr bool kWrites = true;
  template <typename T, typename W, typename... Accessors>
  void operator()(const T& value, W w, Accessors...) {
    if constexpr (std::is_same_v<T, Payload>)
      found = found || (value && value.on_device);
    else if constexpr (std::is_class_v<T> && !std::is_same_v<T, std::string> && !kIsVector<T>)
      fields(*this, w, value);
  }
  bool found = false;
};

// Reads members back, and cuts the payloads out of the concatenation. The first thing wrong becomes the problem; what
// follows it is read all the same and thrown away.
class Reader {
 public:
  static constexpr bool kWrites = false;
  Reader(const Payload& whole, const FramePayloads& device) : whole_(whole), device_(device) {}

  template <typename T, typename W, typename Get, typename Set, typename Init>
  void operator()(T& value, W w, Get get, Set, Init) {
    if constexpr (std::is_same_v<T, Payload>) {
      cut(value, get(w));
    } else if constexpr (std::is_same_v<T, std::string>) {
      const auto text = get(w);
      value.assign(text.begin(), text.size());
    } else if constexpr (std::is_enum_v<T>) {
      const auto number = static_cast<std::uint16_t>(get(w));
      if (number < kEnumValues<T>)
        value = static_cast<T>(number);
      else
        fail("an enum holds {}, must be below {}", number, kEnumValues<T>);
    } else if constexpr (std::is_arithmetic_v<T>) {
      value = get(w);
    } else if constexpr (kIsVector<T>) {
      elements(value, get(w));
    } else {
      fields(*this, get(w), value);
    }
  }

  // Nonempty when something was wrong. Asked last: every payload byte must have found its owner.
  std::string problem() {
    if (offset_ != whole_.size) fail("the message accounts for {} payload bytes of {}", offset_, whole_.size);
    if (taken_ != device_.size())
      fail("the message accounts for {} payloads on the device of {}", taken_, device_.size());
    return problem_;
  }

 private:
  template <typename... Args>
  void fail(fmt::format_string<Args...> format, Args&&... args) {
    if (problem_.empty()) problem_ = fmt::format(format, std::forward<Args>(args)...);
  }

  template <typename Vector, typename List>
  void elements(Vector& values, List list) {
    if (list.size() > kListMax) return fail("a list of {} items, at most {} may travel", list.size(), kListMax);
    values.resize(list.size());
    for (unsigned i = 0; i < list.size(); ++i) {
      if constexpr (std::is_arithmetic_v<typename Vector::value_type>)
        values[i] = list[i];
      else
        fields(*this, list[i], values[i]);
    }
  }

  void take_device(Payload& payload, std::uint64_t size) {
    if (taken_ == device_.size() || size == 0 || device_[taken_].size != size || !device_[taken_].on_device)
      return fail("a payload of {} bytes on the device did not come", size);
    payload = device_[taken_++];
  }

  void cut(Payload& payload, std::uint64_t size) {
    if (size == 0) return;
    if ((size & kOnDevice) != 0) return take_device(payload, size & ~kOnDevice);
    const std::size_t begin = aligned(offset_);
    if (begin > whole_.size || size > whole_.size - begin)
      return fail("a payload of {} bytes at {} leaves the frame's {}", size, begin, whole_.size);
    payload = {.data = {whole_.data, whole_.data.get() + begin}, .size = size};
    offset_ = begin + size;
  }

  const Payload& whole_;
  const FramePayloads& device_;
  std::size_t offset_ = 0, taken_ = 0;
  std::string problem_;
};

// Arm<M>: the union member of wire::Envelope that carries M.
// clang-format off
template <typename M>
struct Arm;
#define ARM(Name, TAG)                                                                  \
  template <>                                                                           \
  struct Arm<Name> {                                                                    \
    static constexpr auto kTag = wire::Envelope::TAG;                                   \
    static auto init(wire::Envelope::Builder envelope) { return envelope.init##Name(); } \
    static auto get(wire::Envelope::Reader envelope) { return envelope.get##Name(); }    \
  };
ARM(Recover, RECOVER)
ARM(Inquiry, INQUIRY)
ARM(Standing, STANDING)
ARM(Restore, RESTORE)
ARM(Restored, RESTORED)
ARM(Fetch, FETCH)
ARM(ShadowGradient, SHADOW_GRADIENT)
ARM(GradientHeld, GRADIENT_HELD)
ARM(Stop, STOP)
ARM(Credit, CREDIT)
ARM(StartStep, START_STEP)
ARM(StartEvaluation, START_EVALUATION)
ARM(StepPlan, STEP_PLAN)
ARM(TokenBatch, TOKEN_BATCH)
ARM(Activations, ACTIVATIONS)
ARM(ActivationGradients, ACTIVATION_GRADIENTS)
ARM(ExpertBatch, EXPERT_BATCH)
ARM(ExpertResult, EXPERT_RESULT)
ARM(PartialSums, PARTIAL_SUMS)
ARM(SharedGradient, SHARED_GRADIENT)
ARM(SharedTensor, SHARED_TENSOR)
ARM(Vote, VOTE)
ARM(Decision, DECISION)
ARM(EvaluationLoss, EVALUATION_LOSS)
ARM(GenerateBatch, GENERATE_BATCH)
ARM(GenerateActivations, GENERATE_ACTIVATIONS)
ARM(Generated, GENERATED)
ARM(SnapshotPart, SNAPSHOT_PART)
ARM(SnapshotBegin, SNAPSHOT_BEGIN)
ARM(CheckpointDone, CHECKPOINT_DONE)
ARM(Report, REPORT)
ARM(WeightsDigest, WEIGHTS_DIGEST)
ARM(StartRollout, START_ROLLOUT)
ARM(SamplePrompts, SAMPLE_PROMPTS)
ARM(Sampled, SAMPLED)
ARM(Judged, JUDGED)
ARM(RolloutDone, ROLLOUT_DONE)
ARM(Scored, SCORED)
ARM(Pause, PAUSE)
ARM(ReducedSums, REDUCED_SUMS)
#undef ARM
// clang-format on

template <typename M>
constexpr bool kOnWire =
    !std::is_same_v<M, SegmentDone> && !std::is_same_v<M, DiskDone> && !std::is_same_v<M, JuryDone>;

void write_message(Writer& writer, wire::Envelope::Builder w, const Message& message) {
  std::visit(
      [&]<typename M>(const M& m) {
        if constexpr (kOnWire<M>)
          fields(writer, Arm<M>::init(w), m);
        else
          CHECK(false, "{} stays on its node, it was posted to another", kind_of(message));
      },
      message);
}

template <typename M>
bool read_arm(Reader& reader, wire::Envelope::Reader w, Message& message) {
  if constexpr (kOnWire<M>) {
    if (w.which() != Arm<M>::kTag) return false;
    fields(reader, Arm<M>::get(w), message.emplace<M>());
    return true;
  } else {
    return false;
  }
}

// Tries every kind in turn; false: a kind this version doesn't know.
template <std::size_t... kinds>
bool read_message(Reader& reader, wire::Envelope::Reader w, Message& message, std::index_sequence<kinds...>) {
  return (read_arm<std::variant_alternative_t<kinds, Message>>(reader, w, message) || ...);
}

// Of the envelope itself: role and index have no struct of their own on the wire.
template <typename D, typename W>
void outside(D& d, W w, Subject<D, Envelope> m) {
  d(
      m.from.role, w, [](auto s) { return s.getFromRole(); }, [](auto s, auto v) { s.setFromRole(v); }, nullptr);
  d(
      m.from.index, w, [](auto s) { return s.getFromIndex(); }, [](auto s, auto v) { s.setFromIndex(v); }, nullptr);
  d(
      m.to.role, w, [](auto s) { return s.getToRole(); }, [](auto s, auto v) { s.setToRole(v); }, nullptr);
  d(
      m.to.index, w, [](auto s) { return s.getToIndex(); }, [](auto s, auto v) { s.setToIndex(v); }, nullptr);
  d(
      m.id, w, [](auto s) { return s.getId(); }, [](auto s, auto v) { s.setId(v); }, nullptr);
  d(
      m.cause, w, [](auto s) { return s.getCause(); }, [](auto s, auto v) { s.setCause(v); }, nullptr);
  d(
      m.sent_us, w, [](auto s) { return s.getSentUs(); }, [](auto s, auto v) { s.setSentUs(v); }, nullptr);
}

void append_capnp(Frame& frame, capnp::MessageBuilder& builder) {
  const std::size_t size = capnp::computeSerializedSizeInWords(builder) * sizeof(capnp::word);
  CHECK(kPreludeSize + size <= kFrameHeaderMax, "a header of {} bytes is more than a frame holds", size);
  frame.header.resize(kPreludeSize + size);
  std::byte* const at = frame.header.data() + kPreludeSize;
  if (const auto segments = builder.getSegmentsForOutput(); segments.size() == 1) {
    // The usual one: a table of one segment (their number less one, its words), and the segment.
    const std::array<std::uint32_t, 2> table{0, static_cast<std::uint32_t>(segments[0].size())};
    std::memcpy(at, table.data(), sizeof table);
    std::memcpy(at + sizeof table, segments[0].begin(), size - sizeof table);
    return;
  }
  kj::ArrayOutputStream out(kj::arrayPtr(reinterpret_cast<kj::byte*>(at), size));
  capnp::writeMessage(out, builder);
}

// What the prelude says of itself and of the frame's sizes; empty: all is well.
std::string problem_of_prelude(const Frame& frame) {
  if (frame.header.size() < kPreludeSize) return fmt::format("a header of {} bytes is cut short", frame.header.size());
  const Prelude prelude = load_prelude(frame);
  if (prelude.magic != kMagic) return fmt::format("magic is {:#x}, this is no frame of ours", prelude.magic);
  if (prelude.version != kVersion)
    return fmt::format("protocol version {}, this program speaks {}: use one build everywhere", prelude.version,
                       kVersion);
  if (prelude.header_bytes != frame.header.size() || frame.header.size() > kFrameHeaderMax)
    return fmt::format("a header of {} bytes says {}", frame.header.size(), prelude.header_bytes);
  if (prelude.header_crc != header_crc_of(frame)) return "the header's checksum is wrong";
  if (frame.payloads.size() > 1) return "payloads arrive in pieces, the transport must concatenate them";
  const std::size_t payload_bytes = frame.payloads.empty() ? 0 : frame.payloads[0].size;
  if (prelude.payload_bytes != payload_bytes)
    return fmt::format("a payload of {} bytes arrived, {} were sent", payload_bytes, prelude.payload_bytes);
  const bool bare = frame.header.size() == kPreludeSize;
  if (bare && (payload_bytes > 0 || !frame.device.empty())) return "an acknowledgement carries a payload";
  if (!bare && prelude.sequence == 0) return "a message has no number";
  if (frame.header.size() % sizeof(capnp::word) != 0) return "the message is not whole words";
  return {};
}

std::string problem_of_payload(const Prelude& prelude, const Payload& whole) {
  if ((prelude.flags & kPayloadChecksumFlag) == 0 || mutant(Mutant::damage_accepted)) return {};
  if (crc32c(0, std::span(whole.data.get(), whole.size)) != prelude.payload_crc)
    return "the payload's checksum is wrong";
  return {};
}

std::string read_root(wire::Envelope::Reader root, const Payload& whole, const FramePayloads& device,
                      Envelope& envelope) {
  Reader reader(whole, device);
  outside(reader, root, envelope);
  if (!read_message(reader, root, envelope.message, std::make_index_sequence<std::variant_size_v<Message>>{}))
    return "a kind of message that this program doesn't know: use one build everywhere";
  return reader.problem();
}

// The words are aligned: a vector's storage is aligned to 16, and the prelude is 7 words long.
std::string read_envelope(const Frame& frame, const Payload& whole, Envelope& envelope) {
  const auto words = kj::arrayPtr(reinterpret_cast<const capnp::word*>(frame.header.data() + kPreludeSize),
                                  (frame.header.size() - kPreludeSize) / sizeof(capnp::word));
  const capnp::ReaderOptions limits{.traversalLimitInWords = kTraversalFactor * words.size(), .nestingLimit = 16};
  try {
    capnp::FlatArrayMessageReader message(words, limits);
    if (message.getEnd() != words.end()) return "bytes follow the message";
    return read_root(message.getRoot<wire::Envelope>(), whole, frame.device, envelope);
  } catch (const kj::Exception& e) {
    return fmt::format("the message is malformed: {}", e.getDescription().cStr());
  }
}

}  // namespace

std::uint64_t payload_bytes(const Message& message) {
  Counter counter;
  std::visit(
      [&]<typename M>(const M& m) {
        if constexpr (requires { Arm<M>::kTag; }) fields(counter, nullptr, m);
      },
      message);
  return counter.bytes;
}

bool is_on_device(const Message& message) {
  DeviceFinder finder;
  std::visit(
      [&]<typename M>(const M& m) {
        if constexpr (requires { Arm<M>::kTag; }) fields(finder, nullptr, m);
      },
      message);
  return finder.found;
}

Frame encode(const Envelope& envelope, const LinkHeader& link, bool payload_checksum) {
  CHECK(link.sequence > 0, "a {} needs a number, they begin with 1", kind_of(envelope.message));
  Frame frame;
  capnp::word scratch[128] = {};  // larger messages go on to the heap
  capnp::MallocMessageBuilder builder(kj::ArrayPtr<capnp::word>(scratch, 128));
  auto root = builder.initRoot<wire::Envelope>();
  Writer writer(frame);
  outside(writer, root, envelope);
  write_message(writer, root, envelope.message);
  append_capnp(frame, builder);
  Prelude prelude{.header_bytes = static_cast<std::uint32_t>(frame.header.size()),
                  .payload_bytes = writer.payload_bytes()};
  CHECK(prelude.payload_bytes <= kFramePayloadMax, "a {} of {} bytes is more than a frame holds, cut it in parts",
        kind_of(envelope.message), prelude.payload_bytes);
  CHECK(frame.device.size() <= kFrameDeviceMax, "a {} of {} payloads on the device", kind_of(envelope.message),
        frame.device.size());
  if (payload_checksum && prelude.payload_bytes > 0) {
    prelude.flags |= kPayloadChecksumFlag;
    for (const Payload& piece : frame.payloads)
      prelude.payload_crc = crc32c(prelude.payload_crc, std::span(piece.data.get(), piece.size));
  }
  store_prelude(frame, prelude, link);
  return frame;
}

Frame encode_acknowledgement(const LinkHeader& link) {
  Frame frame;
  frame.header.resize(kPreludeSize);
  store_prelude(frame, Prelude{.header_bytes = kPreludeSize}, link);
  return frame;
}

void restamp(Frame& frame, const LinkHeader& link) {
  CHECK(frame.header.size() >= kPreludeSize, "only an encoded frame can be stamped");
  store_prelude(frame, load_prelude(frame), link);
}

std::optional<DecodedFrame> decode(const Frame& frame, std::string& problem) {
  problem = problem_of_prelude(frame);
  if (!problem.empty()) return std::nullopt;
  const Prelude prelude = load_prelude(frame);
  std::optional<DecodedFrame> decoded(std::in_place);
  decoded->link = {.from_node = prelude.from_node,
                   .from_incarnation = prelude.from_incarnation,
                   .to_incarnation = prelude.to_incarnation,
                   .sequence = prelude.sequence,
                   .acknowledge = prelude.acknowledge};
  if (frame.header.size() == kPreludeSize) return decoded;
  const Payload nothing;
  const Payload& whole = frame.payloads.empty() ? nothing : frame.payloads[0];
  problem = problem_of_payload(prelude, whole);
  if (problem.empty()) problem = read_envelope(frame, whole, decoded->envelope.emplace());
  if (!problem.empty()) return std::nullopt;
  return decoded;
}

template <typename M>
bool brings(const Frame& frame) {
  if (frame.header.size() <= kPreludeSize) return false;
  const auto words = kj::arrayPtr(reinterpret_cast<const capnp::word*>(frame.header.data() + kPreludeSize),
                                  (frame.header.size() - kPreludeSize) / sizeof(capnp::word));
  capnp::FlatArrayMessageReader message(words);
  return message.getRoot<wire::Envelope>().which() == Arm<M>::kTag;
}
template bool brings<PartialSums>(const Frame& frame);
template bool brings<ReducedSums>(const Frame& frame);
template bool brings<ShadowGradient>(const Frame& frame);

std::optional<Envelope> envelope_from_json(const std::string& text, std::string& problem) {
  Envelope envelope;
  try {
    capnp::MallocMessageBuilder builder;
    auto root = builder.initRoot<wire::Envelope>();
    capnp::JsonCodec json;
    json.setRejectUnknownFields(true);
    json.decode(kj::arrayPtr(text.data(), text.size()), root);
    problem = read_root(root.asReader(), Payload{}, {}, envelope);
  } catch (const kj::Exception& e) {
    problem = fmt::format("it is no Envelope of messages/schema.capnp as JSON: {}", e.getDescription().cStr());
  }
  if (!problem.empty()) return std::nullopt;
  return envelope;
}

}  // namespace troupe
