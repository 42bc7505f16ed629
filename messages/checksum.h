// CRC-32C (Castagnoli), the checksum of frames. crc32c(crc32c(0, a), b) = crc32c(0, a followed by b).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace troupe {

// With the processor's instruction where there is one, else with tables; the same number either way.
std::uint32_t crc32c(std::uint32_t before, std::span<const std::byte> bytes);
// Tables only: what the other is checked against.
std::uint32_t crc32c_portable(std::uint32_t before, std::span<const std::byte> bytes);

}  // namespace troupe
