// What the trace event format demands of a file, as far as ours uses it; each broken demand is a sentence.
// From the format's own document ("Trace Event Format", sections Complete, Flow, Counter and Metadata Events), and two
// that Perfetto adds: slices of a thread nest, and a flow's end binds to the slice about its moment (bp: "e").
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace troupe::test {

std::vector<std::string> trace_faults(const nlohmann::json& trace);

// Arrows with the slices that they bind to: events of the trace.
struct TraceArrow {
  std::string what;
  const nlohmann::json *from = nullptr, *to = nullptr;
};
// REQUIRES: the trace has no faults.
std::vector<TraceArrow> trace_arrows(const nlohmann::json& trace);

}  // namespace troupe::test
