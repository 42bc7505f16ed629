#include "tests/support/guarded_device.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "kernels/op_tensors.h"

namespace troupe::test {

namespace {

constexpr std::size_t kPage = 4096;

char* map(int fd, std::size_t size, int protection) {
  void* data = ::mmap(nullptr, size, protection, MAP_SHARED, fd, 0);
  CHECK(data != MAP_FAILED, "no mapping of {} bytes", size);
  return static_cast<char*>(data);
}

}  // namespace

struct GuardedDevice::Mappings {
  struct Mapping {
    std::size_t size = 0;
    char* writable = nullptr;
  };
  std::map<const char*, Mapping> all;  // by where it was handed out

  void* writable(void* data) const {
    const auto* at = static_cast<const char*>(data);
    auto found = all.upper_bound(at);
    if (found == all.begin()) return data;
    --found;
    const auto offset = static_cast<std::size_t>(at - found->first);
    return offset < found->second.size ? found->second.writable + offset : data;
  }
};

GuardedDevice::GuardedDevice(Device& own) : own_(own), mappings_(std::make_shared<Mappings>()) {}

Memory GuardedDevice::allocate(std::size_t size, Place place) {
  if (place == Place::shared) return own_.allocate(size, place);
  const std::size_t padded = std::max(kPage, (size + kPage - 1) / kPage * kPage);
  const int fd = ::memfd_create("guarded", MFD_CLOEXEC);
  CHECK(fd >= 0 && ::ftruncate(fd, static_cast<off_t>(padded)) == 0, "no memory of {} bytes", padded);
  char* const handed_out = map(fd, padded, PROT_NONE);
  char* const writable = map(fd, padded, PROT_READ | PROT_WRITE);
  ::close(fd);
  mappings_->all[handed_out] = {padded, writable};
  const auto give_back = [mappings = mappings_, padded, writable](void* memory) {
    mappings->all.erase(static_cast<char*>(memory));
    ::munmap(memory, padded);
    ::munmap(writable, padded);
  };
  return {std::shared_ptr<void>(handed_out, give_back), handed_out, size};
}

void GuardedDevice::submit(Segment segment) {
  for (Op& op : segment.ops)
    for_each_tensor(op, [this](Tensor& tensor) {
      if (tensor) tensor.data = mappings_->writable(tensor.data);
    });
  own_.submit(std::move(segment));
}

GuardedTogether guarded_together() {
  const auto mappings = std::make_shared<GuardedDevice::Mappings>();
  const auto copied = std::make_shared<std::size_t>(0);
  const auto front = [mappings](Device& own) { return std::make_unique<GuardedDevice>(own, mappings); };
  const auto copy = [mappings, copied](std::byte* to, const std::byte* from, std::size_t size) {
    std::memcpy(mappings->writable(to), mappings->writable(const_cast<std::byte*>(from)), size);
    *copied += size;
  };
  return {front, copy, copied};
}

std::unique_ptr<Device> guarded(Device& own) { return std::make_unique<GuardedDevice>(own); }

}  // namespace troupe::test
