// What this program is: version, build and the machine kind that its numbers hold for.
#pragma once

#include <string>

namespace troupe {

std::string build_version();  // "troupe 0.1 (x86-64-v3, g++ 12.2.0)"
std::string built_for();      // "x86-64-v3": the instruction set of the kernels
std::string machine_kind();   // processor model and instruction set

}  // namespace troupe
