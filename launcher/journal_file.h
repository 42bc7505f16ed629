// A node's journal in the run's folder: RUN/journal/node-N.I, mapped into the node's process and read by any other. Each
// process has one of its own; what it wrote stays when it is killed. The last few of a node are kept. Whoever reads them
// gets all times by one clock, the lowest node's (launcher/journal_clocks.h).
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "actors/config.h"
#include "actors/journal.h"
#include "launcher/journal_clocks.h"

namespace troupe {

class JournalFile {
 public:
  // As config.inspect says. Throws Error: the file can't be made.
  JournalFile(const std::string& run_folder, std::uint32_t node, const InspectConfig& config);
  ~JournalFile();
  JournalFile(const JournalFile&) = delete;
  JournalFile& operator=(const JournalFile&) = delete;
  Journal& journal() { return *journal_; }
  std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(memory_), size_}; }

 private:
  std::size_t size_;
  void* memory_ = nullptr;
  std::optional<Journal> journal_;
};

// Of all nodes, by node and number, of each at most so many records; those that can't be read are left out.
std::vector<JournalPage> read_journals(const std::string& run_folder,
                                       std::uint64_t most = std::numeric_limits<std::uint64_t>::max());
// The last of every node, of each the records from the number on that `from` says of the node (0 if it doesn't), and at
// most so many.
std::vector<JournalPage> read_last_journals(const std::string& run_folder,
                                            const std::map<std::uint32_t, std::uint64_t>& from, std::uint64_t most);
// Every record of all nodes, by node and number, as often as one likes.
class JournalVisitor {
 public:
  explicit JournalVisitor(const std::string& run_folder);
  void visit(const HearRecord& hear) const;

 private:
  void visit_files(const HearRecord& hear) const;
  std::string run_folder_;
  JournalClocks clocks_;
};

}  // namespace troupe
