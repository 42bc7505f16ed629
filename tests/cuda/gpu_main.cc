// gpu_test's: without a GPU it says so and all is well.
#define CATCH_CONFIG_PREFIX_ALL  // CHECK is ours
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>

#include <cstdio>

#include "kernels/cuda/open.h"

int main(int argc, char** argv) {
  Catch::Session session;
  const int wrong = session.applyCommandLine(argc, argv);
  if (wrong != 0) return wrong;
  const Catch::ConfigData& asked = session.configData();
  const bool lists =
      asked.listTests || asked.listTags || asked.listReporters || asked.listTestNamesOnly || asked.showHelp;
  if (!lists && troupe::look_for_gpus().all.empty()) {
    std::puts("skipped: no device");
    return 0;
  }
  return session.run();
}
