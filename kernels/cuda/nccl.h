// NCCL, which is opened at run time, so nothing needs it: the functions that are used, by their own types.
#pragma once

#include <nccl.h>

#include <string>

namespace troupe::cuda {

struct Nccl {
  decltype(&ncclGetUniqueId) make_id = nullptr;
  decltype(&ncclCommInitRankConfig) open = nullptr;
  decltype(&ncclCommGetAsyncError) ask = nullptr;
  decltype(&ncclCommAbort) abort = nullptr;
  decltype(&ncclGroupStart) begin_group = nullptr;
  decltype(&ncclGroupEnd) end_group = nullptr;
  decltype(&ncclSend) send = nullptr;
  decltype(&ncclRecv) receive = nullptr;
  decltype(&ncclGetErrorString) words = nullptr;
};

// For good; null and why, if there is none.
const Nccl* open_nccl(std::string& problem);

}  // namespace troupe::cuda
