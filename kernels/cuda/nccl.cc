#include "kernels/cuda/nccl.h"

#include <dlfcn.h>

#include <memory>

namespace troupe::cuda {

namespace {

template <typename Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

}  // namespace

const Nccl* open_nccl(std::string& problem) {
  void* const library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* const words = dlerror();
    problem = words != nullptr ? words : "libnccl.so.2 can't be opened";
    return nullptr;
  }
  auto nccl = std::make_unique<Nccl>();
  const bool all = find(library, "ncclGetUniqueId", nccl->make_id) &&
                   find(library, "ncclCommInitRankConfig", nccl->open) &&
                   find(library, "ncclCommGetAsyncError", nccl->ask) && find(library, "ncclCommAbort", nccl->abort) &&
                   find(library, "ncclGroupStart", nccl->begin_group) &&
                   find(library, "ncclGroupEnd", nccl->end_group) && find(library, "ncclSend", nccl->send) &&
                   find(library, "ncclRecv", nccl->receive) && find(library, "ncclGetErrorString", nccl->words);
  if (all) return nccl.release();  // the library stays as long as the process
  problem = "libnccl.so.2 is older than 2.14: update it";
  return nullptr;
}

}  // namespace troupe::cuda
