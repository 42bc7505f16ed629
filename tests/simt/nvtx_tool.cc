// A profiler of NVTX's ranges, loaded by its header as NVTX_INJECTION64_PATH says: what was pushed and popped, a line each,
// goes to the file that TROUPE_TEST_RANGES names.
#include <nvtx3/nvToolsExt.h>

#include <cstdio>
#include <cstdlib>

namespace {

std::FILE* file() {
  static std::FILE* const opened = std::fopen(std::getenv("TROUPE_TEST_RANGES"), "w");
  return opened;
}

nvtxDomainHandle_t create(const char* name) {
  std::fprintf(file(), "domain %s\n", name);
  return reinterpret_cast<nvtxDomainHandle_t>(file());
}
int push(nvtxDomainHandle_t, const nvtxEventAttributes_t* attributes) {
  std::fprintf(file(), "push %s\n", attributes->message.ascii);
  return 0;
}
int pop(nvtxDomainHandle_t) {
  std::fprintf(file(), "pop\n");
  return std::fflush(file());
}

}  // namespace

extern "C" int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t table_of) {
  const auto* callbacks = static_cast<const NvtxExportTableCallbacks*>(table_of(NVTX_ETID_CALLBACKS));
  NvtxFunctionTable functions = nullptr;
  unsigned int size = 0;
  if (callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE2, &functions, &size) == 0) return 0;
  *functions[NVTX_CBID_CORE2_DomainCreateA] = reinterpret_cast<NvtxFunctionPointer>(&create);
  *functions[NVTX_CBID_CORE2_DomainRangePushEx] = reinterpret_cast<NvtxFunctionPointer>(&push);
  *functions[NVTX_CBID_CORE2_DomainRangePop] = reinterpret_cast<NvtxFunctionPointer>(&pop);
  return 1;
}
