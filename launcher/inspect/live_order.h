// What is asked of a live run's nodes when somebody wants it controlled, whichever way they are reached.
#pragma once

#include "launcher/inspect/source.h"
#include "messages/codec_inspect.h"

namespace troupe {

struct LiveOrder {
  std::uint32_t node = 0;
  decltype(InspectRequest::what) what;
};
// Throws Error: no live run can do that, or no message can be made of what should be injected.
LiveOrder live_order(const Control& control, const Config& config);

}  // namespace troupe
