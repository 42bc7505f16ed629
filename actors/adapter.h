// The adapter: makes plain structs with on(const M&) into CAF actors that run inline on the loop thread.
// CAF's own pool stays empty (its testing coordinator has no threads); our execution unit is the only one.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "kernels/base/check.h"
#include "messages/message.h"

namespace troupe {

class Company {
 public:
  using Handler = std::function<void(const Envelope&)>;
  Company();
  ~Company();
  Company(const Company&) = delete;

  std::uint32_t hire(Handler handler);
  void deliver(std::uint32_t actor, Envelope&& envelope);
  // Which of `count` ready actors runs next (0: the one that waits longest); a simulated world draws it.
  using Choice = std::function<std::size_t(std::size_t count)>;
  void set_choice(Choice choice);
  // Runs actors that have mail, at most `messages_max` messages. False: all mailboxes are empty.
  bool run(std::size_t messages_max);
  // Mail is dropped unread from here on.
  void close();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Calls actor.on(message, from) for the message's type; a type without a handler is a programmer's error.
template <typename Actor>
Company::Handler handler_of(Actor& actor) {
  return [&actor](const Envelope& envelope) {
    std::visit(
        [&](const auto& message) {
          if constexpr (requires { actor.on(message, envelope.from); }) {
            actor.on(message, envelope.from);
          } else {
            CHECK(false, "{} has no handler for {}", to_string(envelope.to), kind_of(envelope.message));
          }
        },
        envelope.message);
  };
}

}  // namespace troupe
