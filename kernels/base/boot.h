// Which start of which machine this is.
#pragma once

#include <cstdint>

namespace troupe {

std::uint64_t machine_boot();  // the kernel's name for it; 0: it has none

}  // namespace troupe
