// The built-in task: worked solutions that are right, read well, and never leak what is held out.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <map>
#include <set>
#include <sstream>

#include "actors/data/arithmetic.h"

using namespace troupe;

TEST_CASE("worked solutions are right, and their answer can be read back", "[arithmetic]") {
  DataConfig config;
  config.arithmetic_operations = "+-*";
  for (const int digits : {1, 3, 9}) {
    config.arithmetic_digits = digits;
    for (std::uint64_t i = 0; i < 2000; ++i) {
      const Problem problem = make_problem(config, 1, i, i % 2 == 1);
      INFO(problem.prompt << problem.solution);
      std::uint64_t x = 0, y = 0;
      char operation = 0, equals = 0;
      std::istringstream(problem.prompt) >> x >> operation >> y >> equals;
      const std::uint64_t result = operation == '+' ? x + y : operation == '-' ? x - y : x * y;
      REQUIRE(problem.answer == std::to_string(result));
      REQUIRE(answer_of(problem.solution) == problem.answer);
      REQUIRE(problem.solution.back() == '\n');
      REQUIRE(problem.prompt.back() == '=');
      REQUIRE(static_cast<std::int64_t>(problem.prompt.size() + problem.solution.size()) <= problem_length_max(config));
      REQUIRE(std::max(x, y) < static_cast<std::uint64_t>(std::pow(10, digits)));
    }
  }
}

TEST_CASE("a worked solution reads as a person would write it", "[arithmetic]") {
  DataConfig config;
  std::map<std::string, std::string> written;
  for (const std::string operations : {"+", "-", "*"}) {
    config.arithmetic_operations = operations;
    config.arithmetic_digits = 2;
    for (std::uint64_t i = 0; i < 40000; ++i) {
      const Problem problem = make_problem(config, 1, i, i % 16 == 0);
      written[problem.prompt] = problem.solution;
    }
  }
  CHECK(written["47+85="] == "7+5+0:12,4+8+1:13;132\n");
  CHECK(written["99+4="] == "9+4+0:13,9+0+1:10;103\n");
  CHECK(written["82-35="] == "12-5-0:7,08-3-1:4;47\n");
  CHECK(written["47*85="] ==
        "7*5+0:35,4*5+3:23>235;7*8+0:56,4*8+5:37>3760;5+0+0:05,3+6+0:09,2+7+0:09,0+3+0:03>3995;3995\n");
}

TEST_CASE("an answer that can't be read is no answer", "[arithmetic]") {
  CHECK(answer_of("7+5+0:12;12\n") == "12");
  CHECK(answer_of("7+5+0:12;12") == "12");
  CHECK(answer_of("7+5+0:12;12\n;99\n") == "12");
  CHECK(answer_of("7+5+0:12\n").empty());
  CHECK(answer_of("7+5;1x2\n").empty());
  CHECK(answer_of("").empty());
}

TEST_CASE("no pair of operands that is held out is ever trained on, in either order", "[arithmetic]") {
  DataConfig config;
  config.arithmetic_operations = "+-";
  const auto pair_of = [](const Problem& problem) {
    std::uint64_t x = 0, y = 0;
    char operation = 0;
    std::istringstream(problem.prompt) >> x >> operation >> y;
    return std::pair(std::min(x, y), std::max(x, y));
  };
  for (const int digits : {1, 2, 3}) {
    config.arithmetic_digits = digits;
    std::set<std::pair<std::uint64_t, std::uint64_t>> held_out;
    for (std::uint64_t i = 0; i < 2000; ++i) held_out.insert(pair_of(make_problem(config, 1, i, true)));
    const std::size_t all = digits == 1 ? 55 / 16 : digits == 2 ? 5050 / 16 : 2000;  // of 55, 5,050 and 500,500 pairs
    CHECK(held_out.size() == all);
    for (std::uint64_t i = 0; i < 20000; ++i)
      REQUIRE_FALSE(held_out.contains(pair_of(make_problem(config, 5, i, false))));
  }
}

TEST_CASE("most operands have all digits", "[arithmetic]") {
  const DataConfig config;
  int full = 0;
  for (std::uint64_t i = 0; i < 4000; ++i) full += make_problem(config, 1, i, false).prompt.size() == 8;
  CHECK(full > 2000);  // (3/4 + 1/12)^2 * 0.9^2 = 0.56 of the problems have two operands of three digits
  CHECK(full < 2500);
}
