// CRC-32C: the remainder of the bytes, least significant bit first, by 0x1EDC6F41 (reflected 0x82F63B78), inverted
// before and after. Law: instruction and tables agree on every input.
#include "messages/checksum.h"

#include <array>
#include <cstring>

namespace troupe {
namespace {

using Tables = std::array<std::array<std::uint32_t, 256>, 8>;

// tables[k][b]: what byte b does to the remainder when k more bytes follow it in a group of eight.
constexpr Tables make_tables() {
  Tables tables{};
  for (std::uint32_t b = 0; b < 256; ++b) {
    std::uint32_t crc = b;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78u : 0u);
    tables[0][b] = crc;
  }
  for (std::size_t k = 1; k < 8; ++k)
    for (std::size_t b = 0; b < 256; ++b) tables[k][b] = (tables[k - 1][b] >> 8) ^ tables[0][tables[k - 1][b] & 0xff];
  return tables;
}

constexpr Tables kTables = make_tables();

std::uint64_t load_word(const std::byte* bytes) {
  std::uint64_t word = 0;
  std::memcpy(&word, bytes, sizeof word);  // little endian
  return word;
}

__attribute__((target("sse4.2"))) std::uint32_t crc32c_instruction(std::uint32_t before,
                                                                   std::span<const std::byte> bytes) {
  std::uint64_t crc = static_cast<std::uint32_t>(~before);
  std::size_t at = 0;
  for (; at + 8 <= bytes.size(); at += 8) crc = __builtin_ia32_crc32di(crc, load_word(&bytes[at]));
  auto rest = static_cast<std::uint32_t>(crc);
  for (; at < bytes.size(); ++at) rest = __builtin_ia32_crc32qi(rest, static_cast<unsigned char>(bytes[at]));
  return ~rest;
}

}  // namespace

std::uint32_t crc32c_portable(std::uint32_t before, std::span<const std::byte> bytes) {
  std::uint32_t crc = ~before;
  std::size_t at = 0;
  for (; at + 8 <= bytes.size(); at += 8) {
    const std::uint64_t word = load_word(&bytes[at]) ^ crc;
    crc = 0;
    for (std::size_t k = 0; k < 8; ++k) crc ^= kTables[7 - k][(word >> (8 * k)) & 0xff];
  }
  for (; at < bytes.size(); ++at) crc = (crc >> 8) ^ kTables[0][(crc ^ static_cast<std::uint32_t>(bytes[at])) & 0xff];
  return ~crc;
}

std::uint32_t crc32c(std::uint32_t before, std::span<const std::byte> bytes) {
  static const bool has_instruction = __builtin_cpu_supports("sse4.2") != 0;
  return has_instruction ? crc32c_instruction(before, bytes) : crc32c_portable(before, bytes);
}

}  // namespace troupe
