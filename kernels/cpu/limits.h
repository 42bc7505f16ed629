// What this processor can do: fused multiply-adds in registers, and bytes from and to memory, each the best of several
// forms: vectors of either width, chains enough to hide any latency, plain and non-temporal stores, reads alone.
#pragma once

#include <cstddef>

namespace troupe::cpu {

using Seconds = double (*)();  // a clock

// Of one core.
double peak_float32_gflops(Seconds now);
double peak_bfloat16_gflops(Seconds now);  // products of pairs (vdpbf16ps); 0: there is no such instruction

// Of so many cores together. Throws Error: no memory for arrays larger than any cache.
double peak_memory_gbytes_per_second(std::size_t threads, Seconds now);

}  // namespace troupe::cpu
