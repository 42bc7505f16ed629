// Sizes are in bytes; what was asked and has not answered in time says "late": true.
#include <nlohmann/json.hpp>

#include "launcher/doctor_report.h"

namespace troupe {

namespace {

using Json = nlohmann::ordered_json;

Json sentences(const Findings& findings, bool stops_runs) {
  Json list = Json::array();
  for (const Finding& finding : findings)
    if (finding.stops_runs == stops_runs) list.push_back(finding.sentence);
  return list;
}

Json json_of(const ProcessorFacts& p) {
  return {{"model", p.model},
          {"cores", p.cores},
          {"cores_allowed", p.cores_allowed},
          {"cores_quota", p.cores_quota},
          {"cores_usable", cores_usable(p)},
          {"built_for", p.built_for},
          {"missing", p.flags.empty() ? Json() : Json(missing_flags(p, p.built_for))},
          {"avx512_bf16", has_flag(p, "avx512_bf16")}};
}

Json json_of(const MemoryFacts& m) {
  return {{"total", m.total},
          {"available", m.available},
          {"group_limit", m.group_limit},
          {"group_used", m.group_used},
          {"usable", memory_usable(m)}};
}

Json json_of(const GpuFacts& g) {
  Json all = Json::array();
  for (const Gpu& gpu : g.gpus.all)
    all.push_back({{"name", gpu.name},
                   {"memory", gpu.memory},
                   {"free", gpu.free},
                   {"capability", {gpu.major, gpu.minor}},
                   {"usable", gpu.problem.empty()},
                   {"problem", gpu.problem}});
  return {{"late", g.late},
          {"all", all},
          {"problem", g.gpus.problem},
          {"on_the_bus", g.hardware},
          {"built_with_cuda", built_with_cuda(g.gpus)},
          {"driver", g.module},
          {"driver_cuda", g.gpus.driver},
          {"program_cuda", g.gpus.runtime},
          {"driver_problem", driver_problem(g)},
          {"files_refused", g.files_refused}};
}

Json json_of(const LibrariesFacts& l) {
  Json all = Json::array();
  for (const LibraryFacts& library : l.all)
    all.push_back({{"name", library.name}, {"version", library.version}, {"problem", library.problem}});
  return {{"late", l.late}, {"all", all}};
}

Json json_of(const TransportFacts& t) {
  Json ways = Json::array();
  for (const UcxReport::Way& way : t.ucx.ways) ways.push_back({{"transport", way.transport}, {"device", way.device}});
  return {{"late", t.late},
          {"ucx", t.ucx.version},
          {"ways", ways},
          {"memory_types", t.ucx.memory_types},
          {"auto", {{"messages", t.ucx.auto_small}, {"large", t.ucx.auto_large}, {"problem", t.ucx.auto_problem}}},
          {"tcp", {{"problem", t.ucx.tcp_problem}}},
          {"any", {{"problem", t.ucx.any_problem}}},
          {"shared_memory",
           {{"there", t.has_shared},
            {"writable", t.shared_writable},
            {"size", t.shared_size},
            {"free", t.shared_free},
            {"nodes", nodes_fitting(t)}}}};
}

Json json_of(const JudgeFacts& j) {
  return {{"late", j.late}, {"problem", j.problem}, {"not_confined", j.notes}, {"forbidden_by", j.locks}};
}

Json json_of(const DiskFacts& d) {
  return {{"late", d.late},
          {"folder", d.folder},
          {"filesystem", d.filesystem},
          {"free", d.free},
          {"bytes_per_second", d.bytes_per_second},
          {"speed", d.bytes_per_second > 0 ? speed_class(d.bytes_per_second) : ""},
          {"sync_ms", d.sync_ms},
          {"problem", d.problem}};
}

// null: unknown, or nothing.
Json use_json(const MachineFacts& machine) {
  const GpuFacts& gpu = machine.gpu;
  const bool talks = machine.transport.ucx.auto_problem.empty() && !machine.transport.late;
  return {{"device", gpu.late ? Json() : Json(gpu.chosen.kind)},
          {"threads", gpu.late ? Json() : Json(gpu.chosen.threads)},
          {"transport", talks ? Json("shm") : Json()}};
}

}  // namespace

std::string doctor_json(const MachineFacts& machine, const Findings& findings) {
  const Json all = {{"can_run", can_run(findings)},
                    {"problems", sentences(findings, true)},
                    {"advice", sentences(findings, false)},
                    {"version", machine.version},
                    {"processor", json_of(machine.processor)},
                    {"memory", json_of(machine.memory)},
                    {"gpus", json_of(machine.gpu)},
                    {"libraries", json_of(machine.libraries)},
                    {"transport", json_of(machine.transport)},
                    {"limits",
                     {{"open_files", machine.limits.files},
                      {"open_files_hard", machine.limits.files_hard},
                      {"locked_memory", machine.limits.locked}}},
                    {"judges", json_of(machine.judge)},
                    {"disk", json_of(machine.disk)},
                    {"will_use", use_json(machine)}};
  // A path need not be UTF-8.
  return all.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace troupe
