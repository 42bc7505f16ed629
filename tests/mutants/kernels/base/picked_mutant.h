// In the build of the mutants this file stands before kernels/base/picked_mutant.h: one of them is picked while it runs.
#pragma once

namespace troupe {

inline int kPickedMutant = 0;
inline bool is_picked(int number) { return number == kPickedMutant; }

}  // namespace troupe
