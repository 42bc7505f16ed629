// The full screen without a terminal: keys and a view in, lines out.
#include "launcher/inspect/screen.h"

#include <clocale>

#include "launcher/inspect/bars.h"
#include "launcher/inspect/table.h"
#include "tests/support/catch.h"

using namespace troupe;

namespace {

using Name = Key::Name;
constexpr Address kLoader{Role::loader, 0};

ActorView actor(const Address& address, std::uint32_t node, double messages_per_second) {
  ActorView view;
  view.address = address;
  view.node = node;
  view.state = "idle";
  view.messages_per_second = messages_per_second;
  return view;
}

NodeView node(std::uint32_t number, const std::string& life) {
  NodeView view;
  view.node = number;
  view.pid = 70 + number;
  view.life = life;
  view.threads.resize(2);
  return view;
}

// A loader and so many shards on two nodes; shard i handles 10 i messages a second.
View view_of(std::uint32_t shards) {
  View view;
  view.name = "tiny";
  view.options.run = "runs/x";
  view.steps = 9;
  view.why.root = "nothing stands still: the loader computes";
  view.nodes = {node(0, "running"), node(1, "running")};
  view.actors.push_back(actor(kLoader, 0, 5));
  for (std::uint32_t i = 0; i < shards; ++i) view.actors.push_back(actor({Role::expert_shard, i}, i % 2, 10.0 * i));
  view.figures.step = {{"kind", "step"}, {"step", 3}, {"loss", 1.75}, {"tokens_per_second", 4100.0}};
  view.figures.bill = {{"thread_seconds", {{"useful", 6.0}, {"messages", 3.0}, {"bubble", 1.0}}},
                       {"total_thread_seconds", 10.0},
                       {"cost_dollars", 0.5}};
  view.figures.experts.push_back({3, {1, 2}, {{5, 5, 10}, {8, 1, 1}}});
  return view;
}

struct Desk {
  explicit Desk(std::uint32_t shards) : view(view_of(shards)) { std::setlocale(LC_CTYPE, "C.UTF-8"); }
  View view;
  ScreenSize size{24, 120};
  Screen screen{ActorOrder::actor, "", true};
  std::vector<LastMessage> messages;

  Lines lines() { return screen.draw(view, messages, size); }
  std::string text() {
    std::string all;
    for (const Line& line : lines()) all += plain_text(line) + "\n";
    return all;
  }
  Screen::Wish press(Name name) { return screen.press({name, ""}, view); }
  // A letter each.
  Screen::Wish type(const std::string& letters) {
    Screen::Wish last;
    for (const char letter : letters) last = screen.press({Name::letter, std::string(1, letter)}, view);
    return last;
  }
  bool shows(const std::string& part) { return text().find(part) != std::string::npos; }
};

// Whether the text stands there in that tone.
bool has_in_tone(const Lines& lines, const std::string& part, Tone tone) {
  for (const Line& line : lines)
    for (const Span& span : line)
      if (span.tone == tone && span.text.find(part) != std::string::npos) return true;
  return false;
}

}  // namespace

TEST_CASE("a screen has as many lines as the terminal has rows, each as wide, whatever it shows", "[inspect]") {
  Desk desk(1000);
  for (const std::string pane : {"", "w", "b", "e", "n", "?", "/"})
    for (const ScreenSize size : {ScreenSize{24, 80}, {10, 40}, {60, 200}, {3, 20}, {1, 1}}) {
      Desk here(30);
      here.size = size;
      here.type(pane);
      if (pane.empty()) here.screen.tell("a sentence", true);
      const Lines lines = here.lines();
      INFO(pane << " in " << size.columns << "x" << size.rows);
      REQUIRE(static_cast<int>(lines.size()) == size.rows);
      for (const Line& line : lines) CHECK(columns_of(plain_text(line)) == size.columns);
    }
}

TEST_CASE("the screen tells run, step, loss, speed, verdict, nodes, bill and load above the actors", "[inspect]") {
  Desk desk(2);
  for (const char* part : {"tiny", "step 0 of 9", "loss 1.7500", "4100 tokens/s", "healthy: nothing stands still\n",
                           "node 1  running", "useful 60 %", "layer 2", ">loader 0", "q quit"}) {
    INFO(part << " in\n" << desk.text());
    // Lines end in blanks.
    std::string all;
    for (const Line& line : desk.lines()) {
      std::string text = plain_text(line);
      all += text.substr(0, text.find_last_not_of(' ') + 1) + "\n";
    }
    CHECK(all.find(part) != std::string::npos);
  }
}

TEST_CASE("s goes to the next order, S turns it round; whoever is selected stays so", "[inspect]") {
  Desk desk(3);
  CHECK(desk.shows(">loader 0"));
  desk.type("sss");
  CHECK(desk.shows("sort: messages"));
  CHECK(desk.shows(">expert_shard 2"));  // at the top, whoever comes there
  desk.press(Name::down);
  CHECK(desk.shows(">expert_shard 1"));
  desk.type("S");
  CHECK(desk.shows(">expert_shard 1"));
  desk.press(Name::home);
  CHECK(desk.shows(">expert_shard 0"));
}

TEST_CASE("a filter is typed, kept by Enter and cleared by Esc; its letters are no keys", "[inspect]") {
  Desk desk(12);
  CHECK(!desk.type("/shard 11q").quit);
  CHECK(desk.shows("filter: shard 11q"));
  desk.press(Name::backspace);
  desk.press(Name::enter);
  CHECK(desk.shows(">expert_shard 11"));
  CHECK(desk.shows("1 of 13 actors"));
  CHECK(!desk.shows("loader 0"));
  desk.press(Name::escape);
  CHECK(desk.shows(">loader 0"));
  desk.type("/nobody");
  CHECK(desk.shows("no actor's line holds \"nobody\""));
  desk.press(Name::escape);
  CHECK(desk.shows(">loader 0"));
  CHECK(desk.type("q").quit);
}

TEST_CASE("of a thousand actors the selected one is always seen", "[inspect]") {
  Desk desk(1000);
  desk.lines();
  desk.press(Name::end);
  CHECK(desk.shows(">expert_shard 999"));
  desk.press(Name::page_up);
  CHECK(desk.shows(">expert_shard 9"));
  CHECK(!desk.shows(">expert_shard 999"));
  desk.press(Name::home);
  CHECK(desk.shows(">loader 0"));
  desk.press(Name::page_down);
  CHECK(desk.shows(">expert_shard 1"));
  desk.view = view_of(2);  // those selected are gone
  CHECK(desk.shows(">loader 0"));
}

TEST_CASE("Enter opens an actor: its waits, credits, weights and last messages; Esc goes back", "[inspect]") {
  Desk desk(2);
  ActorView& shard = desk.view.actors[1];
  shard.version = 8;
  shard.channels = {{kLoader, 1, 4}};
  shard.waits = {{"tokens", "step 3 microbatch 1", kLoader, 4000}, {"tokens", "step 3 microbatch 2", kLoader, 3000}};
  LastMessage message;
  message.record.from_role = static_cast<std::uint8_t>(Role::loader);
  message.record.to_role = static_cast<std::uint8_t>(Role::expert_shard);
  message.record.kind = static_cast<std::uint8_t>(Message(TokenBatch{}).index());
  message.record.step = 3;
  message.record.microbatch = 1;
  message.record.took_us = 77;
  desk.messages = {message};
  CHECK(!desk.screen.opened());
  desk.press(Name::down);
  desk.press(Name::enter);
  CHECK(desk.screen.opened() == Address{Role::expert_shard, 0});
  for (const char* part : {"weights version 8", "credits: loader 0 1 of 4 free",
                           "waits for tokens, held by loader 0, for 4.0 ms: step 3 microbatch 1, and 1 more",
                           "from loader 0", "TokenBatch", "3/1/-", "77 us"}) {
    INFO(part << " in\n" << desk.text());
    CHECK(desk.shows(part));
  }
  desk.press(Name::escape);
  CHECK(!desk.screen.opened());
  CHECK(desk.shows(">expert_shard 0"));
}

TEST_CASE("what is stuck is red: the verdict, the row, the root of the chain", "[inspect]") {
  Desk desk(2);
  desk.view.healthy = false;
  desk.view.why.kind = RootKind::handler;
  desk.view.why.root = "loader 0 (node 0) has been handling StartStep from conductor 0 for 3.0 s";
  desk.view.why.links = {"conductor 0 waits"};
  desk.view.actors[0].state = "stuck";
  CHECK(has_in_tone(desk.lines(), "NOT HEALTHY: loader 0 (node 0) has been handling StartStep", Tone::bad));
  CHECK(has_in_tone(desk.lines(), "stuck", Tone::bad));
  desk.type("w");
  CHECK(desk.shows(" 1. conductor 0 waits"));
  CHECK(has_in_tone(desk.lines(), "root: loader 0", Tone::bad));
  desk.type("w");
  CHECK(desk.shows("ACTOR"));
}

TEST_CASE("of a node that says nothing it is told how old its data are", "[inspect]") {
  Desk desk(2);
  CHECK(!desk.shows("data as of"));
  desk.view.nodes[1] = node(1, "stopped");
  desk.view.nodes[1].age_us = 3'200'000;
  CHECK(desk.shows("data as of 3.2 s ago: node 1 is stopped"));
  desk.press(Name::end);
  desk.press(Name::enter);  // a shard of node 1
  CHECK(desk.shows("data as of 3.2 s ago: node 1 is stopped"));
}

TEST_CASE("a run is controlled where it may be, and a node killed after a yes", "[inspect]") {
  Desk desk(2);
  CHECK(!desk.type("p").control);
  CHECK(desk.shows("nobody may control this run from here"));
  desk.view.options.can_control = true;
  CHECK(desk.type("p").control->what == Control::Do::pause);
  desk.view.paused = true;
  CHECK(desk.type("p").control->what == Control::Do::resume);
  CHECK(desk.type(".").control->what == Control::Do::step);
  CHECK(!desk.type("<").control);
  CHECK(desk.shows("a simulated world alone"));
  desk.press(Name::end);  // on node 1
  CHECK(!desk.type("K").control);
  CHECK(desk.shows("kill node 1 (process 71)?"));
  CHECK(!desk.type("x").control);
  CHECK(desk.shows("nothing was done"));
  desk.type("K");
  const auto kill = desk.type("y").control;
  REQUIRE(kill);
  CHECK(kill->what == Control::Do::kill);
  CHECK(kill->node == 1);
  desk.type("n");  // the node of the actor that was selected
  desk.press(Name::up);
  desk.type("K");
  CHECK(desk.type("y").control->node == 0);
}

TEST_CASE("a simulated world is run message by message, and back", "[inspect]") {
  Desk desk(2);
  desk.view.options.can_control = true;
  desk.view.options.source = RunSource::simulated;
  CHECK(desk.shows(". step"));
  CHECK(desk.type(".").control->what == Control::Do::step);
  const auto run = desk.type("r").control;
  REQUIRE(run);
  CHECK(run->what == Control::Do::run);
  CHECK(run->messages == 1000);
  CHECK(desk.type("<").control->what == Control::Do::back);
}

TEST_CASE("wide runes take two columns, and nothing in a name commands the terminal", "[inspect]") {
  Desk desk(2);
  desk.view.name = "模型\x1b[31m\xff";
  CHECK(columns_of("模型") == 4);
  CHECK(fitted("模型", 3) == "模 ");
  CHECK(plain_text(desk.lines()[0]).starts_with("模型?[31m?"));
  CHECK(columns_of(plain_text(desk.lines()[0])) == desk.size.columns);
  desk.screen = Screen(ActorOrder::actor, "", false);
  CHECK(plain_text(desk.lines()[0]).starts_with("??"));
  CHECK(desk.text().find_first_of("\x80\xe2") == std::string::npos);
}

TEST_CASE("a sentence is cut at blanks, later lines are set in", "[inspect]") {
  CHECK(wrapped("one two three", 8, 2) == std::vector<std::string>{"one two", "  three"});
  CHECK(wrapped("  one two", 7, 4) == std::vector<std::string>{"  one", "    two"});
  CHECK(wrapped("abcdefgh", 4, 1) == std::vector<std::string>{"abcd", " efg", " h"});
  CHECK(wrapped("", 4) == std::vector<std::string>{""});
}

TEST_CASE("the bill's bar is as wide as asked for, its parts in proportion", "[inspect]") {
  const auto parts = bill_parts(view_of(1));
  REQUIRE(parts.size() == 3);
  CHECK(parts[0].bin == "useful");
  CHECK(parts[0].share == Approx(0.6));
  for (const int columns : {1, 7, 40, 113}) CHECK(columns_of(plain_text(bill_bar(parts, columns))) == columns);
  CHECK(columns_of(bill_bar(parts, 50)[0].text) == 29);  // and a blank that parts it from the next
  View young = view_of(1);                               // no bill in its metrics yet
  young.figures.bill = nullptr;
  young.nodes[0].told.bill_us[1] = 30;
  REQUIRE(bill_parts(young).size() == 1);
  CHECK(bill_parts(young)[0].bin == to_string(static_cast<Bin>(1)));
}

TEST_CASE("the load's bar is against the busiest expert, in letters of ASCII too", "[inspect]") {
  CHECK(load_bar({0, 1, 8}, 10, true) == " ▁█");
  CHECK(load_bar({0, 1, 8}, 10, false) == " .#");
  CHECK(load_bar({8, 0, 0, 4}, 2, true) == "█▄");
  CHECK(load_of({0, 2, 4}).worst == Approx(2));
  CHECK(load_of({0, 2, 4}).busiest == 2);
  CHECK(load_of({0, 2, 4}).idle == 1);
  CHECK(load_of({}).worst == 0);
}
