#include "kernels/cuda/stager.h"

#include <algorithm>
#include <utility>

namespace troupe::cuda {

namespace {

bool has_come(cudaEvent_t event, const char* what) {
  if (event == nullptr) return true;
  const cudaError_t state = cudaEventQuery(event);
  if (state == cudaErrorNotReady) return false;
  must(state, what);
  return true;
}

cudaStream_t new_stream() {
  cudaStream_t stream = nullptr;
  must(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making a stream for copies");
  return stream;
}

}  // namespace

void PinnedMemory::add(const void* data, std::size_t size) {
  const auto begin = reinterpret_cast<std::uintptr_t>(data);
  const std::lock_guard lock(mutex_);
  ends_[begin] = begin + size;
}

void PinnedMemory::remove(const void* data) {
  const std::lock_guard lock(mutex_);
  ends_.erase(reinterpret_cast<std::uintptr_t>(data));
}

Stretch PinnedMemory::at(std::uintptr_t address) const {
  const std::lock_guard lock(mutex_);
  const auto after = ends_.upper_bound(address);
  if (after == ends_.begin()) return {};
  const auto& [begin, end] = *std::prev(after);
  return address < end ? Stretch{begin, end} : Stretch{};
}

std::size_t Room::take(std::size_t size) {
  size = (std::max<std::size_t>(size, 1) + kPiece - 1) / kPiece * kPiece;
  const auto fits = std::find_if(free_.begin(), free_.end(), [size](const auto& one) { return one.second >= size; });
  if (fits == free_.end()) return kNone;
  const auto [begin, whole] = *fits;
  free_.erase(fits);
  if (whole > size) free_[begin + size] = whole - size;
  taken_[begin] = size;
  return begin;
}

void Room::give_back(std::size_t begin) {
  const auto taken = taken_.find(begin);
  CHECK(taken != taken_.end(), "staging memory at {} is given back, but nobody has it", begin);
  std::size_t size = taken->second;
  taken_.erase(taken);
  auto next = free_.lower_bound(begin);
  if (next != free_.end() && begin + size == next->first) {
    size += next->second;
    next = free_.erase(next);
  }
  if (next != free_.begin() && std::prev(next)->first + std::prev(next)->second == begin)
    std::prev(next)->second += size;
  else
    free_[begin] = size;
}

Stager::Stager(std::size_t bytes, std::size_t least, std::shared_ptr<const PinnedMemory> pinned)
    : least_(least), pinned_(std::move(pinned)), room_(bytes) {
  void* memory = nullptr;
  if (const cudaError_t result = cudaMalloc(&memory, bytes); result != cudaSuccess)
    throw Error(
        "can't allocate {} bytes of the GPU's memory for staging: {}; lower the memory that the plan shows, or set "
        "device.staged_kib_min = 0, which does without",
        bytes, cudaGetErrorString(result));
  memory_ = static_cast<char*>(memory);
  in_ = new_stream();
  out_ = new_stream();
}

Stager::~Stager() {
  for (const cudaEvent_t event : events_) cudaEventDestroy(event);
  cudaStreamDestroy(in_);
  cudaStreamDestroy(out_);
  cudaFree(memory_);
}

cudaEvent_t Stager::take_event() {
  cudaEvent_t event = nullptr;
  if (events_.empty()) {
    must(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "making an event");
    return event;
  }
  event = events_.back();
  events_.pop_back();
  return event;
}

// What stands at the same place within 256 bytes is for every kernel aligned as it was: it goes the same way.
Copies Stager::begin(std::vector<Segment>& segments, const std::vector<const Op*>& ops) {
  Copies copies;
  for (Staged& staged : choose_staged(
           ops, [this](std::uintptr_t address) { return pinned_->at(address); }, least_)) {
    const std::size_t past = staged.place.begin % Room::kPiece;
    const std::size_t begin = room_.take(past + staged.place.size());
    if (begin == Room::kNone) continue;
    char* const at = memory_ + begin + past;
    for (Segment& segment : segments)
      for (Op& op : segment.ops) move_operands(op, staged.place, at);
    for (const Stretch& one : staged.in)
      must(cudaMemcpyAsync(at + (one.begin - staged.place.begin), reinterpret_cast<const void*>(one.begin), one.size(),
                           cudaMemcpyHostToDevice, in_),
           "a copy in");
    copies.all.push_back({std::move(staged), begin, at});
  }
  if (std::any_of(copies.all.begin(), copies.all.end(), [](const auto& one) { return !one.staged.in.empty(); })) {
    copies.in = take_event();
    must(cudaEventRecord(copies.in, in_), "recording an event");
  }
  return copies;
}

bool Stager::have_come(const Copies& copies) { return has_come(copies.in, "copies in"); }

void Stager::send(Copies& copies, cudaEvent_t over) {
  for (const auto& [staged, begin, at] : copies.all)
    for (const Stretch& one : staged.out) {
      if (copies.out == nullptr) {
        copies.out = take_event();
        must(cudaStreamWaitEvent(out_, over, 0), "waiting for a segment's kernels");
      }
      must(cudaMemcpyAsync(reinterpret_cast<void*>(one.begin), at + (one.begin - staged.place.begin), one.size(),
                           cudaMemcpyDeviceToHost, out_),
           "a copy out");
    }
  if (copies.out != nullptr) must(cudaEventRecord(copies.out, out_), "recording an event");
}

bool Stager::have_gone(const Copies& copies) { return has_come(copies.out, "copies out"); }

void Stager::end(Copies& copies) {
  for (const Copies::One& one : copies.all) room_.give_back(one.begin);
  if (copies.in != nullptr) events_.push_back(copies.in);
  if (copies.out != nullptr) events_.push_back(copies.out);
  copies = {};
}

}  // namespace troupe::cuda
