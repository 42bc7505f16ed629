// `troupe compare`: what differs between runs, and whether their bits do.
#include <algorithm>
#include <cmath>
#include <sstream>

#include "launcher/compare_runs.h"
#include "launcher/config.h"
#include "launcher/run_charts.h"
#include "launcher/svg_text.h"
#include "tests/support/run.h"
#include "tests/support/xml.h"

#include "tests/support/catch.h"

using namespace troupe;
using namespace troupe::test;

namespace {

Config tiny(const std::vector<std::string>& sets) { return load_config(TROUPE_SOURCE_DIR "/configs/tiny.toml", sets); }

RunMetrics with_losses(const std::vector<double>& losses) {
  RunMetrics metrics;
  for (std::size_t i = 0; i < losses.size(); ++i)
    metrics.steps[static_cast<double>(i)] = {{"loss", losses[i]}, {"tokens", 256.0 * static_cast<double>(i + 1)}};
  return metrics;
}

ComparedRun run_with(const std::string& name, const RunMetrics& metrics) { return {name, tiny({}), metrics, -1, ""}; }

std::string value_of(const std::vector<ComparedLine>& lines, const std::string& what, std::size_t run) {
  for (const ComparedLine& line : lines)
    if (line.what == what) return line.values.at(run);
  return "";
}

std::size_t widest(const std::string& text) {
  std::size_t most = 0;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) most = std::max(most, letters(line));
  return most;
}

}  // namespace

TEST_CASE("every key that differs is told, and whether it changes the numbers", "[compare]") {
  const auto differences = config_differences({tiny({}), tiny({"train.seed=2", "layout.nodes=2"})});
  REQUIRE(differences.size() == 2);
  CHECK((differences[0].key == "train.seed" && differences[0].numbers));
  CHECK(differences[0].values == std::vector<std::string>{"1", "2"});
  CHECK((differences[1].key == "layout.nodes" && !differences[1].numbers));
  CHECK(config_differences({tiny({}), tiny({}), tiny({})}).empty());
  CHECK(config_differences({tiny({}), tiny({}), tiny({"train.seed=7"})}).size() == 1);
}

TEST_CASE("losses are compared bit for bit, at the steps that both have", "[compare]") {
  const RunMetrics first = with_losses({5, 4, 3}), same = with_losses({5, 4, 3, 2});
  CHECK(!first_loss_difference(first, same));
  CHECK(common_steps(first, same) == 3);
  const auto difference = first_loss_difference(first, with_losses({5, std::nextafter(4, 5), 1}));
  REQUIRE(difference);
  CHECK((difference->step == 1 && difference->first == 4));
  CHECK(!first_loss_difference(with_losses({std::nan("")}), with_losses({std::nan("")})));
}

TEST_CASE("results are told of runs that have them, the best loss with its step", "[compare]") {
  RunMetrics first = with_losses({5, 2, 3});
  first.evaluations[2] = {{"loss", 2.5}};
  first.bill = {{"thread_seconds", {{"useful", 3.0}, {"bubble", 1.0}}}, {"total_thread_seconds", 4.0}, {"losses", 2}};
  const auto lines = compared_lines({run_with("a", first), run_with("b", with_losses({5, std::nan("")}))});
  CHECK(value_of(lines, "loss, last", 0) == "3.0000 (step 2)");
  CHECK(value_of(lines, "loss, best", 0) == "2.0000 (step 1)");
  CHECK(value_of(lines, "loss, last", 1) == "5.0000 (step 0)");
  CHECK(value_of(lines, "held-out loss, last", 0) == "2.5000 (after 2)");
  CHECK(value_of(lines, "held-out loss, last", 1) == "-");
  CHECK(value_of(lines, "  useful", 0) == "75.0 % (3.00 s)");
  CHECK(value_of(lines, "processes lost", 0) == "2");
  CHECK(value_of(lines, "  imbalance", 0) == "");
  CHECK(value_of(lines, "reward, last tenth", 0) == "");
}

TEST_CASE("the table of two runs fits 80 columns, however long names and values are", "[compare]") {
  ComparedRun first = run_with(std::string(70, 'x'), with_losses({5, 4})), second = run_with("b", with_losses({5, 3}));
  second.config = tiny({"data.files=[\"" + std::string(90, 'y') + "\"]", "train.seed=12345678"});
  const std::string table = compared_table({first, second});
  INFO(table);
  CHECK(widest(table.substr(0, table.find("Bit for bit"))) <= 80);
  CHECK(has(table, "yyy..."));
  CHECK(has(table, "differ first at step 1: 4 and 3"));
}

TEST_CASE("curves of runs share charts, the second dashed, so that one under another is seen", "[compare]") {
  const auto charts = compared_charts({{"a", with_losses({5, 4})}, {"b", with_losses({5, 4})}});
  REQUIRE(charts.size() == 2);
  CHECK((charts[0].title == "loss" && charts[1].title == "loss by tokens"));
  REQUIRE(charts[1].series.size() == 2);
  CHECK((!charts[1].series[0].dashed && charts[1].series[1].dashed));
  CHECK(charts[1].series[0].points[1].x == 512);
}

TEST_CASE("real runs of one seed on two layouts have the same bits, of two seeds not", "[compare]") {
  const Folder folder;
  for (const auto& [name, set] :
       {std::pair{"one", "layout.nodes=1"}, {"two", "layout.nodes=2"}, {"seed", "train.seed=2"}})
    REQUIRE(test::troupe(tiny_run(folder / name, {set})).code == 0);
  const Ended same = test::troupe({"compare", folder / "one", folder / "two"});
  INFO(same.out << same.err);
  REQUIRE(same.code == 0);
  for (const std::string part :
       {"layout.nodes", "changes no number", "the same, bit for bit, after 6 steps", "the same bits in all 6 steps"})
    CHECK(has(same.out, part));
  CHECK(!has(same.out, "changes the numbers"));
  const Ended other = test::troupe({"compare", folder / "one", folder / "seed", "--out", folder / "both.svg"});
  REQUIRE(other.code == 0);
  for (const std::string part :
       {"train.seed", "changes the numbers", "weights: not the same", "differ first at step 0"})
    CHECK(has(other.out, part));
  CHECK(why_malformed(read_file(folder / "both.svg")) == "");
  CHECK(has(read_file(folder / "both.svg"), "loss by tokens"));
  for (const Arguments& refused : {Arguments{"compare", folder / "one"},
                                   {"compare", folder / "one", folder / "one"},
                                   {"compare", folder / "one", folder / "none"},
                                   {"compare", folder / "one", folder / "two", "--out", "/none/x"}}) {
    const Ended ended = test::troupe(refused);
    CHECK(ended.code == 1);
    CHECK(count(ended.err, "\n") == 1);
  }
}
