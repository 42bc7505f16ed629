// The law of the scan: for each length of run there is one rolling hash, H = sum of word[i] * base^(length - 1 - i), of
// the last `length` words; a word is hashed once.
#include "launcher/contamination.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <unordered_map>

#include "actors/mapped_file.h"
#include "kernels/base/error.h"

namespace troupe {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr std::uint64_t kBase = 0x9e3779b97f4a7c15;  // odd
constexpr std::string_view kPunctuation = ".,;:!?\"'()[]{}";

bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

std::uint64_t mixed(std::uint64_t word) {
  word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9;
  word = (word ^ (word >> 27)) * 0x94d049bb133111eb;
  return word ^ (word >> 31);
}

std::uint64_t hash_of(std::string_view word) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char c : word) hash = (hash ^ static_cast<unsigned char>(lower(c))) * 0x100000001b3;
  return mixed(hash);
}

// Calls tell(word, line) for each word of the text; lines are counted from `line`.
template <typename Tell>
void for_each_word(std::string_view text, std::int64_t line, const Tell& tell) {
  for (std::size_t at = 0; at < text.size();) {
    if (is_blank(text[at])) {
      line += text[at++] == '\n' ? 1 : 0;
      continue;
    }
    std::size_t end = at;
    while (end < text.size() && !is_blank(text[end])) ++end;
    std::string_view word = text.substr(at, end - at);
    at = end;
    while (!word.empty() && kPunctuation.find(word.front()) != std::string_view::npos) word.remove_prefix(1);
    while (!word.empty() && kPunctuation.find(word.back()) != std::string_view::npos) word.remove_suffix(1);
    if (!word.empty()) tell(word, line);
  }
}

std::vector<std::string> words_of(const std::string& text) {
  std::vector<std::string> words;
  for_each_word(text, 1, [&](std::string_view word, std::int64_t) { words.emplace_back(word); });
  return words;
}

// A run of words of a problem, and where it was met first.
struct Run {
  std::uint32_t problem = 0;
  std::string words;
  std::string file;  // empty: not met
  std::int64_t line = 0;
  bool counts = true;
};

class Index {
 public:
  Index(const std::vector<TaskProblem>& problems, std::size_t ngram) : most_(ngram) {
    for (std::uint32_t p = 0; p < problems.size(); ++p) {
      const std::vector<std::string> question = words_of(problems[p].prompt),
                                     whole = words_of(problems[p].prompt + problems[p].solution);
      std::set<std::uint64_t> own;  // each once for a problem
      short_ += whole.size() < ngram ? 1 : 0;
      if (whole.size() < ngram) {
        add(p, question, 0, question.size(), own);
        add(p, whole, 0, whole.size(), own);
      }
      for (std::size_t begin = 0; begin + ngram <= whole.size(); ++begin) add(p, whole, begin, ngram, own);
    }
    const double limit = std::max(2.0, kTemplateShare * static_cast<double>(problems.size()));
    for (auto& [hash, runs] : by_hash_)
      for (const std::uint32_t r : runs) runs_[r].counts = static_cast<double>(runs.size()) <= limit;
    lengths_.assign(all_lengths_.begin(), all_lengths_.end());
    powers_.assign(lengths_.size(), 1);
    for (std::size_t l = 0; l < lengths_.size(); ++l)
      for (std::size_t i = 0; i < lengths_[l]; ++i) powers_[l] *= kBase;
  }

  // The hash under which a run of so many words is known.
  static std::uint64_t key(std::uint64_t rolling, std::size_t length) {
    return mixed(rolling + length * 0x2545f4914f6cdd1d);
  }

  void meet(std::uint64_t hash, const std::string& file, std::int64_t line, std::int64_t& matches) {
    const auto found = by_hash_.find(hash);
    if (found == by_hash_.end() || !runs_[found->second[0]].counts) return;
    ++matches;
    for (const std::uint32_t r : found->second) {
      if (!runs_[r].file.empty()) continue;
      runs_[r].file = file;
      runs_[r].line = line;
    }
  }

  const std::vector<std::size_t>& lengths() const { return lengths_; }
  const std::vector<std::uint64_t>& powers() const { return powers_; }
  const std::vector<Run>& runs() const { return runs_; }
  std::size_t most() const { return most_; }
  int short_problems() const { return short_; }

 private:
  void add(std::uint32_t problem, const std::vector<std::string>& words, std::size_t begin, std::size_t length,
           std::set<std::uint64_t>& own) {
    if (length == 0) return;
    std::uint64_t rolling = 0;
    Run run{problem, "", "", 0, true};
    for (std::size_t i = begin; i < begin + length; ++i) {
      rolling = rolling * kBase + hash_of(words[i]);
      run.words += (run.words.empty() ? "" : " ") + words[i];
    }
    const std::uint64_t hash = key(rolling, length);
    if (!own.insert(hash).second) return;
    all_lengths_.insert(length);
    by_hash_[hash].push_back(static_cast<std::uint32_t>(runs_.size()));
    runs_.push_back(std::move(run));
  }

  std::size_t most_;
  int short_ = 0;
  std::set<std::size_t> all_lengths_;
  std::vector<std::size_t> lengths_;
  std::vector<std::uint64_t> powers_;  // base^length
  std::unordered_map<std::uint64_t, std::vector<std::uint32_t>> by_hash_;
  std::vector<Run> runs_;
};

// One stream of words against the index.
class Scan {
 public:
  Scan(Index& index, const std::string& file)
      : index_(index), file_(file), last_(index.most(), 0), rolling_(index.lengths().size(), 0) {}

  void text(std::string_view text, std::int64_t line) {
    for_each_word(text, line, [&](std::string_view word, std::int64_t at) { take(hash_of(word), at); });
  }
  // What comes doesn't follow what came.
  void part() { seen_ = 0; }
  std::int64_t words = 0, matches = 0;

 private:
  void take(std::uint64_t word, std::int64_t line) {
    const std::size_t most = last_.size();
    for (std::size_t l = 0; l < rolling_.size(); ++l) {
      const std::size_t length = index_.lengths()[l];
      if (seen_ == 0) rolling_[l] = 0;
      rolling_[l] = rolling_[l] * kBase + word;
      if (seen_ >= length) rolling_[l] -= last_[(seen_ - length) % most] * index_.powers()[l];
      if (seen_ + 1 >= length) index_.meet(Index::key(rolling_[l], length), file_, line, matches);
    }
    last_[seen_++ % most] = word;
    ++words;
  }

  Index& index_;
  const std::string& file_;
  std::vector<std::uint64_t> last_, rolling_;
  std::size_t seen_ = 0;
};

void add_texts(const nlohmann::ordered_json& value, std::string& text) {
  if (value.is_string()) text += value.get<std::string>() + "\n";
  if (value.is_structured())
    for (const auto& part : value) add_texts(part, text);
}

// Each object's texts in its order, one after the other.
void scan_objects(std::string_view all, const std::string& path, Scan& scan) {
  std::int64_t line = 1;
  for (std::size_t begin = 0; begin < all.size(); ++line) {
    const std::size_t end = std::min(all.find('\n', begin), all.size());
    const std::string_view one = all.substr(begin, end - begin);
    begin = end + 1;
    if (std::all_of(one.begin(), one.end(), is_blank)) continue;
    const auto value = nlohmann::ordered_json::parse(one, nullptr, false);
    if (value.is_discarded())
      throw Error("{}:{}: not JSON; a .jsonl file has an object a line, name plain text otherwise", path, line);
    std::string text;
    add_texts(value, text);
    std::replace(text.begin(), text.end(), '\n', ' ');  // the line is the object's
    scan.part();
    scan.text(text, line);
  }
}

json scanned(Index& index, const std::string& path) {
  const MappedFile file(path);
  Scan scan(index, path);
  if (path.ends_with(".jsonl"))
    scan_objects(file.text(), path, scan);
  else
    scan.text(file.text(), 1);
  return {{"file", path}, {"bytes", file.size()}, {"words", scan.words}, {"matches", scan.matches}};
}

// ---- Rollouts -------------------------------------------------------------------------------------------------------

using Questions = std::set<std::string>;

void read_rollout(const std::string& path, const Questions& held_out, json& told, std::set<std::string>& asked) {
  std::ifstream in(path);
  std::string line;
  for (std::int64_t number = 1; std::getline(in, line); ++number) {
    const json j = json::parse(line, nullptr, false);
    if (j.is_discarded()) throw Error("{}:{}: not a line of a rollout", path, number);
    if (!j.contains("question")) continue;  // the rollout's own line
    told["answers"] = told["answers"].get<std::int64_t>() + 1;
    const std::string question = j.at("question");
    if (!held_out.contains(question) || !asked.insert(question).second) continue;
    if (told["examples"].size() < kWorstShown)
      told["examples"].push_back({{"problem", question}, {"file", path}, {"line", number}});
  }
}

json rollouts_of(const std::string& run, const Questions& held_out) {
  json told{{"folder", run + "/rollouts"}, {"rollouts", 0}, {"answers", 0}, {"examples", json::array()}};
  std::set<std::string> asked, folders;
  for (const auto& entry : fs::directory_iterator(run + "/rollouts"))
    if (fs::exists(entry.path() / "answers.jsonl")) folders.insert(entry.path().string());
  for (const std::string& folder : folders) read_rollout(folder + "/answers.jsonl", held_out, told, asked);
  told["rollouts"] = folders.size();
  told["asked"] = asked.size();
  return told;
}

// ---- Report ---------------------------------------------------------------------------------------------------------

struct Touched {
  int shared = 0, of = 0;
  const Run* first = nullptr;
  double share() const { return of > 0 ? static_cast<double>(shared) / of : 0; }
};

std::vector<Touched> touched_by(const Index& index, std::size_t problems) {
  std::vector<Touched> all(problems);
  for (const Run& run : index.runs()) {
    Touched& t = all[run.problem];
    if (!run.counts) continue;
    ++t.of;
    if (run.file.empty()) continue;
    ++t.shared;
    if (t.first == nullptr) t.first = &run;
  }
  return all;
}

json worst_of(const std::vector<TaskProblem>& problems, const std::vector<Touched>& all) {
  std::vector<std::size_t> order;
  for (std::size_t p = 0; p < all.size(); ++p)
    if (all[p].shared > 0) order.push_back(p);
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return std::pair(all[a].share(), all[a].shared) > std::pair(all[b].share(), all[b].shared);
  });
  json worst = json::array();
  for (std::size_t i = 0; i < std::min<std::size_t>(order.size(), kWorstShown); ++i) {
    const TaskProblem& p = problems[order[i]];
    const Touched& t = all[order[i]];
    worst.push_back({{"task", p.task},
                     {"level", p.level},
                     {"problem", p.prompt},
                     {"solution", p.solution},
                     {"shared", t.shared},
                     {"of", t.of},
                     {"share", t.share()},
                     {"words", t.first->words},
                     {"file", t.first->file},
                     {"line", t.first->line}});
  }
  return worst;
}

}  // namespace

json contamination(const std::vector<TaskProblem>& problems, const std::vector<std::string>& places, int ngram) {
  Index index(problems, static_cast<std::size_t>(ngram));
  Questions held_out;
  for (const TaskProblem& p : problems) held_out.insert(p.prompt);
  json files = json::array(), rollouts = json::array();
  for (const std::string& place : places) {
    if (!fs::is_directory(place))
      files.push_back(scanned(index, place));
    else if (fs::is_directory(place + "/rollouts"))
      rollouts.push_back(rollouts_of(place, held_out));
    else
      throw Error("{}: is a folder without rollouts; name the files in it, or a run's folder", place);
  }
  const std::vector<Touched> all = touched_by(index, problems.size());
  const auto touched = std::count_if(all.begin(), all.end(), [](const Touched& t) { return t.shared > 0; });
  const auto ignored = std::count_if(index.runs().begin(), index.runs().end(), [](const Run& r) { return !r.counts; });
  return {
      {"kind", "contamination"},
      {"ngram", ngram},
      {"problems", problems.size()},
      {"short", index.short_problems()},
      {"touched", touched},
      {"touched_share", problems.empty() ? 0.0 : static_cast<double>(touched) / static_cast<double>(problems.size())},
      {"runs_of_words", index.runs().size()},
      {"runs_ignored", ignored},
      {"files", files},
      {"worst", worst_of(problems, all)},
      {"rollouts", rollouts}};
}

std::string contamination_text(const json& report) {
  std::string text;
  if (!report.at("files").empty())
    text += fmt::format(
        "contamination  {} of {} problems ({:.1f} %) share {} words in a row with the training files{}\n",
        report.at("touched").get<int>(), report.at("problems").get<int>(),
        100 * report.at("touched_share").get<double>(), report.at("ngram").get<int>(),
        report.at("short").get<int>() > 0
            ? fmt::format("; {} have fewer words and were looked for as a whole", report.at("short").get<int>())
            : "");
  const auto quoted = [](const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); };
  for (std::size_t i = 0; i < std::min<std::size_t>(3, report.at("worst").size()); ++i) {
    const json& w = report.at("worst")[i];
    text += fmt::format("  {}: {} of {} runs, first {} in {}:{}\n", quoted(w.at("problem")), w.at("shared").get<int>(),
                        w.at("of").get<int>(), quoted(w.at("words")), w.at("file").get<std::string>(),
                        w.at("line").get<std::int64_t>());
  }
  for (const json& r : report.at("rollouts"))
    text += fmt::format("rollouts       {} of {} problems were asked in {} rollouts ({} answers) of {}\n",
                        r.at("asked").get<int>(), report.at("problems").get<int>(), r.at("rollouts").get<int>(),
                        r.at("answers").get<std::int64_t>(), r.at("folder").get<std::string>());
  return text;
}

}  // namespace troupe
