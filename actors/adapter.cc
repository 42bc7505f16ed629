#include "actors/adapter.h"

#include <caf/all.hpp>
#include <caf/scheduler/test_coordinator.hpp>
#include <deque>

#include "kernels/base/recycled.h"

namespace troupe {
namespace {

// An exception that leaves a handler is a programmer's error; CAF would end the actor in silence.
void handle(const Company::Handler& handler, const Envelope& envelope) {
  try {
    handler(envelope);
  } catch (const std::exception& error) {
    CHECK(false, "{} threw at {}: {}", to_string(envelope.to), kind_of(envelope.message), error.what());
  }
}

// Ready actors, first come first served: the loop thread is CAF's only worker.
struct InlineUnit final : caf::execution_unit {
  explicit InlineUnit(caf::actor_system* system) : caf::execution_unit(system) {}
  void exec_later(caf::resumable* job) override { jobs.push_back(job); }
  std::deque<caf::resumable*, Recycled<caf::resumable*>> jobs;
};

caf::actor_system_config& configure(caf::actor_system_config& config) {
  config.set("scheduler.policy", caf::atom("testing"));
  config.set("logger.verbosity", caf::atom("quiet"));
  return config;
}

// An actor to CAF, which spawns it, counts references to it, ends it and resumes it. Mail waits in a queue of its own:
// CAF's mailbox sorts streams, urgent messages and answers that we don't have, and costs more than most handlers.
class Member final : public caf::event_based_actor {
 public:
  Member(caf::actor_config& config, Company::Handler handler, const bool& closed)
      : caf::event_based_actor(config), handler_(std::move(handler)), closed_(closed) {}
  caf::behavior make_behavior() override {
    return {[](const std::string&) {}};  // only that it isn't empty: an actor without a behaviour ends
  }
  // True: it had none, and must be resumed now.
  bool take(Envelope&& envelope) {
    mail_.push_back(std::move(envelope));
    return mail_.size() == 1;
  }
  // One message, in its place: what it makes the actor tell itself comes behind it. Without mail, CAF's own affairs.
  resume_result resume(caf::execution_unit* unit, std::size_t messages_max) override {
    if (mail_.empty()) return caf::event_based_actor::resume(unit, messages_max);
    if (!closed_) handle(handler_, mail_.front());
    mail_.pop_front();
    return mail_.empty() ? awaiting_message : resume_later;
  }

 private:
  Company::Handler handler_;
  const bool& closed_;
  std::deque<Envelope, Recycled<Envelope>> mail_;
};

}  // namespace

struct Company::Impl {
  caf::actor_system_config config;
  caf::actor_system system{configure(config)};
  InlineUnit unit{&system};
  std::vector<caf::actor> actors;
  std::vector<Member*> members;  // the same
  Choice choice;
  bool closed = false;
};

Company::Company() : impl_(std::make_unique<Impl>()) {}

void Company::close() { impl_->closed = true; }
void Company::set_choice(Choice choice) { impl_->choice = std::move(choice); }

Company::~Company() {
  close();
  for (caf::actor& actor : impl_->actors) caf::anon_send_exit(actor, caf::exit_reason::user_shutdown);
  impl_->actors.clear();
  run(1'000'000);
  dynamic_cast<caf::scheduler::test_coordinator&>(impl_->system.scheduler()).run();
}

std::uint32_t Company::hire(Handler handler) {
  const auto number = static_cast<std::uint32_t>(impl_->actors.size());
  impl_->actors.push_back(impl_->system.spawn<Member>(std::move(handler), impl_->closed));
  impl_->members.push_back(static_cast<Member*>(caf::actor_cast<caf::abstract_actor*>(impl_->actors.back())));
  dynamic_cast<caf::scheduler::test_coordinator&>(impl_->system.scheduler()).run();
  return number;
}

void Company::deliver(std::uint32_t actor, Envelope&& envelope) {
  CHECK(actor < impl_->actors.size(), "no actor {} on this node", actor);
  Member* const member = impl_->members[actor];
  if (!member->take(std::move(envelope))) return;
  caf::intrusive_ptr_add_ref(static_cast<caf::resumable*>(member));  // released when it has run out of mail
  impl_->unit.exec_later(member);
}

bool Company::run(std::size_t messages_max) {
  auto& jobs = impl_->unit.jobs;
  for (std::size_t done = 0; done < messages_max && !jobs.empty(); ++done) {
    if (impl_->choice && jobs.size() > 1) std::swap(jobs.front(), jobs[impl_->choice(jobs.size())]);
    caf::resumable* job = jobs.front();
    jobs.pop_front();
    switch (job->resume(&impl_->unit, 1)) {
      case caf::resumable::resume_later:
        jobs.push_back(job);
        break;
      case caf::resumable::shutdown_execution_unit:
        break;
      default:
        caf::intrusive_ptr_release(job);
    }
  }
  return !jobs.empty();
}

}  // namespace troupe
