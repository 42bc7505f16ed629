// Memory as a processor's device takes it: zeroed, aligned to 64 bytes; a large block's pages come when they are first
// written, by whoever writes them, and never where nobody does: what a run doesn't need of its plan it doesn't take.
#pragma once

#include "kernels/device.h"

namespace troupe::cpu {

// Throws Error: there is no more.
Memory take_memory(std::size_t size);
// What such a block may come to take, with the rest of its last page.
std::size_t bytes_taken(std::size_t size);

}  // namespace troupe::cpu
