// Which threads have a core in a simulated machine that has fewer cores than threads.
#include "launcher/simulation/cores.h"

#include <limits>

#include "tests/support/catch.h"

using troupe::Cores;

namespace {

constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();

Cores machine(std::size_t cores, std::size_t owners) {
  return Cores({.cores = cores, .owners = owners, .slice_us = 3000, .cold_us = 500, .tick_us = 4000});
}

void come(Cores& cores, std::size_t owner, std::int64_t now_us) {
  cores.want(owner, 1, now_us);
  cores.share(now_us);
}

void go(Cores& cores, std::size_t owner, std::int64_t now_us) {
  cores.want(owner, 0, now_us);
  cores.share(now_us);
}

}  // namespace

TEST_CASE("threads have a core each while there are enough", "[cores]") {
  Cores cores = machine(2, 2);
  come(cores, 0, 0);
  CHECK_FALSE(cores.all_busy());
  come(cores, 1, 10);
  CHECK(cores.granted(0) == 1);
  CHECK(cores.granted(1) == 1);
  CHECK(cores.all_busy());
  CHECK(cores.next_us(10) == kNever);
}

TEST_CASE("threads of one core have it in turn, a slice each", "[cores]") {
  Cores cores = machine(1, 2);
  come(cores, 0, 0);
  come(cores, 1, 1000);
  CHECK(cores.granted(0) == 1);
  CHECK(cores.granted(1) == 0);
  REQUIRE(cores.next_us(1000) == 3000);
  cores.share(2999);
  CHECK(cores.granted(0) == 1);
  cores.share(3000);
  CHECK(cores.granted(0) == 0);
  CHECK(cores.granted(1) == 1);
  CHECK(cores.next_us(3000) == 6000);
}

TEST_CASE("whoever waits for a core has it when the other pauses, before its slice is over", "[cores]") {
  Cores cores = machine(1, 2);
  come(cores, 0, 0);
  come(cores, 1, 1000);
  go(cores, 0, 1200);
  CHECK(cores.granted(1) == 1);
  CHECK(cores.granted(0) == 0);
}

TEST_CASE("a thread that computes alone keeps its core after its slice", "[cores]") {
  Cores cores = machine(1, 2);
  come(cores, 0, 0);
  cores.share(50'000);
  CHECK(cores.granted(0) == 1);
  CHECK(cores.next_us(50'000) == kNever);
}

TEST_CASE("an idle core takes a thread that waits at another only when its caches are cold", "[cores]") {
  Cores cores = machine(2, 3);
  for (const std::size_t owner : {0, 1, 2}) come(cores, owner, 0);
  REQUIRE(cores.granted(2) == 0);  // it waits where the first computes
  go(cores, 1, 100);
  CHECK(cores.granted(2) == 0);
  CHECK_FALSE(cores.all_busy());
  REQUIRE(cores.next_us(100) == 3000);
  SECTION("it looks again when another becomes idle there") {
    come(cores, 1, 200);
    CHECK(cores.granted(1) == 1);
    go(cores, 1, 600);
    CHECK(cores.granted(2) == 1);
    CHECK(cores.granted(0) == 1);
  }
  SECTION("and with every tick") {
    cores.share(3000);  // the two had one core in turn until then
    REQUIRE(cores.granted(0) + cores.granted(2) == 1);
    REQUIRE(cores.next_us(3000) == 4000);
    cores.share(4000);
    CHECK(cores.granted(0) == 1);
    CHECK(cores.granted(2) == 1);
  }
}

TEST_CASE("threads of one owner count one by one", "[cores]") {
  Cores cores = machine(2, 2);
  cores.want(0, 3, 0);
  cores.share(0);
  CHECK(cores.granted(0) == 2);
  cores.want(0, 1, 10);
  cores.share(10);
  CHECK(cores.granted(0) == 1);
  cores.want(0, 0, 20);
  cores.share(20);
  CHECK(cores.granted(0) == 0);
  CHECK(cores.next_us(20) == kNever);
}
