// Which operands in pinned memory are staged, and that whoever moves them so changes no bit: the rule by itself, on the
// processor, and a device with staging memory.
#include <poll.h>

#include <algorithm>
#include <cstring>

#include "kernels/base/random.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/staging.h"
#include "kernels/op_tensors.h"
#include "kernels/op_touches.h"
#include "tests/cuda/beside_cpu.h"
#include "tests/support/catch.h"
#include "tests/support/naive.h"

using namespace troupe;
using namespace troupe::test;
using cuda::Staged;
using cuda::Stretch;

namespace {

// Memory of which a part counts as pinned: the first `pinned` floats, cut in two allocations in the middle.
class Ground {
 public:
  explicit Ground(std::int64_t floats, std::int64_t pinned)
      : memory_(static_cast<std::size_t>(floats)), pinned_(pinned) {
    for (std::size_t i = 0; i < memory_.size(); ++i) memory_[i] = static_cast<float>(i % 97) - 31;
  }
  Tensor view(std::int64_t begin, std::int64_t rows, std::int64_t cols, std::int64_t stride = 0) {
    return {memory_.data() + begin, rows, cols, stride > 0 ? stride : cols, Dtype::f32};
  }
  Tensor flat(std::int64_t begin, std::int64_t count) { return view(begin, 1, count); }
  Stretch stretch(std::int64_t begin, std::int64_t count) const { return {at(begin), at(begin + count)}; }
  Stretch allocation(std::uintptr_t address) const {
    if (address >= at(pinned_)) return {};
    return address < at(pinned_ / 2) ? stretch(0, pinned_ / 2) : stretch(pinned_ / 2, pinned_ - pinned_ / 2);
  }
  std::vector<Staged> choose(const Ops& ops, std::size_t least = 4) const {
    std::vector<const Op*> order;
    for (const Op& op : ops) order.push_back(&op);
    return cuda::choose_staged(
        order, [this](std::uintptr_t address) { return allocation(address); }, least);
  }
  std::vector<float>& memory() { return memory_; }

 private:
  std::uintptr_t at(std::int64_t begin) const { return reinterpret_cast<std::uintptr_t>(memory_.data() + begin); }
  std::vector<float> memory_;
  std::int64_t pinned_;
};

using Many = std::vector<Staged>;
constexpr std::int64_t kRows = 40, kCols = 36;

// What a stager does, by the processor.
void run_staged(Ground& ground, Ops ops, std::size_t least) {
  const Many chosen = ground.choose(ops, least);
  std::vector<std::vector<char>> rooms;
  for (const Staged& one : chosen) {
    rooms.emplace_back(one.place.size(), char(0x9D));
    for (const Stretch& in : one.in)
      std::memcpy(rooms.back().data() + (in.begin - one.place.begin), reinterpret_cast<void*>(in.begin), in.size());
    for (Op& op : ops) cuda::move_operands(op, one.place, rooms.back().data());
  }
  for (const Op& op : ops) run_on_cpu(op);
  for (std::size_t i = 0; i < chosen.size(); ++i)
    for (const Stretch& out : chosen[i].out)
      std::memcpy(reinterpret_cast<void*>(out.begin), rooms[i].data() + (out.begin - chosen[i].place.begin),
                  out.size());
  (void)ground;
}

// f(an op of each kind), with more than one of the tensors of which it has any number.
template <typename Variant, std::size_t kind = 0, typename F>
void each_kind(F f) {
  if constexpr (kind < std::variant_size_v<Variant>) {
    std::variant_alternative_t<kind, Variant> op;
    if constexpr (std::is_same_v<decltype(op), GroupedProduct>) op.b.resize(2);
    if constexpr (std::is_same_v<decltype(op), Combine>) op.pieces.resize(3);
    f(Variant(op));
    each_kind<Variant, kind + 1>(f);
  }
}

std::vector<Completion> wait_for(Device& device, std::size_t count) {
  std::vector<Completion> done;
  while (done.size() < count) {
    pollfd ready{device.completion_fd(), POLLIN, 0};
    if (poll(&ready, 1, 30'000) != 1) return {};
    device.take_completions(done);
  }
  return done;
}

}  // namespace

TEST_CASE("what an op reads of pinned memory comes before, what it writes goes behind", "[staging]") {
  Ground g(1000, 500);
  const Tensor pinned = g.flat(100, 50), own = g.flat(600, 50);
  const Stretch place = g.stretch(100, 50);
  CHECK(g.choose({Copy{pinned, own}}) == Many{{place, {place}, {}}});
  CHECK(g.choose({Copy{own, pinned}}) == Many{{place, {}, {place}}});
  CHECK(g.choose({Add{pinned, own, pinned}}) == Many{{place, {place}, {place}}});
  CHECK(g.choose({Copy{own, g.flat(700, 50)}}).empty());
  CHECK(g.choose({}).empty());
}

TEST_CASE("what an earlier op of the flight wrote doesn't come from outside", "[staging]") {
  Ground g(1000, 500);
  const Tensor pinned = g.flat(100, 50), own = g.flat(600, 50);
  const Stretch place = g.stretch(100, 50);
  CHECK(g.choose({Copy{own, pinned}, Add{pinned, own, own}}) == Many{{place, {}, {place}}});
  CHECK(g.choose({Add{pinned, own, own}, Copy{own, pinned}}) == Many{{place, {place}, {place}}});
  // In part: the rest comes, and only what was written goes.
  CHECK(g.choose({Copy{own, pinned}, Copy{g.flat(120, 80), g.flat(700, 80)}}) ==
        Many{{g.stretch(100, 100), {g.stretch(150, 50)}, {place}}});
  CHECK(g.choose({Fill{g.flat(110, 10), 0}, Fill{g.flat(130, 10), 0}, Copy{pinned, own}}) ==
        Many{{place,
              {g.stretch(100, 10), g.stretch(120, 10), g.stretch(140, 10)},
              {g.stretch(110, 10), g.stretch(130, 10)}}});
}

TEST_CASE("a sum that is added to comes and goes, one that is assigned only goes", "[staging]") {
  Ground g(1000, 500);
  const Tensor sum = g.view(100, 5, 4), a = g.view(600, 5, 3), b = g.view(700, 3, 4);
  const Stretch place = g.stretch(100, 20);
  CHECK(g.choose({Product{.a = a, .b = b, .c = sum, .accumulate = true}}) == Many{{place, {place}, {place}}});
  CHECK(g.choose({Product{.a = a, .b = b, .c = sum}}) == Many{{place, {}, {place}}});
  CHECK(g.choose({Product{.a = a, .b = b, .c = sum, .add = sum}}) == Many{{place, {place}, {place}}});
  CHECK(g.choose({SumRows{b, g.flat(100, 4), true}}) ==
        Many{{g.stretch(100, 4), {g.stretch(100, 4)}, {g.stretch(100, 4)}}});
  const Tensor rows = g.view(200, 5, 3);
  CHECK(g.choose({GroupedProduct{.a = rows, .c = sum, .b = {b, b}, .rows = {2, 3}}}) ==
        Many{{place, {}, {place}}, {g.stretch(200, 15), {g.stretch(200, 15)}, {}}});
}

TEST_CASE("indices, what is read or written in part, and rows with gaps stay where they are, with all that overlaps",
          "[staging]") {
  Ground g(1000, 500);
  Tensor index = g.view(600, 10, 1);
  index.dtype = Dtype::i32;
  const Tensor rows = g.view(100, 10, 4), own = g.view(700, 10, 4);
  const Stretch place = g.stretch(100, 40);
  CHECK(g.choose({Gather{own, index, rows}}) == Many{{place, {}, {place}}});
  CHECK(g.choose({Gather{rows, index, own}}).empty());
  CHECK(g.choose({Scatter{own, index, rows}}).empty());
  CHECK(g.choose({Scatter{rows, index, own}}) == Many{{place, {place}, {}}});
  CHECK(g.choose({Rope{.x = rows, .positions = index, .cosine = own, .sine = own, .dim = 2}}).empty());
  Tensor pinned_index = g.view(100, 10, 1);
  pinned_index.dtype = Dtype::i32;
  CHECK(g.choose({Gather{own, pinned_index, g.view(800, 10, 4)}}).empty());
  const Tensor strided = g.view(100, 10, 2, 4);
  CHECK(g.choose({Copy{strided, g.view(800, 10, 2)}}).empty());
  CHECK(g.choose({Copy{strided, g.view(800, 10, 2)}, Copy{own, rows}}).empty());
  CHECK(g.choose({Copy{own, rows}, Copy{g.view(138, 1, 20), g.flat(800, 20)}, Scatter{own, index, g.view(150, 10, 4)}})
            .empty());
}

TEST_CASE("neighbours of one allocation go together, and are staged if they are enough", "[staging]") {
  Ground g(1000, 500);  // the allocations meet at 250
  const Tensor own = g.flat(600, 20);
  const Ops neighbours{Copy{own, g.flat(100, 20)}, Copy{own, g.flat(120, 20)}, Copy{own, g.flat(141, 20)}};
  CHECK(g.choose(neighbours) ==
        Many{{g.stretch(100, 40), {}, {g.stretch(100, 40)}}, {g.stretch(141, 20), {}, {g.stretch(141, 20)}}});
  CHECK(g.choose(neighbours, 100) == Many{{g.stretch(100, 40), {}, {g.stretch(100, 40)}}});
  CHECK(g.choose(neighbours, 161).empty());
  CHECK(g.choose({Copy{own, g.flat(230, 20)}, Copy{own, g.flat(250, 20)}}) ==
        Many{{g.stretch(230, 20), {}, {g.stretch(230, 20)}}, {g.stretch(250, 20), {}, {g.stretch(250, 20)}}});
  CHECK(g.choose({Copy{g.flat(240, 20), own}}).empty());  // of two allocations: whose is it
}

// Of one op operands are the same or apart; those of several overlap as they come.
Ops draw_ops(Ground& g, std::uint64_t seed) {
  constexpr std::int64_t kCell = 45, kCells = 12;
  std::uint64_t draws = 0;
  const auto below = [&](std::uint64_t bound) { return static_cast<std::int64_t>(random_below(bound, seed, ++draws)); };
  Ops ops;
  for (std::int64_t op = below(7); op >= 0; --op) {
    const std::int64_t past = below(10), count = 2 * (1 + below(15)), kind = below(6);
    const auto place = [&] { return below(kCells) * kCell + past; };
    const std::int64_t from = place(), to = place();
    if (kind == 0) ops.push_back(Copy{g.flat(from, count), g.flat(to, count)});
    if (kind == 1) ops.push_back(Add{g.flat(from, count), g.flat(place(), count), g.flat(to, count)});
    if (kind == 2) ops.push_back(Fill{g.flat(to, count), static_cast<float>(op)});
    if (kind == 3) ops.push_back(Fill{g.view(to, 2, count / 2, count / 2 + below(3)), 5});
    if (kind == 4 && from != to)
      ops.push_back(SumRows{g.view(from, 2, count / 2), g.flat(to, count / 2), below(2) > 0});
    if (kind == 5) ops.push_back(Initialize{g.flat(to, count), seed, 0, 1});
  }
  return ops;
}

TEST_CASE("a flight stages so many places and no more", "[staging]") {
  Ground g(1000, 900);
  Ops ops;
  for (std::int64_t i = 0; i < 200; ++i) ops.push_back(Fill{g.flat(4 * i, 2), 1});
  const Many chosen = g.choose(ops);
  REQUIRE(chosen.size() == cuda::kStagedMost);
  CHECK(chosen.back().place == g.stretch(4 * (static_cast<std::int64_t>(cuda::kStagedMost) - 1), 2));
}

TEST_CASE("ops drawn at random leave the same bits, staged or in place", "[staging]") {
  std::size_t staged = 0;
  for (std::uint64_t seed = 0; seed < 3000; ++seed) {
    Ground moved(600, 400), still(600, 400);
    const Ops ops = draw_ops(moved, seed);
    staged += moved.choose(ops).size();
    run_staged(moved, ops, 4);
    for (const Op& op : draw_ops(still, seed)) run_on_cpu(op);
    INFO("seed " << seed);
    REQUIRE(same_bits(moved.flat(0, 600), still.flat(0, 600)));
  }
  CHECK(staged > 3000);
}

TEST_CASE("whoever asks what an op does with its tensors is told of every one", "[staging]") {
  std::size_t kinds = 0;
  each_kind<Op>([&kinds](Op op) {
    INFO("op " << ++kinds);
    std::vector<void*> all, told;
    std::uintptr_t next = 64;
    for_each_tensor(op, [&](Tensor& x) {
      x.data = reinterpret_cast<void*>(next += 64);  // NOLINT: nobody looks there
      all.push_back(x.data);
    });
    for_each_touch(op, [&](const Tensor& x, Touch) { told.push_back(x.data); });
    std::sort(told.begin(), told.end());
    CHECK(told == all);
  });
  CHECK(kinds == std::variant_size_v<Op>);
}

TEST_CASE("staging memory is taken where it fits, joined again, and refused when there is none", "[staging]") {
  cuda::Room room(2100);  // eight pieces
  const std::size_t a = room.take(1), b = room.take(600), c = room.take(1024);
  CHECK((a == 0 && b == 256 && c == 1024));
  CHECK(room.take(1) == cuda::Room::kNone);
  room.give_back(b);
  CHECK(room.take(800) == cuda::Room::kNone);
  CHECK(room.take(700) == b);
  room.give_back(a);
  room.give_back(b);
  CHECK(room.take(1000) == 0);
  room.give_back(c);
  room.give_back(0);
  CHECK(room.take(2048) == 0);
}

TEST_CASE("an operand is as aligned in staging memory as in pinned memory, and what finds no room stays there",
          "[staging]") {
  void* memory = nullptr;
  REQUIRE(cudaHostAlloc(&memory, 8192, 0) == cudaSuccess);
  const auto pinned = std::make_shared<cuda::PinnedMemory>();
  pinned->add(memory, 8192);
  {
    cuda::Stager stager(4096, 64, pinned);
    const auto at = [&](std::size_t bytes) {
      return Tensor{static_cast<char*>(memory) + bytes, 1, 100, 100, Dtype::f32};
    };
    std::vector<Segment> segments(1);
    segments[0].ops = {Fill{at(0), 1}, Fill{at(1028), 1}, Copy{at(2044), at(3000)}, Fill{Tensor{at(4096)}, 2}};
    std::get<Fill>(segments[0].ops[3]).out.cols = std::get<Fill>(segments[0].ops[3]).out.stride = 1000;
    const Segment before = segments[0];
    std::vector<const Op*> order;
    for (const Op& op : segments[0].ops) order.push_back(&op);
    cuda::Copies copies = stager.begin(segments, order);
    CHECK((copies.all.size() == 4 && copies.in != nullptr));
    const auto moved = [](const Tensor& was, const Tensor& is) {
      return was.data != is.data &&
             reinterpret_cast<std::uintptr_t>(was.data) % 256 == reinterpret_cast<std::uintptr_t>(is.data) % 256;
    };
    const auto fill = [](const Segment& segment, std::size_t op) { return std::get<Fill>(segment.ops[op]).out; };
    CHECK(moved(fill(before, 0), fill(segments[0], 0)));
    CHECK(moved(fill(before, 1), fill(segments[0], 1)));
    CHECK(moved(std::get<Copy>(before.ops[2]).source, std::get<Copy>(segments[0].ops[2]).source));
    CHECK(moved(std::get<Copy>(before.ops[2]).out, std::get<Copy>(segments[0].ops[2]).out));
    CHECK(fill(before, 3).data == fill(segments[0], 3).data);
    cudaDeviceSynchronize();
    CHECK(cuda::Stager::have_come(copies));
    stager.end(copies);
  }
  cudaFreeHost(memory);
}

TEST_CASE("a device with staging memory leaves the bits of one without, whatever finds room", "[staging]") {
  const Owned expected_rows = normal(kRows, kCols, 1), expected = normal(kRows, kCols, 2);
  const auto on = [&](std::size_t staging) {
    CudaDevice device({.staging = staging, .staged_min = 64});
    const Memory in = device.allocate(kRows * kCols * 4, Place::shared), out = device.allocate(in.size, Place::shared),
                 own = device.allocate(in.size, Place::device);
    const auto rows_of = [](const Memory& memory) { return Tensor{memory.data, kRows, kCols, kCols, Dtype::f32}; };
    std::memcpy(in.data, expected_rows.tensor().data, in.size);
    std::memcpy(out.data, expected.tensor().data, out.size);
    const auto run = [&](Ops ops) {
      device.submit({.key = {}, .ops = std::move(ops), .done = {}});
      REQUIRE(wait_for(device, 1).size() == 1);
    };
    run({Copy{rows_of(in), rows_of(own)}, Add{rows_of(own), rows_of(out), rows_of(out)}});
    run({Product{.a = rows_of(in), .b = rows_of(own).row_range(2, kCols), .c = rows_of(out), .transpose_b = true}});
    run({Add{rows_of(out), rows_of(in), rows_of(in)}, Fill{rows_of(out).row_range(3, 1), 7},
         Add{rows_of(in), rows_of(out), rows_of(out)}});
    std::vector<char> left(2 * in.size);
    std::memcpy(left.data(), in.data, in.size);
    std::memcpy(left.data() + in.size, out.data, out.size);
    return left;
  };
  const std::vector<char> in_place = on(0);
  CHECK(on(1 << 20) == in_place);
  CHECK(on(6144) == in_place);
  CHECK(on(256) == in_place);
}
