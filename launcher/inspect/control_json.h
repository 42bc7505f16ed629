// What a person wants done to a run, as scripts and the page say it: {"do": "kill", "node": 1}. Strict: a word too many
// is refused, for it may have been meant.
#pragma once

#include <optional>
#include <string>

#include "kernels/base/error.h"
#include "launcher/inspect/source.h"

namespace troupe {

// It was asked wrongly: one sentence.
class Misasked : public Error {
 public:
  using Error::Error;
};

// Throws Misasked.
Control control_of(const std::string& body);

// "stage 3"; empty: no actor is called so.
std::optional<Address> actor_named(const std::string& name);

}  // namespace troupe
