// `troupe plot`: the load of the experts, the bill and the whole page; curves have their own tests.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "launcher/bill_svg.h"
#include "launcher/heat_map_svg.h"
#include "launcher/load_map.h"
#include "launcher/run_metrics.h"
#include "launcher/svg_page.h"
#include "launcher/svg_text.h"
#include "tests/support/run.h"
#include "tests/support/xml.h"

#include "tests/support/catch.h"

using namespace troupe;
using namespace troupe::test;
using nlohmann::json;

namespace {

std::string step_line(int step, const json& rows) {
  return json{{"kind", "step"}, {"step", step}, {"loss", 5.0 - step}, {"expert_layers", {1, 3}}, {"expert_rows", rows}}
             .dump() +
         "\n";
}

RunMetrics metrics_of_text(const std::string& text) {
  const Folder folder;
  write_file(folder / "metrics.jsonl", text);
  return read_run_metrics(folder / "metrics.jsonl");
}

HeatMap small_map(const std::vector<double>& row) {
  HeatMap map{.title = "load & more", .x_label = "step", .columns = {}, .end = 0, .bands = {{"layer 1", {row}}}};
  for (std::size_t i = 0; i < row.size(); ++i) map.columns.push_back(static_cast<double>(i));
  map.end = static_cast<double>(row.size());
  return map;
}

}  // namespace

TEST_CASE("metrics are read back by step, the later of two, and what a kill cut off is passed over", "[plot]") {
  const RunMetrics metrics = metrics_of_text(step_line(0, json::array()) + step_line(1, json::array()) +
                                             "{\"kind\":\"step\",\"step\":1,\"loss\":null,\"verdict\":\"skip\"}\n"
                                             "{\"kind\":\"evaluation\",\"version\":2,\"loss\":3.5}\n"
                                             "{\"kind\":\"bill\",\"useful\":0.5}\n{\"kind\":\"step\",\"st");
  REQUIRE(metrics.steps.size() == 2);
  CHECK(metrics.steps.at(0).at("loss") == 5.0);
  CHECK(std::isnan(metrics.steps.at(1).at("loss")));
  CHECK(metrics.evaluations.at(2).at("loss") == 3.5);
  CHECK(metrics.bill["useful"] == 0.5);
  CHECK(metrics.load.empty());
}

TEST_CASE("the load of experts is over the mean of their layer, and many steps share columns", "[plot]") {
  std::string text;
  for (int step = 0; step < 1000; ++step) text += step_line(step, {{1, 3}, {step < 500 ? 4 : 0, 2, 0, 2}});
  const RunMetrics metrics = metrics_of_text(text);
  CHECK((metrics.load.size() <= kLoadColumnsMax && metrics.load.size() > kLoadColumnsMax / 2));
  int steps = 0;
  for (const LoadColumn& column : metrics.load) {
    CHECK(column.step == steps);
    CHECK((column.steps == metrics.load.front().steps || &column == &metrics.load.back()));
    steps += column.steps;
  }
  CHECK(steps == 1000);
  CHECK(metrics.load[0].load[0] == std::vector<double>{0.5, 1.5});
  CHECK(metrics.load[0].load[1][0] == 2.0);
  CHECK(metrics.load.back().load[1][0] == 0.0);
  const HeatMap map = load_map(metrics);
  REQUIRE(map.bands.size() == 2);
  CHECK((map.bands[0].label == "layer 1" && map.bands[1].label == "layer 3"));
  CHECK((map.bands[0].rows.size() == 2 && map.bands[1].rows.size() == 4 && map.end == 1000));
}

TEST_CASE("of more experts than there is room for, each layer's busiest is shown", "[plot]") {
  std::vector<int> rows(2 * kLoadRowsMax, 1);
  rows[7] = 3;
  const HeatMap map = load_map(metrics_of_text(step_line(0, {rows, rows})));
  REQUIRE(map.bands.size() == 2);
  REQUIRE(map.bands[0].rows.size() == 1);
  CHECK(map.bands[0].rows[0][0] == Approx(3.0).epsilon(0.01));
  CHECK(load_map(RunMetrics{}).bands.empty());
}

TEST_CASE("a heat map has a colour for what is even, less and more, and joins what is alike", "[plot]") {
  const std::string svg = heat_map_svg(small_map({1, 1, 1, 0, 9, 0.5, std::nan(""), 1}));
  INFO(svg);
  CHECK(why_malformed(svg) == "");
  for (const std::string part : {"load &amp; more", "layer 1", "even", "prefers-color-scheme:dark", ">step<",
                                 "<path class=\"h0\"", "<path class=\"h4\"", "<path class=\"h16\""})
    CHECK(has(svg, part));
  const std::size_t even = svg.find("<path class=\"h8\"");
  REQUIRE(even != std::string::npos);
  CHECK(count(svg.substr(even, svg.find("/>", even) - even), "M") == 2);
  CHECK(!has(svg, "nan"));
  HeatMap large = small_map(std::vector<double>(400, 1));
  for (int band = 0; band < 200; ++band) {
    large.bands.push_back({"layer", {{}}});
    for (int i = 0; i < 400; ++i) large.bands.back().rows[0].push_back(i % 3);
  }
  CHECK(heat_map_svg(large).size() < 2'000'000);
  CHECK(why_malformed(heat_map_svg({})) == "");
}

TEST_CASE("the bill is a bar whose pieces are the shares, by name", "[plot]") {
  const json line{{"thread_seconds", {{"useful", 30.0}, {"bubble", 10.0}}}, {"cost_dollars", 0.5}};
  const std::string svg = bill_svg({{"a<b", line}, {"other", {{"thread_seconds", {{"useful", 1.0}}}}}});
  INFO(svg);
  CHECK(why_malformed(svg) == "");
  for (const std::string part : {"a&lt;b", "40.0 thread-seconds, $0.500", "75 %", "25 %", "75.0 / 100.0 %",
                                 "25.0 / 0.0 %", "<title>bubble: 25.0 %"})
    CHECK(has(svg, part));
  CHECK(!has(svg, "imbalance"));
  CHECK(why_malformed(bill_svg({{"", json::object()}})) == "");
}

TEST_CASE("a page holds its parts under one another, on a ground of its own", "[plot]") {
  const std::string part = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"500\" height=\"100\"></svg>\n";
  const std::string page = svg_page("runs & more", {"a line"}, {{part}, {part, -20}});
  INFO(page);
  CHECK(why_malformed(page) == "");
  CHECK(count(page, "<svg ") == 3);
  CHECK(has(page, "runs &amp; more"));
  CHECK(has(page, "class=\"pg\""));
  CHECK(has(page, "width=\"548\""));
  CHECK((has(page, "x=\"24\" y=\"104\"") && has(page, "x=\"4\" y=\"230\"")));
}

TEST_CASE("numbers are told with as many digits as count", "[plot]") {
  CHECK(figure_text(93'958) == "94.0k");
  CHECK(figure_text(1234) == "1234");
  CHECK(figure_text(0.00123456) == "0.00123");
  CHECK(counted(0) == "0");
  CHECK(counted(999) == "999");
  CHECK(counted(1'234'567) == "1,234,567");
}

TEST_CASE("a real run's picture has its curves, load, bill and a step, and what is missing is left out", "[plot]") {
  const Folder folder;
  REQUIRE(test::troupe(tiny_run(folder / "run", {"layout.nodes=2"})).code == 0);
  REQUIRE(test::troupe({"plot", folder / "run", "--out", folder / "run.svg"}).code == 0);
  const std::string svg = read_file(folder / "run.svg");
  CHECK(why_malformed(svg) == "");
  for (const std::string part : {"6 steps", ">loss<", ">tokens a second<", "load of each expert", "layer 1", "layer 2",
                                 "where the time", "tiny: a step of", "node 1"})
    CHECK(has(svg, part));
  REQUIRE(test::troupe(tiny_run(folder / "silent", {"inspect.journal_mib=0"})).code == 0);
  REQUIRE(test::troupe({"plot", folder / "silent", "--out", folder / "silent.svg"}).code == 0);
  CHECK(!has(read_file(folder / "silent.svg"), "a step of"));
  CHECK(has(read_file(folder / "silent.svg"), "where the time"));
  const Ended ended = test::troupe({"plot", folder / "none", "--out", folder / "none.svg"});
  CHECK((ended.code == 1 && has(ended.err, "name a run's folder")));
}
