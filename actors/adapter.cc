#include "actors/adapter.h"

#include <caf/all.hpp>
#include <caf/scheduler/test_coordinator.hpp>
#include <deque>

namespace troupe {

using Mail = std::shared_ptr<const Envelope>;

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
  std::deque<caf::resumable*> jobs;
};

caf::actor_system_config& configure(caf::actor_system_config& config) {
  config.set("scheduler.policy", caf::atom("testing"));
  config.set("logger.verbosity", caf::atom("quiet"));
  return config;
}

}  // namespace
}  // namespace troupe

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(troupe::Mail)

namespace troupe {

struct Company::Impl {
  caf::actor_system_config config;
  caf::actor_system system{configure(config)};
  InlineUnit unit{&system};
  std::vector<caf::actor> actors;
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

namespace {

// A class, because CAF's own wrapper around a function dereferences a null pointer on its way (harmlessly).
class Member final : public caf::event_based_actor {
 public:
  Member(caf::actor_config& config, Company::Handler handler, const bool& closed)
      : caf::event_based_actor(config), handler_(std::move(handler)), closed_(closed) {}
  caf::behavior make_behavior() override {
    return {[this](const Mail& mail) {
      if (!closed_) handle(handler_, *mail);
    }};
  }

 private:
  Company::Handler handler_;
  const bool& closed_;
};

}  // namespace

std::uint32_t Company::hire(Handler handler) {
  const auto number = static_cast<std::uint32_t>(impl_->actors.size());
  impl_->actors.push_back(caf::actor_cast<caf::actor>(impl_->system.spawn<Member>(std::move(handler), impl_->closed)));
  dynamic_cast<caf::scheduler::test_coordinator&>(impl_->system.scheduler()).run();
  return number;
}

void Company::deliver(std::uint32_t actor, Envelope envelope) {
  CHECK(actor < impl_->actors.size(), "no actor {} on this node", actor);
  auto* target = caf::actor_cast<caf::abstract_actor*>(impl_->actors[actor]);
  target->enqueue(nullptr, caf::make_message_id(),
                  caf::make_message(Mail(std::make_shared<Envelope>(std::move(envelope)))), &impl_->unit);
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
