#include "actors/restoring.h"

#include <filesystem>

#include "kernels/base/error.h"
#include "kernels/base/mutant.h"

namespace troupe {

Restoring::Restoring(const Context& context, const Config& config, Owner& owner, Entered entered)
    : context_(context), config_(config), owner_(owner), entered_(std::move(entered)) {}

void Restoring::submit(const SegmentKey& key, Ops ops, std::uint64_t token, const SegmentWay& way) {
  ++in_flight_;
  context_.submit(key, std::move(ops), token, way);
}

bool Restoring::takes(const SegmentDone& done) {
  --in_flight_;
  const bool own = (done.token & kOwn) != 0;
  if (own) own_done(done.token);
  if (!active()) return own;
  go_on();
  return true;
}

// A part that was copied for an older attempt is nobody's.
void Restoring::own_done(std::uint64_t token) {
  coming_.erase(token);
  const auto found = leaving_.find(token);
  if (found == leaving_.end()) return;
  const auto [part, to] = std::move(found->second);
  leaving_.erase(found);
  if (!active()) context_.post(to, part);
}

void Restoring::run(Step step, std::vector<Ops> work) {
  step_ = step;
  const SegmentKey key{.segment_class = SegmentClass::apply, .step = restore_.version, .loading = true};
  for (Ops& ops : work) submit(key, std::move(ops), kOwn);
}

void Restoring::bring(const Payload& values, Ops ops) {
  const std::uint64_t token = ++next_token_;
  coming_[token] = values;
  submit({.segment_class = SegmentClass::apply, .loading = true}, std::move(ops), token);
}

void Restoring::bring(const Payload& values, const Tensor& to) {
  bring(values, {Copy{tensor_of(values, to.rows, to.cols, to.dtype), to}});
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

// The step that is under way goes on as parts arrive; another one follows when its segments are done.
void Restoring::go_on() {
  if (step_ == Step::load || step_ == Step::fetch) return next_parts();
  if (in_flight_ > 0) return;
  switch (step_) {
    case Step::drain:
      if (!owner_.applying()) return choose();
      [[fallthrough]];
    case Step::apply:
      run(Step::recode, owner_.encode(false));
      return go_on();
    case Step::recode:
      return choose();
    case Step::draw:
      run(Step::refresh, owner_.refresh(true));
      return go_on();
    case Step::refresh:
      run(Step::encode, owner_.encode(true));
      return go_on();
    case Step::encode:
      owner_.hold(restore_.version);
      return finish("");
    case Step::clear:
      return enter();
    default:
      return;
  }
}

// An update that is under way when the attempt ends is finished: state `version` is half overwritten.
void Restoring::choose() {
  if (owner_.applying() && !mutant(Mutant::half_update_forgotten)) owner_.committed(owner_.last_decision());
  step_ = Step::drain;
  if (owner_.version() == restore_.version) return finish("");
  if (restore_.decided && owner_.version() + 1 == restore_.version && owner_.voted()) {
    step_ = Step::apply;
    for (Ops& ops : owner_.apply(restore_.decision))
      submit({SegmentClass::apply, owner_.version(), 0, 0}, std::move(ops), kOwn);
    return go_on();
  }
  take_state();
}

void Restoring::take_state() {
  owner_.forget();
  file_.reset();
  asked_ = arrived_ = 0;
  if (restore_.source_role != Role::supervisor) {
    step_ = Step::fetch;
    return next_parts();
  }
  owner_.forget_decision();
  // Where hosts share no file system the one who writes checkpoints reads them too.
  if (!restore_.path.empty() && !std::filesystem::exists(restore_.path)) {
    restore_.source_role = Role::checkpointer;
    step_ = Step::fetch;
    return next_parts();
  }
  if (restore_.path.empty()) {
    run(Step::draw, owner_.draw());  // random numbers take time: every compute thread draws some
    return go_on();
  }
  try {
    file_.emplace(config_, owner_.block().parameters(), restore_);
  } catch (const Error& error) {
    return finish(error.what());
  }
  run(Step::load, file_->has(1) ? std::vector<Ops>{} : owner_.clear_moments());
  next_parts();
}

// Parts come from the file as fast as they are copied in, from another holder when it sends them.
void Restoring::next_parts() {
  const Address source{restore_.source_role, restore_.source_index};
  const std::vector<StatePart>& parts = owner_.state_parts();
  for (; asked_ < parts.size() && asked_ < copied() + kPartsAsked; ++asked_) {
    if (!file_) {
      context_.post(source, Fetch{restore_.version, restore_.attempt, static_cast<std::int32_t>(asked_)});
      continue;
    }
    try {
      load_part(parts[asked_]);
    } catch (const Error& error) {
      return finish(error.what());
    }
  }
  if (copied() + (mutant(Mutant::restored_early) ? 1 : 0) < parts.size()) return;
  run(Step::refresh, owner_.refresh(file_ && !file_->has(3)));
  go_on();
}

void Restoring::load_part(const StatePart& part) {
  ++arrived_;
  if (!file_->has(part.kind)) return;
  const SnapshotPart read = owner_.empty_part(part, restore_.version, restore_.attempt);
  file_->read(owner_.block().parameters()[part.parameter], part.kind, part.begin, part.count, read.values.as<float>());
  bring(read.values, owner_.take_part(read));
}

void Restoring::on(const SnapshotPart& part) {
  if (step_ != Step::fetch || part.attempt != restore_.attempt) return;
  ++arrived_;
  bring(part.values, owner_.take_part(part));
}

void Restoring::finish(const std::string& problem) {
  file_.reset();
  problem_ = problem;
  run(Step::clear, owner_.clear_sums());
  go_on();
}

void Restoring::enter() {
  step_ = Step::idle;
  entered_attempt_ = restore_.attempt;
  owner_.entered(restore_);
  entered_(restore_, problem_);
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
      answer(fetch, from);
  }
  for (auto& item : later) waiting_.push_back(std::move(item));
}

// The state stays what it is while parts of it are copied: no step begins before all have restored.
void Restoring::answer(const Fetch& fetch, const Address& from) {
  const StatePart& part = owner_.state_parts().at(static_cast<std::size_t>(fetch.part));
  const SnapshotPart out = owner_.empty_part(part, fetch.version, fetch.attempt);
  const std::uint64_t token = ++next_token_;
  leaving_[token] = {out, from};
  submit({.segment_class = SegmentClass::apply, .step = fetch.version, .loading = true}, owner_.give_part(part, out),
         token);
}

}  // namespace troupe
