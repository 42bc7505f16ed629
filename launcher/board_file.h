// A node's board in the run's folder: RUN/boards/node-N, mapped into the node's process and read by any other. A new
// incarnation's file takes the name of the old one's.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "actors/board.h"
#include "actors/config.h"

namespace troupe {

class BoardFile {
 public:
  // launcher: the process that replaces this one when it is lost. Throws Error: the file can't be made.
  BoardFile(const std::string& run_folder, std::uint32_t node, std::size_t actors_count, std::size_t threads_count,
            std::int64_t launcher);
  ~BoardFile();
  BoardFile(const BoardFile&) = delete;
  BoardFile& operator=(const BoardFile&) = delete;
  Board& board() { return *board_; }
  std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(memory_), size_}; }

 private:
  std::size_t size_;
  void* memory_ = nullptr;
  std::optional<Board> board_;
};

// The boards that are there, each with what its process is at.
std::vector<BoardPage> read_boards(const std::string& run_folder, int nodes);

}  // namespace troupe
