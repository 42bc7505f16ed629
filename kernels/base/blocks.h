// Blocks: who took which memory, and how much of it is there. A large block's pages come when they are first written, so
// that what a node takes is less than what it asks for. For one thread.
#pragma once

#include <cstddef>
#include <map>

namespace troupe {

class Blocks {
 public:
  void add(const void* data, std::size_t size) { sizes_[data] = size; }
  void remove(const void* data) { sizes_.erase(data); }
  // Bytes of pages that are in memory now, of all blocks. Asks the kernel: a millisecond for some hundred MiB.
  std::size_t resident() const;

 private:
  std::map<const void*, std::size_t> sizes_;
};

}  // namespace troupe
