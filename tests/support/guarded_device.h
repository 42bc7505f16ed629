// GuardedDevice: a device whose memory nobody but ops can touch, as a GPU's is. Memory of Place::device is mapped twice:
// where it is handed out nobody may read or write, and ops are given the other mapping. The law: a handler that touches
// device memory dies of SIGSEGV, and everything else is as without the guard.
#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "kernels/device.h"

namespace troupe::test {

class GuardedDevice final : public Device {
 public:
  struct Mappings;
  explicit GuardedDevice(Device& own);
  GuardedDevice(Device& own, std::shared_ptr<Mappings> mappings) : own_(own), mappings_(std::move(mappings)) {}

  Memory allocate(std::size_t size, Place place) override;
  void submit(Segment segment) override;
  void take_completions(std::vector<Completion>& out) override { own_.take_completions(out); }
  int completion_fd() const override { return own_.completion_fd(); }
  std::size_t pending() const override { return own_.pending(); }
  bool hurries() const override { return own_.hurries(); }
  Usage usage(std::int64_t now_us) const override { return own_.usage(now_us); }

 private:
  Device& own_;
  std::shared_ptr<Mappings> mappings_;  // memory may outlive the device
};

// For WorldOptions and SimWorldOptions.
std::unique_ptr<Device> guarded(Device& own);

// Guards of several devices, and what copies between their memories; `copied` counts bytes.
struct GuardedTogether {
  std::function<std::unique_ptr<Device>(Device& own)> front;
  std::function<void(std::byte* to, const std::byte* from, std::size_t size)> copy;
  std::shared_ptr<std::size_t> copied;
};
GuardedTogether guarded_together();

}  // namespace troupe::test
