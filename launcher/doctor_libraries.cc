// Libraries that are opened while a run goes, not linked: whether they are there, and of which version. cuBLASLt: where
// device.products asks for it; NCCL: between GPUs of one machine (layout.device_transport); cuDNN: none opens it yet.
#include <dlfcn.h>
#include <fmt/format.h>

#include "kernels/cuda/open.h"
#include "launcher/doctor_facts.h"

namespace troupe {

namespace {

constexpr int kNewestCuda = 13;  // whose libraries are looked for by a program that was built without CUDA

// 10000 major + 100 minor + patch, from the function `name`; 0: it doesn't tell.
int ask_result(void* library, const char* name) {
  auto* const version = reinterpret_cast<std::size_t (*)()>(::dlsym(library, name));
  return version == nullptr ? 0 : static_cast<int>(version());
}
int ask_cublas(void* library) { return ask_result(library, "cublasLtGetVersion"); }
int ask_cudnn(void* library) { return ask_result(library, "cudnnGetVersion"); }
int ask_nccl(void* library) {
  auto* const version = reinterpret_cast<int (*)(int*)>(::dlsym(library, "ncclGetVersion"));
  int number = 0;
  return version != nullptr && version(&number) == 0 ? number : 0;
}

LibraryFacts look_at(const std::string& name, int major, int (*ask)(void*)) {
  LibraryFacts facts{.name = name, .version = {}, .problem = {}};
  const std::string file = fmt::format("{}.so.{}", name, major);
  void* const library = ::dlopen(file.c_str(), RTLD_LAZY | RTLD_LOCAL);
  if (library == nullptr) {
    const char* const words = ::dlerror();
    // Of one that is there but can't be opened, the words say what it lacks.
    const bool is_there = words != nullptr && std::string(words).find(file + ": cannot open") == std::string::npos;
    facts.problem = is_there ? words : "not found";
    return facts;
  }
  const int version = ask(library);
  facts.version = version > 0 ? fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100)
                              : std::to_string(major);
  return facts;
}

}  // namespace

LibrariesFacts look_at_libraries() {
  const int runtime = look_for_gpus().runtime;
  return {.late = false,
          .all = {look_at("libcublasLt", runtime > 0 ? runtime / 1000 : kNewestCuda, &ask_cublas),
                  look_at("libnccl", 2, &ask_nccl), look_at("libcudnn", 9, &ask_cudnn)}};
}

}  // namespace troupe
