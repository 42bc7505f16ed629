// Random messages from a seed, and whether two are the same bit for bit. Both walk a struct's members as the compiler
// sees them, so a member added to message.h is drawn and compared at once, and a codec that forgets it is caught.
#pragma once

#include <bit>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#include "kernels/base/random.h"
#include "messages/message.h"
#include "messages/transport.h"

namespace troupe {

// The kinds that travel come first in `Message`; SegmentDone, DiskDone and JuryDone stay on their node.
constexpr std::size_t kWireKinds = std::variant_size_v<Message> - 3;

// ---- The members of an aggregate ------------------------------------------------------------------------------------
struct Anything {
  template <typename T>
  operator T() const;
};
template <typename T, std::size_t... i>
constexpr bool takes_members(std::index_sequence<i...>) {
  return requires { T{(static_cast<void>(i), Anything{})...}; };
}
template <typename T, std::size_t count = 18>
constexpr std::size_t members_count() {
  if constexpr (takes_members<T>(std::make_index_sequence<count>{}))
    return count;
  else
    return members_count<T, count - 1>();
}

// References to the members, as a tuple.
// clang-format off: one line for each number of members.
template <typename T>
auto members_of(T& m) {
  constexpr std::size_t count = members_count<std::remove_const_t<T>>();
  static_assert(count >= 1 && count <= 17, "a message of more members: add a line below");
  if constexpr (count == 1) {
    auto& [a] = m;
    return std::tie(a);
  } else if constexpr (count == 2) {
    auto& [a, b] = m;
    return std::tie(a, b);
  } else if constexpr (count == 3) {
    auto& [a, b, c] = m;
    return std::tie(a, b, c);
  } else if constexpr (count == 4) {
    auto& [a, b, c, d] = m;
    return std::tie(a, b, c, d);
  } else if constexpr (count == 5) {
    auto& [a, b, c, d, e] = m;
    return std::tie(a, b, c, d, e);
  } else if constexpr (count == 6) {
    auto& [a, b, c, d, e, f] = m;
    return std::tie(a, b, c, d, e, f);
  } else if constexpr (count == 7) {
    auto& [a, b, c, d, e, f, g] = m;
    return std::tie(a, b, c, d, e, f, g);
  } else if constexpr (count == 8) {
    auto& [a, b, c, d, e, f, g, h] = m;
    return std::tie(a, b, c, d, e, f, g, h);
  } else if constexpr (count == 9) {
    auto& [a, b, c, d, e, f, g, h, i] = m;
    return std::tie(a, b, c, d, e, f, g, h, i);
  } else if constexpr (count == 10) {
    auto& [a, b, c, d, e, f, g, h, i, j] = m;
    return std::tie(a, b, c, d, e, f, g, h, i, j);
  } else if constexpr (count == 11) {
    auto& [a, b, c, d, e, f, g, h, i, j, k] = m;
    return std::tie(a, b, c, d, e, f, g, h, i, j, k);
  } else if constexpr (count == 12) {
    auto& [a, b, c, d, e, f, g, h, i, j, k, l] = m;
    return std::tie(a, b, c, d, e, f, g, h, i, j, k, l);
  } else if constexpr (count == 13) {
    auto& [a, b, c, d, e, f, g, h, i, j, k, l, n] = m;
    return std::tie(a, b, c, d, e, f, g, h, i, j, k, l, n);
  } else if constexpr (count == 14) {
    auto& [a, b, c, d, e, f, g, h, i, j, k, l, n, o] = m;
    return std::tie(a, b, c, d, e, f, g, h, i, j, k, l, n, o);
  } else if constexpr (count == 15) {
    auto& [a, b, c, d, e, f, g, h, i, j, k, l, n, o, p] = m;
    return std::tie(a, b, c, d, e, f, g, h, i, j, k, l, n, o, p);
  } else if constexpr (count == 16) {
    auto& [a, b, c, d, e, f, g, h, i, j, k, l, n, o, p, q] = m;
    return std::tie(a, b, c, d, e, f, g, h, i, j, k, l, n, o, p, q);
  } else if constexpr (count == 17) {
    auto& [a, b, c, d, e, f, g, h, i, j, k, l, n, o, p, q, r] = m;
    return std::tie(a, b, c, d, e, f, g, h, i, j, k, l, n, o, p, q, r);
  }
}
// clang-format on

template <typename T>
constexpr bool kIsList = false;
template <typename T, typename Allocator>
constexpr bool kIsList<std::vector<T, Allocator>> = true;

// ---- Drawing --------------------------------------------------------------------------------------------------------
class MessageDraw {
 public:
  // device_share: of the payloads in messages, that say that they are on the device.
  explicit MessageDraw(std::uint64_t seed, std::size_t payload_max = 3000, double device_share = 0)
      : key_(random_key(seed, "random message")), payload_max_(payload_max), device_share_(device_share) {}

  std::uint64_t word() { return random_word(key_, next_++); }
  std::uint64_t below(std::uint64_t bound) { return random_below(bound, key_, next_++); }

  Envelope envelope(std::size_t kind) {
    Envelope drawn{.from = {}, .to = {}, .message = {}};
    fill(drawn.from);
    fill(drawn.to);
    emplace(drawn.message, kind, std::make_index_sequence<kWireKinds>{});
    return drawn;
  }

  Payload payload(std::size_t size) {
    Payload drawn = pool_.take(size);
    const std::uint64_t contents = word();
    for (std::size_t at = 0; at < size; at += sizeof contents) {
      const std::uint64_t mixed = (contents + at) * 0x9E3779B97F4A7C15u;
      std::memcpy(drawn.data.get() + at, &mixed, std::min(sizeof mixed, size - at));
    }
    return drawn;
  }

 private:
  template <std::size_t... i>
  void emplace(Message& message, std::size_t kind, std::index_sequence<i...>) {
    ((i == kind ? fill(message.emplace<i>()) : void()), ...);
  }

  void fill(Role& role) { role = static_cast<Role>(below(kRoles)); }
  void fill(Channel& channel) { channel = static_cast<Channel>(below(kChannels)); }
  void fill(WorkKind& kind) { kind = static_cast<WorkKind>(below(kWorkKinds)); }
  void fill(Direction& direction) { direction = static_cast<Direction>(below(2)); }
  void fill(Verdict& verdict) { verdict = static_cast<Verdict>(below(3)); }
  void fill(bool& flag) { flag = below(2) == 1; }
  // Any bits: every kind of NaN among them.
  void fill(float& number) { number = std::bit_cast<float>(static_cast<std::uint32_t>(word())); }
  void fill(double& number) { number = std::bit_cast<double>(below(8) == 0 ? word() | 0x7FF0000000000001u : word()); }
  void fill(std::string& text) {
    text.resize(below(40));
    for (char& c : text) c = static_cast<char>(below(256));
  }
  // Sizes spread over the powers of two, so that every path of a transport is taken.
  void fill(Payload& drawn) {
    drawn = payload(below(4) == 0 ? 0 : below((payload_max_ >> below(20)) + 1));
    drawn.on_device = device_share_ > 0 && random_uniform(key_, next_++) < device_share_;
  }

  template <typename T>
  void fill(T& value) {
    if constexpr (std::is_integral_v<T>) {
      value = static_cast<T>(word());
    } else if constexpr (kIsList<T>) {
      value.resize(below(12));
      for (auto& item : value) fill(item);
    } else {
      std::apply([this](auto&... member) { (this->fill(member), ...); }, members_of(value));
    }
  }

  const std::uint64_t key_;
  const std::size_t payload_max_;
  const double device_share_;
  std::uint64_t next_ = 0;
  PayloadPool pool_;
};

// ---- Comparing ------------------------------------------------------------------------------------------------------
template <typename T>
bool same(const T& a, const T& b) {
  if constexpr (std::is_same_v<T, Payload>) {
    if (a.size != b.size || a.size == 0) return a.size == b.size;
    return a.on_device == b.on_device && std::memcmp(a.data.get(), b.data.get(), a.size) == 0;
  } else if constexpr (std::is_floating_point_v<T>) {
    using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
    return std::bit_cast<Bits>(a) == std::bit_cast<Bits>(b);
  } else if constexpr (std::is_arithmetic_v<T> || std::is_enum_v<T> || std::is_same_v<T, std::string>) {
    return a == b;
  } else if constexpr (kIsList<T>) {
    if (a.size() != b.size()) return false;
    for (std::size_t i = 0; i < a.size(); ++i)
      if (!same(a[i], b[i])) return false;
    return true;
  } else {
    return [&]<std::size_t... i>(auto left, auto right, std::index_sequence<i...>) {
      return (same(std::get<i>(left), std::get<i>(right)) && ...);
    }
    (members_of(a), members_of(b), std::make_index_sequence<members_count<T>()>{});
  }
}

inline bool same_envelope(const Envelope& a, const Envelope& b) {
  if (a.from != b.from || a.to != b.to || a.message.index() != b.message.index()) return false;
  return std::visit([&]<typename M>(const M& m) { return same(m, std::get<M>(b.message)); }, a.message);
}

// The frame as it arrives in another process: its payloads concatenated in memory of their own, those on the device as
// they are.
inline Frame as_received(const Frame& sent, PayloadPool& pool) {
  Frame frame{.header = sent.header, .payloads = {}, .device = sent.device};
  const Payload whole = concatenate(sent.payloads, pool);
  if (whole.size == 0) return frame;
  frame.payloads.push_back(pool.take(whole.size));
  std::memcpy(frame.payloads[0].data.get(), whole.data.get(), whole.size);
  return frame;
}

}  // namespace troupe
