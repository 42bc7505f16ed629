#include "actors/restoring.h"

#include "kernels/base/error.h"
#include "kernels/base/mutant.h"

namespace troupe {

namespace {
constexpr std::int32_t kPartsAsked = 2;  // under way at once: one travels while one is written
}

Restoring::Restoring(const Context& context, Owner& owner, Entered entered)
    : context_(context), owner_(owner), entered_(std::move(entered)) {}

void Restoring::submit(const SegmentKey& key, Ops ops, std::uint64_t token, std::uint32_t strand) {
  ++in_flight_;
  context_.submit(key, std::move(ops), token, strand);
}

bool Restoring::takes(const SegmentDone&) {
  --in_flight_;
  if (!active()) return false;
  go_on();
  return true;
}

bool Restoring::begin(const Restore& restore) {
  if (begun_ && restore.attempt <= restore_.attempt) return false;
  begun_ = true;
  restore_ = restore;
  if (mutant(Mutant::decision_applied_twice) && restore.decided && owner_.version() == restore.version) {
    owner_.hold(restore.version - 1);
    owner_.set_voted();
  }
  if (step_ != Step::apply) step_ = Step::drain;
  go_on();
  return true;
}

void Restoring::on(const Inquiry& inquiry, const Address& from) {
  context_.post(from, owner_.standing(inquiry.attempt));
}

// An update that is under way when the attempt ends is finished: state `version` is half overwritten.
void Restoring::go_on() {
  if (in_flight_ > 0 || step_ == Step::idle || step_ == Step::fetch) return;
  if (step_ == Step::draw) {
    owner_.drawn(restore_.version);
    return finish("");
  }
  if (owner_.applying() && !mutant(Mutant::half_update_forgotten)) owner_.committed(owner_.last_decision());
  step_ = Step::drain;
  if (owner_.version() == restore_.version) return finish("");
  if (restore_.decided && owner_.version() + 1 == restore_.version && owner_.voted()) return apply();
  if (restore_.source_role == Role::supervisor) return load();
  owner_.forget();
  step_ = Step::fetch;
  asked_ = received_ = 0;
  ask();
}

void Restoring::apply() {
  step_ = Step::apply;
  for (Ops& ops : owner_.apply(restore_.decision))
    submit({SegmentClass::apply, owner_.version(), 0, 0}, std::move(ops), 0);
  go_on();
}

// Random numbers take time: every compute thread draws some.
void Restoring::draw() {
  step_ = Step::draw;
  for (Ops& ops : owner_.draw())
    submit({.segment_class = SegmentClass::apply, .step = restore_.version, .loading = true}, std::move(ops), 0);
  go_on();
}

void Restoring::load() {
  if (restore_.path.empty()) return draw();
  try {
    owner_.load(restore_);
  } catch (const Error& error) {
    return finish(error.what());
  }
  finish("");
}

void Restoring::ask() {
  const Address source{restore_.source_role, restore_.source_index};
  while (asked_ < owner_.state_parts() && asked_ < received_ + kPartsAsked)
    context_.post(source, Fetch{restore_.version, restore_.attempt, asked_++});
}

void Restoring::on(const SnapshotPart& part) {
  if (step_ != Step::fetch || part.attempt != restore_.attempt) return;
  owner_.take_part(part);
  if (++received_ + (mutant(Mutant::restored_early) ? 1 : 0) < owner_.state_parts()) return ask();
  owner_.hold(restore_.version);
  finish("");
}

void Restoring::finish(const std::string& problem) {
  step_ = Step::idle;
  entered_attempt_ = restore_.attempt;
  owner_.entered(restore_);
  entered_(restore_, problem);
  answer_fetches();
}

void Restoring::on(const Fetch& fetch, const Address& from) {
  waiting_.emplace_back(fetch, from);
  if (!active()) answer_fetches();
}

// Whoever asks before this holder is there waits; an older attempt's question is dropped.
void Restoring::answer_fetches() {
  std::vector<std::pair<Fetch, Address>> later;
  for (const auto& [fetch, from] : std::exchange(waiting_, {})) {
    if (is_future(fetch.attempt, entered_attempt_))
      later.emplace_back(fetch, from);
    else if (fetch.attempt == entered_attempt_ && fetch.version == owner_.version())
      context_.post(from, owner_.state_part(fetch.part, fetch.attempt));
  }
  for (auto& item : later) waiting_.push_back(std::move(item));
}

}  // namespace troupe
