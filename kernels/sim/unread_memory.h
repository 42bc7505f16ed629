// Unread memory: what only ops touch, in a world whose ops compute no numbers. It has addresses and sizes, and no bytes:
// one reservation of address space, handed out to everybody from its beginning. The law: whoever reads or writes it, a
// handler or an op, dies of SIGSEGV.
#pragma once

#include <cstddef>
#include <memory>

namespace troupe {

constexpr std::size_t kUnreadBytes = std::size_t{1} << 44;  // the most that one block may have

// A block of this size.
std::byte* unread_memory(std::size_t size);
bool is_unread(const void* data);
// Zeros, of which only the pages that are touched are there: for a little that is read beside much that isn't.
std::shared_ptr<std::byte> sparse_memory(std::size_t size);

}  // namespace troupe
