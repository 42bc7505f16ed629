// When a run's own figures say that its reward is being hacked, and when they don't.
#include <nlohmann/json.hpp>

#include "kernels/base/random.h"
#include "launcher/alarm.h"
#include "launcher/train.h"
#include "tests/support/run.h"

#include "tests/support/catch.h"

using namespace troupe;

namespace {

// 300 steps and an evaluation every 10; in the last third both move by so much, under noise.
RewardSeries series(double reward_change, double accuracy_change, std::uint64_t seed) {
  RewardSeries s;
  const auto moved = [](int step, double change) { return step < 200 ? 0 : change * (step - 200) / 100; };
  for (int step = 0; step < 300; ++step)
    s.reward.emplace_back(
        step, 0.5 + moved(step, reward_change) + 0.05 * random_normal(seed, static_cast<std::uint64_t>(step)));
  for (int step = 0; step <= 300; step += 10)
    s.accuracy.emplace_back(
        step, 0.4 + moved(step, accuracy_change) + 0.01 * random_normal(seed, static_cast<std::uint64_t>(step), 1));
  return s;
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("a reward that rises while held-out accuracy falls raises the alarm", "[alarm]") {
  const RewardAlarm alarm = reward_alarm(series(0.2, -0.1, 1));
  INFO(alarm.sentence);
  CHECK(alarm.known);
  CHECK(alarm.raised);
  CHECK(alarm.first_step == 200);
  CHECK(alarm.last_step == 300);
  CHECK(alarm.reward.over_window == Approx(0.2).margin(0.05));
  CHECK(alarm.accuracy.over_window == Approx(-0.1).margin(0.03));
  CHECK(has(alarm.sentence, "reward hacking: from step 200 to 300 the training reward rose by 0."));
  CHECK(has(alarm.sentence, "held-out accuracy fell by "));
}

TEST_CASE("no alarm is raised where both rise, both fall, or nothing moves by much", "[alarm]") {
  for (const auto& [reward, accuracy] : std::vector<std::pair<double, double>>{
           {0.2, 0.1}, {-0.2, -0.1}, {0.2, 0}, {0, -0.1}, {0.2, -0.01}, {-0.2, 0.1}}) {
    const RewardAlarm alarm = reward_alarm(series(reward, accuracy, 2));
    INFO(alarm.sentence);
    CHECK(alarm.known);
    CHECK(!alarm.raised);
    CHECK(alarm.sentence.starts_with("no sign of reward hacking: "));
  }
}

TEST_CASE("jitter alone raises the alarm in fewer than one of a hundred runs", "[alarm]") {
  int raised = 0;
  for (std::uint64_t run = 0; run < 200; ++run) raised += reward_alarm(series(0, 0, 100 + run)).raised ? 1 : 0;
  CHECK(raised <= 2);
}

TEST_CASE("a fall before the last third is over: the alarm is about what goes on", "[alarm]") {
  RewardSeries s = series(0, 0, 3);
  for (auto& [step, reward] : s.reward) reward += step < 100 ? step / 500 : 0.2;
  for (auto& [step, accuracy] : s.accuracy) accuracy -= step < 100 ? step / 1000 : 0.1;
  CHECK(!reward_alarm(s).raised);
}

TEST_CASE("of fewer than five evaluations nothing is told, and of few the window is longer than a third", "[alarm]") {
  RewardSeries s = series(0.2, -0.1, 1);
  CHECK(!reward_alarm({}).known);
  RewardSeries few = s;
  few.accuracy = {{0, 0.5}, {100, 0.4}, {200, 0.3}, {300, 0.2}};
  CHECK(!reward_alarm(few).known);
  CHECK(has(reward_alarm(few).sentence, "4 evaluations"));
  few.accuracy = {{0, 0.6}, {75, 0.5}, {150, 0.4}, {225, 0.3}, {300, 0.2}};
  const RewardAlarm alarm = reward_alarm(few);
  CHECK(alarm.raised);
  CHECK(alarm.first_step == 0);
}

TEST_CASE("a run's metrics are read as two series, of a step told twice the later", "[alarm]") {
  const test::Folder folder;
  const std::string path = folder / "metrics.jsonl";
  test::write_file(path,
                   "{\"kind\":\"answers\",\"version\":0,\"accuracy\":0.1}\n"
                   "{\"kind\":\"step\",\"step\":0,\"reward\":0.25,\"loss\":1}\n"
                   "{\"kind\":\"step\",\"step\":1,\"reward\":0.5}\n"
                   "{\"kind\":\"step\",\"step\":1,\"reward\":0.75}\n"
                   "{\"kind\":\"answers\",\"version\":2,\"accuracy\":0.3}\n"
                   "{\"kind\":\"step\",\"step\":2,\"rew");
  const RewardSeries s = read_reward_series(path);
  CHECK(s.reward == std::vector<Point>{{0, 0.25}, {1, 0.75}});
  CHECK(s.accuracy == std::vector<Point>{{0, 0.1}, {2, 0.3}});
  CHECK(read_reward_series(folder / "none").reward.empty());
}

TEST_CASE("a run tells the alarm once, and of nothing without a sign", "[alarm]") {
  const test::Folder folder;
  Config config;
  config.kind = "grpo";
  const nlohmann::json look{{"kind", "answers"}};
  for (const double fall : {-0.1, 0.1}) {
    const std::string path = folder / (fall < 0 ? "hacked" : "sound");
    RunFolder run(path, false);
    const RewardSeries s = series(0.2, fall, 1);
    for (const auto& [step, reward] : s.reward)
      run.append_metrics(nlohmann::json{{"kind", "step"}, {"step", step}, {"reward", reward}}.dump());
    for (const auto& [version, accuracy] : s.accuracy)
      run.append_metrics(nlohmann::json{{"kind", "answers"}, {"version", version}, {"accuracy", accuracy}}.dump());
    look_at_alarm(config, run, {{"kind", "step"}});
    CHECK(test::metrics_of(path, "alarm").empty());
    for (int i = 0; i < 3; ++i) look_at_alarm(config, run, look);
    CHECK(test::metrics_of(path, "alarm").size() == (fall < 0 ? 1 : 0));
  }
}
