// Payload: bytes that travel beside a message's header, never copied between actors of one process. Frozen once sent.
// Pool buffers are page-aligned, reused by size class, and return to the pool when the last reference goes. They are shared
// memory, which actors, transports and a device's ops read and write, or the device's, which ops alone touch, and
// transports that carry it (Transport::carries_device_memory): a device may have a say where either comes from.
#pragma once

#include <cstddef>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

namespace troupe {

struct Payload {
  std::shared_ptr<std::byte> data;
  std::size_t size = 0;
  bool on_device = false;  // in memory that ops alone touch: nobody else reads or writes it
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data.get());
  }
  explicit operator bool() const { return size > 0; }
};

class PayloadPool {
 public:
  static constexpr std::size_t kPage = 4096;  // what a buffer takes is a multiple
  // Page-aligned memory of this size, given back with its last reference; null: there is no more.
  using Source = std::function<std::shared_ptr<std::byte>(std::size_t size)>;
  static std::shared_ptr<std::byte> process_memory(std::size_t size);
  // on_device: of the payloads.
  explicit PayloadPool(Source source = process_memory, bool on_device = false);
  // At least `size` bytes, contents undefined. Buffers may outlive the pool object. Thread-safe.
  Payload take(std::size_t size);
  std::size_t bytes_in_use() const;
  std::size_t bytes_peak() const;
  std::size_t asked_peak() const;  // without the rounding to size classes

 private:
  struct Shelves;
  std::shared_ptr<Shelves> shelves_;
  bool on_device_;
};

template <typename T>
Payload to_payload(PayloadPool& pool, const std::vector<T>& values) {
  Payload payload = pool.take(values.size() * sizeof(T));
  if (!values.empty()) std::memcpy(payload.data.get(), values.data(), payload.size);
  return payload;
}

template <typename T>
std::vector<T> to_vector(const Payload& payload) {
  return {payload.as<T>(), payload.as<T>() + payload.size / sizeof(T)};
}

// Where a payload may begin within a frame: at a multiple of this.
constexpr std::size_t kPayloadAlignment = 64;

// The pieces one after another, `room` bytes (contents undefined) before them, aligned; a lone aligned piece is not
// copied. REQUIRES: none of them is on the device.
Payload concatenate(std::span<const Payload> pieces, PayloadPool& pool, std::size_t room = 0);

}  // namespace troupe
