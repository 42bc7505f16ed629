// Charts: well-formed XML that says what it shows.
#include <cmath>
#include <vector>

#include "launcher/run_charts.h"
#include "tests/support/run.h"
#include "tests/support/xml.h"

#include "tests/support/catch.h"

using namespace troupe;
using test::count, test::has, test::why_malformed;

namespace {

Chart small_chart() {
  return {.title = "reward & <accuracy>",
          .x_label = "step",
          .unit = " %",
          .scale = 100,
          .from_zero = true,
          .series = {{"sampled", {{0, 0.1}, {20, 0.4}, {40, 0.71}}},
                     {"each", {{0, 0.2}, {40, 0.6}}, true},
                     {"greedy", {{0, 0.2}, {20, std::nan("")}, {40, 0.9}}}}};
}

}  // namespace

TEST_CASE("a chart is well-formed, and tells title, axes, series and values", "[chart]") {
  const std::string svg = svg_charts({small_chart()});
  INFO(svg);
  CHECK(why_malformed(svg) == "");
  for (const std::string part :
       {"<title>reward &amp; &lt;accuracy&gt;</title>",
        "sampled: from step 0 to 40, between 10.0 % and 71.0 %, at last 71.0 %", ">sampled<", ">greedy<", ">step<",
        "prefers-color-scheme:dark", "currentColor", "<title>sampled, step 20: 40.0 %</title>"})
    CHECK(has(svg, part));
  CHECK(!has(svg, ">each<"));  // a faint series has no legend
  CHECK(count(svg, "<circle") == 3 + 2);
  CHECK(!has(svg, "nan"));
  CHECK(!has(svg, "inf"));
}

TEST_CASE("a chart of nothing, of one point and of many is well-formed too", "[chart]") {
  Chart chart = small_chart();
  chart.series = {};
  CHECK(has(svg_charts({chart}), "nothing to show yet"));
  CHECK(why_malformed(svg_charts({chart})) == "");
  chart.series = {{"one", {{5, 0}}}};
  CHECK(why_malformed(svg_charts({chart})) == "");
  CHECK(!has(svg_charts({chart}), "nan"));
  chart.series = {{"none", {{5, std::nan("")}}}};
  CHECK(has(svg_charts({chart}), "nothing to show yet"));
  chart.series = {{"many", {}}};
  for (int i = 0; i < 100'000; ++i) chart.series[0].points.push_back({static_cast<double>(i), std::sin(i * 0.001)});
  const std::string svg = svg_charts({chart});
  CHECK(why_malformed(svg) == "");
  CHECK(svg.size() < 30'000);
  CHECK(has(svg, ">80k<"));
}

TEST_CASE("several charts are one picture", "[chart]") {
  const std::string svg = svg_charts({small_chart(), small_chart(), small_chart()}, 2, 500, 300);
  CHECK(why_malformed(svg) == "");
  CHECK(has(svg, "viewBox=\"0 0 1000 600\""));
  CHECK(count(svg, "<g role=\"img\"") == 3);
  CHECK(count(svg, "<style>") == 1);
}

TEST_CASE("marks are round numbers that cover the range", "[chart]") {
  CHECK(nice_ticks(0, 100, 5) == std::vector<double>{0, 20, 40, 60, 80, 100});
  CHECK(nice_ticks(0, 1, 5).size() == 6);
  CHECK(nice_ticks(3, 7, 4) == std::vector<double>{3, 4, 5, 6, 7});
  CHECK(nice_ticks(-0.3, 0.9, 5).front() == Approx(-0.5).margin(0.11));
  for (const double high : {1e-9, 0.3, 7.7, 1234.5, 8e12}) {
    const std::vector<double> ticks = nice_ticks(0, high, 5);
    CHECK(ticks.front() == 0);
    CHECK(ticks.back() >= high * (1 - 1e-6));
    CHECK((ticks.size() >= 3 && ticks.size() <= 8));
  }
}

TEST_CASE("a run's metrics become the charts that they have figures for", "[chart]") {
  const test::Folder folder;
  const std::string path = folder / "metrics.jsonl";
  std::string text;
  for (int i = 0; i < 100; ++i)
    text += "{\"kind\":\"step\",\"step\":" + std::to_string(i) +
            ",\"reward\":0.5,\"entropy\":1.5,\"length_mean\":5,\"loss\":null}\n";
  text += "{\"kind\":\"answers\",\"version\":0,\"accuracy\":0.1,\"greedy\":0.2,\"pass\":0.6,\"pass_k\":8}\n";
  test::write_file(path, text);
  std::vector<std::string> titles;
  for (const Chart& chart : run_charts(path)) titles.push_back(chart.title);
  CHECK(titles == std::vector<std::string>{"training reward", "held-out problems answered right",
                                           "entropy, nats a token", "length of an answer, tokens"});
  const std::string svg = svg_charts(run_charts(path));
  CHECK(why_malformed(svg) == "");
  CHECK(has(svg, ">pass@8<"));
  CHECK(run_charts(folder / "none").empty());
}
