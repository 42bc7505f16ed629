// The house rules that a machine can check, over every source file (docs/style.md). A rule is a pure function from a
// file's path and text to complaints, so that each can be shown to complain.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace troupe {
namespace {

namespace fs = std::filesystem;

constexpr int kFileLinesMax = 600, kFunctionLinesMax = 70, kCafFilesMax = 3;
const std::vector<std::string> kFloors = {"kernels", "messages", "actors", "launcher", "tests"};

struct Source {
  std::string path, text;  // path from the root: "kernels/op.h"
};
using Complaints = std::vector<std::string>;

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::string at(const Source& source, std::size_t index, const std::string& what) {
  return source.path + ":" + std::to_string(index + 1) + ": " + what;
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

int floor_of(const std::string& path) {
  const auto found = std::find(kFloors.begin(), kFloors.end(), path.substr(0, path.find('/')));
  return found == kFloors.end() || !has(path, "/") ? -1 : static_cast<int>(found - kFloors.begin());
}

// What a line includes: {path, true} for quotes, {path, false} for angles; an empty path for any other line.
std::pair<std::string, bool> included(const std::string& line) {
  const std::string word = "#include ";
  if (!line.starts_with(word) || line.size() < word.size() + 2) return {"", false};
  const char open = line[word.size()];
  const std::size_t close = line.find(open == '<' ? '>' : '"', word.size() + 1);
  if (close == std::string::npos) return {"", false};
  return {line.substr(word.size() + 1, close - word.size() - 1), open == '"'};
}

// ---- Rules ----------------------------------------------------------------------------------------------------------

Complaints check_shape(const Source& source) {
  Complaints found;
  const auto lines = lines_of(source.text);
  if (static_cast<int>(lines.size()) > kFileLinesMax) {
    found.push_back(source.path + ": " + std::to_string(lines.size()) + " lines, at most " +
                    std::to_string(kFileLinesMax) + ": one concept per file");
  }
  if (lines.empty() || !(lines[0].starts_with("//") || lines[0].starts_with("#"))) {
    found.push_back(source.path + ": must open with a comment or an include");
  }
  if (!source.text.empty() && source.text.back() != '\n') found.push_back(source.path + ": must end with a line break");
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (has(lines[i], "\t")) found.push_back(at(source, i, "tab"));
    if (lines[i].ends_with(" ") || lines[i].ends_with("\r")) found.push_back(at(source, i, "trailing blank"));
    for (const std::string word : {"TO"
                                   "DO",
                                   "FIX"
                                   "ME"}) {
      if (has(lines[i], word)) found.push_back(at(source, i, word + ": do it, or open an issue"));
    }
  }
  return found;
}

Complaints check_includes(const Source& source) {
  Complaints found;
  const auto lines = lines_of(source.text);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const auto [path, in_quotes] = included(lines[i]);
    if (path.empty()) continue;
    const int floor = floor_of(path);
    if (in_quotes && floor < 0)
      found.push_back(at(source, i, path + ": must be a path from the root, \"kernels/op.h\""));
    if (!in_quotes && floor >= 0) found.push_back(at(source, i, path + ": our own headers stand in quotes"));
    if (has(path, "..")) found.push_back(at(source, i, path + ": must be a path from the root"));
    if (floor > floor_of(source.path)) {
      found.push_back(at(source, i, path + ": climbs; kernels < messages < actors < launcher < tests"));
    }
  }
  return found;
}

Complaints check_preprocessor(const Source& source) {
  Complaints found;
  const auto lines = lines_of(source.text);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const std::size_t hash = lines[i].find_first_not_of(' ');
    if (hash == std::string::npos || lines[i][hash] != '#') continue;
    const std::size_t word = lines[i].find_first_not_of(' ', hash + 1);
    const std::string rest = word == std::string::npos ? "" : lines[i].substr(word);
    if (rest.starts_with("if") || rest.starts_with("el")) {
      found.push_back(at(source, i, "#" + rest + ": choose files in CMake, objects in launcher"));
    }
  }
  if (source.path.ends_with(".h") && !has(source.text, "#pragma once")) {
    found.push_back(source.path + ": header without #pragma once");
  }
  return found;
}

// The word stands alone in the code: "rand(" is not in "operand(".
bool has_word(const std::string& code, const std::string& word) {
  const auto is_part = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; };
  for (std::size_t at = code.find(word); at != std::string::npos; at = code.find(word, at + 1)) {
    const std::size_t past = at + word.size();
    const bool begins = at == 0 || !is_part(code[at - 1]) || !is_part(word.front());
    const bool ends = past >= code.size() || !is_part(code[past]) || !is_part(word.back());
    if (begins && ends) return true;
  }
  return false;
}

const std::vector<std::string> kClocksAndDice = {"steady_clock",
                                                 "system_clock",
                                                 "high_resolution_clock",
                                                 "utc_clock",
                                                 "clock_gettime",
                                                 "gettimeofday",
                                                 "time(",
                                                 "clock(",
                                                 "sleep(",
                                                 "usleep(",
                                                 "nanosleep(",
                                                 "clock_nanosleep(",
                                                 "sleep_for",
                                                 "sleep_until",
                                                 "wait_for(",
                                                 "wait_until(",
                                                 "timerfd_create",
                                                 "alarm(",
                                                 "rand(",
                                                 "srand(",
                                                 "rand_r(",
                                                 "drand48(",
                                                 "random(",
                                                 "random_device",
                                                 "mt19937",
                                                 "mt19937_64",
                                                 "minstd_rand",
                                                 "default_random_engine",
                                                 "getrandom",
                                                 "getentropy",
                                                 "RAND_bytes",
                                                 "__rdtsc",
                                                 "getenv",
                                                 "std::hash"};
// Where time passes although nobody below the launcher may know it, and why.
const std::map<std::string, std::string> kMayReadAClock = {
    {"kernels/cpu/device.cc",
     "a compute thread spins for a moment before it sleeps; nothing it computes depends on it"},
    {"kernels/cuda/device.cc", "the bill asks when the GPU was at what; nothing it computes depends on it"},
    {"messages/ucx.cc", "closing waits for the peers' answers, but not for ever"}};

// Below the launcher nobody reads a clock, sleeps, draws a number of his own or asks the environment: a simulated world
// is a function of its seed.
Complaints check_banned(const Source& source) {
  const int floor = floor_of(source.path);
  if (floor < 0 || floor >= floor_of("launcher/a.cc") || kMayReadAClock.contains(source.path)) return {};
  Complaints found;
  const auto lines = lines_of(source.text);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const std::string code = lines[i].substr(0, lines[i].find("//"));
    for (const std::string& word : kClocksAndDice)
      if (has_word(code, word)) found.push_back(at(source, i, word + ": time and chance come in from outside"));
  }
  return found;
}

struct Fence {
  std::vector<std::string> prefixes;  // of include paths
  bool (*allows)(const std::string& path);
  std::string where;
};

std::vector<Fence> fences() {
  using Path = const std::string&;
  return {{{"capnp/", "kj/", "messages/schema.capnp"},
           [](Path p) { return p.starts_with("messages/codec"); },
           "messages/codec*.cc"},
          {{"ucp/", "ucs/", "uct/"},
           [](Path p) { return p.starts_with("messages/ucx") && p.ends_with(".cc"); },
           "messages/ucx*.cc"},
          {{"toml++/"},
           [](Path p) { return p.starts_with("launcher/config") && p.ends_with(".cc"); },
           "launcher/config*.cc"},
          {{"CLI/"}, [](Path p) { return p == "launcher/cli.cc"; }, "launcher/cli.cc"},
          {{"microhttpd.h"}, [](Path p) { return p == "launcher/inspect/web.cc"; }, "launcher/inspect/web.cc"},
          {{"ncurses", "curses", "term.h"},
           [](Path p) { return p.starts_with("launcher/inspect/terminal") && p.ends_with(".cc"); },
           "launcher/inspect/terminal*.cc"},
          {{"spdlog/"}, [](Path p) { return p == "kernels/base/log.cc"; }, "kernels/base/log.cc"},
          {{"pcre2", "unicode/"},
           [](Path p) { return p == "actors/data/pre_tokenizer.cc"; },
           "actors/data/pre_tokenizer.cc"}};
}

Complaints check_fences(const Source& source) {
  Complaints found;
  const auto lines = lines_of(source.text);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const std::string path = included(lines[i]).first;
    for (const Fence& fence : fences()) {
      const auto begins = [&](const std::string& prefix) { return path.starts_with(prefix); };
      const bool inside = std::any_of(fence.prefixes.begin(), fence.prefixes.end(), begins);
      if (inside && !fence.allows(source.path)) {
        found.push_back(at(source, i, path + ": only " + fence.where + " may include it"));
      }
    }
  }
  return found;
}

Complaints check_caf(const std::vector<Source>& sources) {
  Complaints users;
  for (const Source& source : sources) {
    const auto lines = lines_of(source.text);
    const auto uses = [](const std::string& line) { return included(line).first.starts_with("caf/"); };
    if (std::any_of(lines.begin(), lines.end(), uses)) users.push_back(source.path + ": includes caf/");
  }
  return static_cast<int>(users.size()) <= kCafFilesMax ? Complaints() : users;
}

bool begins_scope(const std::string& line) {
  for (const std::string word :
       {"namespace", "struct ", "class ", "enum ", "union ", "template", "extern ", "const", "#", "//", "}", ")"}) {
    if (line.starts_with(word)) return word != "template" && word != "const";
  }
  return false;
}

// A function ends at a '}' in the first column; it begins at the last line before it that starts in the first column.
Complaints check_functions(const Source& source) {
  Complaints found;
  const auto lines = lines_of(source.text);
  std::size_t start = 0;
  bool inside = false;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (lines[i].empty() || lines[i][0] == ' ') continue;
    if (lines[i] == "}" && inside && static_cast<int>(i - start + 1) > kFunctionLinesMax) {
      found.push_back(at(source, start,
                         "function of " + std::to_string(i - start + 1) + " lines, at most " +
                             std::to_string(kFunctionLinesMax) + ": a function fits a screen"));
    }
    inside = !begins_scope(lines[i]);
    start = i;
  }
  return found;
}

// A source that the build doesn't name is dead.
Complaints check_built(const Source& source, const std::string& build) {
  if (!source.path.ends_with(".cc") || has(build, source.path)) return {};
  return {source.path + ": not named in CMakeLists.txt"};
}

// ---- The tree -------------------------------------------------------------------------------------------------------

std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::vector<Source> all_sources() {
  const fs::path root = TROUPE_SOURCE_DIR;
  std::vector<Source> sources;
  for (const std::string& floor : kFloors) {
    for (const auto& entry : fs::recursive_directory_iterator(root / floor)) {
      const std::string kind = entry.path().extension().string();
      if (kind != ".cc" && kind != ".h" && kind != ".cu") continue;
      sources.push_back({fs::relative(entry.path(), root).string(), read_text(entry.path())});
    }
  }
  std::sort(sources.begin(), sources.end(), [](const Source& a, const Source& b) { return a.path < b.path; });
  return sources;
}

std::string joined(const Complaints& complaints) {
  std::string text;
  for (const std::string& complaint : complaints) text += complaint + "\n";
  return text;
}

std::string complaints_of(Complaints (*rule)(const Source&)) {
  std::string text;
  for (const Source& source : all_sources()) text += joined(rule(source));
  return text;
}

}  // namespace

TEST_CASE("files are short, open with what they are, and have no tabs or trailing blanks", "[tidy]") {
  CHECK(complaints_of(check_shape) == "");
}
TEST_CASE("includes are rooted and never climb a floor", "[tidy]") { CHECK(complaints_of(check_includes) == ""); }
TEST_CASE("the preprocessor takes no decisions", "[tidy]") { CHECK(complaints_of(check_preprocessor) == ""); }
TEST_CASE("below the launcher nobody reads a clock, sleeps or rolls dice", "[tidy]") {
  CHECK(complaints_of(check_banned) == "");
}
TEST_CASE("who may read a clock below the launcher does", "[tidy]") {
  for (const auto& [path, reason] : kMayReadAClock) {
    INFO(path << ": " << reason);
    const std::string text = read_text(fs::path(TROUPE_SOURCE_DIR) / path);
    CHECK(std::any_of(kClocksAndDice.begin(), kClocksAndDice.end(),
                      [&](const auto& word) { return has_word(text, word); }));
  }
}
TEST_CASE("a library stays behind its fence", "[tidy]") {
  CHECK(complaints_of(check_fences) == "");
  CHECK(joined(check_caf(all_sources())) == "");
}
TEST_CASE("functions fit a screen", "[tidy]") { CHECK(complaints_of(check_functions) == ""); }
TEST_CASE("every source is built", "[tidy]") {
  const std::string build = read_text(fs::path(TROUPE_SOURCE_DIR) / "CMakeLists.txt");
  std::string text;
  for (const Source& source : all_sources()) text += joined(check_built(source, build));
  CHECK(text == "");
}

// ---- The rules themselves -------------------------------------------------------------------------------------------

TEST_CASE("the walk finds the sources of every floor", "[tidy]") {
  std::map<int, int> count;
  for (const Source& source : all_sources()) ++count[floor_of(source.path)];
  for (int floor = 0; floor < static_cast<int>(kFloors.size()); ++floor) CHECK(count[floor] >= 5);
  CHECK(count[-1] == 0);
}

TEST_CASE("the rule of shape complains", "[tidy]") {
  const auto count = [](const std::string& text) { return check_shape({"kernels/a.cc", text}).size(); };
  CHECK(count("// What it is.\nint a;\n") == 0);
  CHECK(count("") == 1);
  CHECK(count("int a;\n") == 1);
  CHECK(count("// What it is.\n\tint a;\n") == 1);
  CHECK(count("// What it is.\nint a; \n") == 1);
  CHECK(count("// What it is.\nint a;\r\n") == 1);
  CHECK(count("// What it is.") == 1);
  CHECK(count("// TO"
              "DO later\n") == 1);
  CHECK(count("// FIX"
              "ME later\n") == 1);
  std::string lines;
  for (int i = 0; i < kFileLinesMax; ++i) lines += "// line\n";
  CHECK(count(lines) == 0);
  CHECK(count(lines + "// line\n") == 1);
}

TEST_CASE("the rule of includes complains", "[tidy]") {
  const auto count = [](const std::string& path, const std::string& what) {
    return check_includes({path, "#include " + what + "\n"}).size();
  };
  CHECK(count("actors/a.cc", "\"messages/message.h\"") == 0);
  CHECK(count("actors/a.cc", "\"actors/data/corpus.h\"") == 0);
  CHECK(count("actors/a.cc", "<vector>") == 0);
  CHECK(count("actors/a.cc", "\"launcher/plan.h\"") == 1);
  CHECK(count("kernels/a.h", "\"messages/message.h\"") == 1);
  CHECK(count("launcher/a.cc", "\"tests/support/naive.h\"") == 1);
  CHECK(count("tests/a.cc", "\"tests/support/naive.h\"") == 0);
  CHECK(count("actors/a.cc", "\"a.h\"") == 1);
  CHECK(count("actors/a.cc", "\"data/corpus.h\"") == 1);
  CHECK(count("actors/a.cc", "\"actors/../kernels/op.h\"") == 1);
  CHECK(count("actors/a.cc", "<kernels/op.h>") == 1);
}

TEST_CASE("the rule of the preprocessor complains", "[tidy]") {
  const auto count = [](const std::string& path, const std::string& text) {
    return check_preprocessor({path, text}).size();
  };
  CHECK(count("kernels/a.h", "#pragma once\n#define A 1\n") == 0);
  CHECK(count("kernels/a.h", "// no guard\n") == 1);
  CHECK(count("kernels/a.cc", "#ifdef A\n#endif\n") == 1);
  CHECK(count("kernels/a.cc", "  # if A\n# elif B\n#else\n#endif\n") == 3);
}

TEST_CASE("the rule of clocks and dice complains, but only where it holds", "[tidy]") {
  const auto count = [](const std::string& path, const std::string& text) { return check_banned({path, text}).size(); };
  CHECK(count("actors/a.cc", "auto now = std::chrono::steady_clock::now();\n") == 1);
  CHECK(count("kernels/model/a.cc", "std::rand(); getenv(\"A\");\n") == 2);
  CHECK(count("kernels/a.cc", "std::mt19937 generator;\n") == 1);
  CHECK(count("messages/a.cc", "::usleep(10);\n") == 1);
  CHECK(count("messages/a.cc", "condition.wait_for(lock, 1s);\n") == 1);
  CHECK(count("messages/ucx.cc", "auto now = std::chrono::steady_clock::now();\n") == 0);
  CHECK(count("actors/a.cc", "Tensor operand(int a); double segment_time(); settle_time(3);\n") == 0);
  CHECK(count("actors/a.cc", "int a;  // no steady_clock here\n") == 0);
  CHECK(count("launcher/a.cc", "auto now = std::chrono::steady_clock::now();\n") == 0);
}

TEST_CASE("the rule of fences complains outside and is silent inside", "[tidy]") {
  const auto count = [](const std::string& path, const std::string& what) {
    return check_fences({path, "#include " + what + "\n"}).size();
  };
  CHECK(count("messages/codec.cc", "<capnp/message.h>") == 0);
  CHECK(count("messages/link.cc", "<capnp/message.h>") == 1);
  CHECK(count("messages/link.cc", "\"messages/schema.capnp.h\"") == 1);
  CHECK(count("messages/ucx.cc", "<ucp/api/ucp.h>") == 0);
  CHECK(count("messages/ucx_report.cc", "<uct/api/uct.h>") == 0);
  CHECK(count("messages/ucx.h", "<ucp/api/ucp.h>") == 1);
  CHECK(count("launcher/config.cc", "<toml++/toml.h>") == 0);
  CHECK(count("launcher/config.h", "<toml++/toml.h>") == 1);
  CHECK(count("tests/a.cc", "<toml++/toml.h>") == 1);
  CHECK(count("launcher/cli.cc", "<CLI/CLI.hpp>") == 0);
  CHECK(count("launcher/main.cc", "<CLI/CLI.hpp>") == 1);
  CHECK(count("actors/a.cc", "<spdlog/spdlog.h>") == 1);
  CHECK(count("actors/data/pre_tokenizer.cc", "<pcre2.h>") == 0);
  CHECK(count("actors/data/tokenizer.cc", "<pcre2.h>") == 1);
  CHECK(count("actors/data/tokenizer.cc", "<unicode/normalizer2.h>") == 1);
  const Source user{"actors/a.cc", "#include <caf/all.hpp>\n"};
  CHECK(check_caf({user, user, user}).empty());
  CHECK(check_caf({user, user, user, user}).size() == 4);
}

TEST_CASE("the rule of function length complains at the first line too many", "[tidy]") {
  const auto function = [](int body_lines) {
    std::string text = "namespace troupe {\nint f(int a,\n      int b) {\n";
    for (int i = 0; i < body_lines; ++i) text += i % 9 == 0 ? "\n" : "  a += b;\n";
    return text + "}\n";
  };
  const int signature_and_end = 3;
  CHECK(check_functions({"a.cc", function(kFunctionLinesMax - signature_and_end)}).empty());
  const auto found = check_functions({"a.cc", function(kFunctionLinesMax - signature_and_end + 1)});
  REQUIRE(found.size() == 1);
  CHECK(has(found[0], "a.cc:2: function of 71 lines"));
  std::string scope = "namespace {\n";
  for (int i = 0; i < 100; ++i) scope += "  int a;\n";
  CHECK(check_functions({"a.cc", scope + "}\n"}).empty());
}

TEST_CASE("a source that the build doesn't name is found", "[tidy]") {
  CHECK(check_built({"kernels/a.cc", ""}, "kernels/b.cc").size() == 1);
  CHECK(check_built({"kernels/a.cc", ""}, "kernels/a.cc").empty());
  CHECK(check_built({"kernels/a.h", ""}, "").empty());
}

}  // namespace troupe
