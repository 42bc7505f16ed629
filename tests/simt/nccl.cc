// NCCL between processes whose GPUs aren't there: a communicator of two ranks is a socket, and a group of sends or receives
// is work on its stream that moves bytes through it. NCCL's rules are held: what one end sends the other receives, in that
// order and of that size; a communicator is ready when both ends have opened it, each on a GPU of its own; what was asked
// for in a group is on the stream only when the communicator says that it is no longer in progress; and an end whose peer
// is gone waits for ever, until it is aborted.
#include "kernels/cuda/nccl.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace {

constexpr int kAskedUntilIssued = 3;

struct Piece {
  void* data;
  std::size_t size;
};

// A group of one communicator.
struct Group {
  bool sends = false;
  std::vector<Piece> pieces;
  cudaStream_t stream = nullptr;
};

}  // namespace

struct ncclComm {
  int rank = 0, gpu = 0;
  std::string name;
  std::thread opener;
  int socket = -1;  // when it is ready
  std::atomic<bool> aborted = false;
  std::atomic<ncclResult_t> result = ncclInProgress;
  std::vector<Group> asked;  // to be put on the stream
  int asked_for = 0;
  std::mutex running;  // held by what runs on the stream

  // Whether the socket may be read or written now; false: aborted.
  bool wait_for(int fd, short what) const {
    while (!aborted) {
      pollfd one{fd, what, 0};
      if (::poll(&one, 1, 1) == 1 && (one.revents & what) != 0) return true;
    }
    return false;
  }
  bool put(const void* data, std::size_t size) const {
    for (const char* at = static_cast<const char*>(data); size > 0;) {
      if (!wait_for(socket, POLLOUT)) return false;
      const ssize_t done = ::send(socket, at, size, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (done > 0) at += done, size -= static_cast<std::size_t>(done);
    }
    return true;
  }
  bool get(void* data, std::size_t size) const {
    for (char* at = static_cast<char*>(data); size > 0;) {
      if (!wait_for(socket, POLLIN)) return false;
      const ssize_t done = ::recv(socket, at, size, MSG_DONTWAIT);
      if (done > 0) at += done, size -= static_cast<std::size_t>(done);
      if (done == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));  // a dead peer says nothing
    }
    return true;
  }

  void open();
  void run(const Group& group);
  void fail(const char* why) {
    std::fprintf(stderr, "nccl: rank %d: %s\n", rank, why);
    result = ncclInvalidUsage;
  }
};

namespace {

sockaddr_un address_of(const std::string& name, socklen_t& size) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path + 1, name.data(), name.size());  // in the abstract namespace: nothing stays behind
  size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  return address;
}

thread_local int groups_open = 0;
thread_local std::vector<std::pair<ncclComm*, Group>> group;

ncclResult_t add(ncclComm* communicator, bool sends, void* data, std::size_t count, int peer, cudaStream_t stream) {
  if (groups_open != 1 || communicator == nullptr || count == 0 || data == nullptr) return ncclInvalidArgument;
  if (peer != 1 - communicator->rank || communicator->result != ncclSuccess) return ncclInvalidUsage;
  if (group.empty() || group.back().first != communicator || group.back().second.sends != sends)
    group.push_back({communicator, {sends, {}, stream}});
  group.back().second.pieces.push_back({data, count});
  return ncclSuccess;
}

}  // namespace

// Rank 0 listens, rank 1 comes.
void ncclComm::open() {
  socklen_t size = 0;
  const sockaddr_un address = address_of(name, size);
  const auto* const at = reinterpret_cast<const sockaddr*>(&address);
  int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (rank == 0) {
    const int listener = std::exchange(fd, -1);
    if (::bind(listener, at, size) != 0 || ::listen(listener, 1) != 0) fail("its name is taken");
    if (wait_for(listener, POLLIN)) fd = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    ::close(listener);
  } else {
    while (!aborted && ::connect(fd, at, size) != 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  socket = fd;
  int other = -1;
  if (fd < 0 || !put(&gpu, sizeof gpu) || !get(&other, sizeof other)) return;
  if (other == gpu) return fail("both ranks are on one GPU");
  result = ncclSuccess;
}

// The sender waits for the receiver, as its kernel does.
void ncclComm::run(const Group& one) {
  const std::lock_guard lock(running);
  for (const Piece& piece : one.pieces) {
    std::size_t theirs = 0;
    if (!put(&piece.size, sizeof piece.size) || !get(&theirs, sizeof theirs)) return;
    if (theirs != piece.size) return fail("a send and a receive of different sizes");
    if (!(one.sends ? put(piece.data, piece.size) : get(piece.data, piece.size))) return;
  }
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  static std::atomic<int> made = 0;
  *id = {};
  std::snprintf(id->internal, sizeof id->internal, "troupe-nccl-%d-%d", static_cast<int>(::getpid()), ++made);
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* communicator, int ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  if (ranks != 2 || rank < 0 || rank > 1 || config->blocking != 0 || config->minCTAs > config->maxCTAs)
    return ncclInvalidArgument;
  auto* const made = new ncclComm;
  made->rank = rank;
  made->name = id.internal;
  cudaGetDevice(&made->gpu);
  made->opener = std::thread([made] { made->open(); });
  *communicator = made;
  return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t communicator, ncclResult_t* result) {
  *result = communicator->result;
  if (*result != ncclSuccess || communicator->asked.empty()) return ncclSuccess;
  *result = ncclInProgress;
  if (++communicator->asked_for < kAskedUntilIssued) return ncclSuccess;
  communicator->asked_for = 0;
  for (Group& one : std::exchange(communicator->asked, {}))
    simt::enqueue(one.stream, [communicator, one] { communicator->run(one); });
  *result = ncclSuccess;
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t communicator) {
  communicator->aborted = true;
  communicator->opener.join();
  const std::lock_guard lock(communicator->running);
  if (communicator->socket >= 0) ::close(std::exchange(communicator->socket, -1));
  return ncclSuccess;  // what is on the stream still finds it aborted: it stays
}

ncclResult_t ncclGroupStart() {
  ++groups_open;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  if (groups_open != 1) return ncclInvalidUsage;
  groups_open = 0;
  for (auto& [communicator, one] : std::exchange(group, {})) {
    if (!communicator->asked.empty()) return ncclInvalidUsage;  // the one before is in progress
    communicator->asked.push_back(std::move(one));
  }
  return ncclInProgress;
}

ncclResult_t ncclSend(const void* data, std::size_t count, ncclDataType_t, int peer, ncclComm_t communicator,
                      cudaStream_t stream) {
  return add(communicator, true, const_cast<void*>(data), count, peer, stream);
}
ncclResult_t ncclRecv(void* data, std::size_t count, ncclDataType_t, int peer, ncclComm_t communicator,
                      cudaStream_t stream) {
  return add(communicator, false, data, count, peer, stream);
}

const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSuccess:
      return "no error";
    case ncclInProgress:
      return "in progress";
    case ncclSystemError:
      return "a system call failed";
    case ncclInvalidArgument:
      return "invalid argument";
    case ncclInvalidUsage:
      return "invalid usage";
  }
  return "unknown error";
}

namespace troupe::cuda {

const Nccl* open_nccl(std::string&) {
  static const Nccl nccl{&ncclGetUniqueId,
                         &ncclCommInitRankConfig,
                         &ncclCommGetAsyncError,
                         &ncclCommAbort,
                         &ncclGroupStart,
                         &ncclGroupEnd,
                         &ncclSend,
                         &ncclRecv,
                         &ncclGetErrorString};
  return &nccl;
}

}  // namespace troupe::cuda
