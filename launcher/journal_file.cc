#include "launcher/journal_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <map>

#include "actors/mapped_file.h"
#include "kernels/base/boot.h"
#include "kernels/base/error.h"
#include "launcher/journal_clocks.h"
#include "launcher/loop.h"

namespace troupe {

namespace fs = std::filesystem;

namespace {

struct Place {
  std::uint32_t node = 0, number = 0;
};

// Of node-N.I; empty: it isn't called so.
std::optional<Place> place_of(const std::string& name) {
  Place place;
  const std::string prefix = "node-";
  if (!name.starts_with(prefix)) return std::nullopt;
  const char *begin = name.data() + prefix.size(), *end = name.data() + name.size();
  const auto node = std::from_chars(begin, end, place.node);
  if (node.ec != std::errc() || node.ptr == end || *node.ptr != '.') return std::nullopt;
  const auto number = std::from_chars(node.ptr + 1, end, place.number);
  if (number.ec != std::errc() || number.ptr != end) return std::nullopt;
  return place;
}

// The files that are there, by node and number.
std::map<std::pair<std::uint32_t, std::uint32_t>, std::string> journals_in(const std::string& run_folder) {
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::string> found;
  std::error_code none;
  for (const fs::directory_entry& entry : fs::directory_iterator(run_folder + "/journal", none))
    if (const auto place = place_of(entry.path().filename()))
      found[{place->node, place->number}] = entry.path().string();
  return found;
}

// Its number; only so many of the node's stay, with the new one.
std::uint32_t make_room(const std::string& run_folder, std::uint32_t node, int kept) {
  std::vector<std::pair<std::uint32_t, std::string>> own;
  for (const auto& [place, path] : journals_in(run_folder))
    if (place.first == node) own.emplace_back(place.second, path);
  const std::uint32_t number = own.empty() ? 1 : own.back().first + 1;
  std::error_code none;
  for (std::size_t i = 0; i + static_cast<std::size_t>(kept) <= own.size(); ++i) fs::remove(own[i].second, none);
  return number;
}

std::int64_t real_time_us() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<std::int64_t>(now.tv_sec) * 1'000'000 + now.tv_nsec / 1000 - monotonic_us();
}

std::optional<JournalPage> read_file(const std::string& path, std::uint64_t first, std::uint64_t most) try {
  const MappedFile file(path);
  return read_journal(file.data(), file.size(), first, most);
} catch (const Error&) {
  return std::nullopt;
}

}  // namespace

// The blocks are taken now: a full disk must be told here, and not by a signal when a page is first written.
JournalFile::JournalFile(const std::string& run_folder, std::uint32_t node, const InspectConfig& config) {
  std::error_code failed;
  fs::create_directories(run_folder + "/journal", failed);
  const std::uint32_t number = make_room(run_folder, node, config.journals_kept);
  const std::string path = fmt::format("{}/journal/node-{}.{}", run_folder, node, number);
  const std::size_t records = (static_cast<std::size_t>(config.journal_mib) << 20) / kJournalRecordBytes;
  size_ = journal_size(records);
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  const int problem = fd < 0 ? errno : posix_fallocate(fd, 0, static_cast<off_t>(size_));
  memory_ = problem == 0 ? mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
  if (fd >= 0) close(fd);
  if (memory_ == MAP_FAILED)
    throw Error(
        "{}: the node's journal of {} MiB can't be made; is the disk full, the folder writable? inspect.journal_mib "
        "may be less",
        path, config.journal_mib);
  journal_.emplace(static_cast<std::byte*>(memory_), records,
                   JournalOwner{node, number, static_cast<std::int64_t>(getpid()), real_time_us(), machine_boot()});
}

JournalFile::~JournalFile() { munmap(memory_, size_); }

std::vector<JournalPage> read_journals(const std::string& run_folder, std::uint64_t most) {
  std::vector<JournalPage> pages;
  for (const auto& [place, path] : journals_in(run_folder))
    if (auto page = read_file(path, 0, most)) pages.push_back(std::move(*page));
  lay_clocks(pages);
  return pages;
}

std::vector<JournalPage> read_last_journals(const std::string& run_folder,
                                            const std::map<std::uint32_t, std::uint64_t>& from, std::uint64_t most) {
  std::map<std::uint32_t, std::string> last;
  for (const auto& [place, path] : journals_in(run_folder)) last[place.first] = path;
  std::vector<JournalPage> pages;
  for (const auto& [node, path] : last) {
    const auto first = from.find(node);
    if (auto page = read_file(path, first == from.end() ? 0 : first->second, most)) pages.push_back(std::move(*page));
  }
  lay_clocks(pages);
  return pages;
}

JournalVisitor::JournalVisitor(const std::string& run_folder) : run_folder_(run_folder) {
  for (const auto& [place, path] : journals_in(run_folder_))
    if (const auto page = read_file(path, 0, 0)) clocks_.know(page->owner);
  if (clocks_.same()) return;
  visit_files([&](const JournalOwner& owner, const JournalRecord& record) { clocks_.hear(owner, record); });
  clocks_.lay();
}

void JournalVisitor::visit_files(const HearRecord& hear) const {
  for (const auto& [place, path] : journals_in(run_folder_)) {
    std::optional<MappedFile> file;
    try {
      file.emplace(path);
    } catch (const Error&) {
      continue;
    }
    visit_journal(file->data(), file->size(), hear);
  }
}

void JournalVisitor::visit(const HearRecord& hear) const {
  visit_files([&](JournalOwner owner, JournalRecord record) {
    clocks_.move(owner, record);
    hear(owner, record);
  });
}

}  // namespace troupe
