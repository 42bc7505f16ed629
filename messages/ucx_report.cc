// The list of transports comes from UCX's lower half (uct), which a transport itself never touches; whether a node can
// start is found by making its transport, so that the answer can't differ from a run's.
#include "messages/ucx_report.h"

#include <ucp/api/ucp.h>
#include <ucs/config/global_opts.h>
#include <uct/api/uct.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <sstream>

#include "kernels/base/error.h"
#include "messages/ucx.h"

namespace troupe {
namespace {

using Context = std::unique_ptr<ucp_context, decltype(&ucp_cleanup)>;
using Worker = std::unique_ptr<ucp_worker, decltype(&ucp_worker_destroy)>;

// ---- Transports -----------------------------------------------------------------------------------------------------
void add_ways(uct_component_h component, const char* domain, std::vector<UcxReport::Way>& ways) {
  uct_md_config_t* config = nullptr;
  if (uct_md_config_read(component, nullptr, nullptr, &config) != UCS_OK) return;
  uct_md_h opened = nullptr;
  const ucs_status_t status = uct_md_open(component, domain, config, &opened);
  uct_config_release(config);
  if (status != UCS_OK) return;
  uct_tl_resource_desc_t* resources = nullptr;
  unsigned count = 0;
  if (uct_md_query_tl_resources(opened, &resources, &count) == UCS_OK) {
    for (unsigned i = 0; i < count; ++i) ways.push_back({resources[i].tl_name, resources[i].dev_name});
    uct_release_tl_resource_list(resources);
  }
  uct_md_close(opened);
}

std::vector<UcxReport::Way> all_ways() {
  std::vector<UcxReport::Way> ways;
  uct_component_h* components = nullptr;
  unsigned count = 0;
  if (uct_query_components(&components, &count) != UCS_OK) return ways;
  for (unsigned i = 0; i < count; ++i) {
    uct_component_attr_t attributes{};
    attributes.field_mask = UCT_COMPONENT_ATTR_FIELD_MD_RESOURCE_COUNT;
    if (uct_component_query(components[i], &attributes) != UCS_OK) continue;
    std::vector<uct_md_resource_desc_t> domains(attributes.md_resource_count);
    attributes.field_mask = UCT_COMPONENT_ATTR_FIELD_MD_RESOURCES;
    attributes.md_resources = domains.data();
    if (domains.empty() || uct_component_query(components[i], &attributes) != UCS_OK) continue;
    for (const uct_md_resource_desc_t& domain : domains) add_ways(components[i], domain.md_name, ways);
  }
  uct_release_component_list(components);
  return ways;
}

// ---- What a context knows -------------------------------------------------------------------------------------------
// Empty tls: UCX's own default. Null: it can't.
Context make_context(const char* tls) {
  ucp_config_t* config = nullptr;
  if (ucp_config_read(nullptr, nullptr, &config) != UCS_OK) return {nullptr, &ucp_cleanup};
  const std::unique_ptr<ucp_config_t, decltype(&ucp_config_release)> owned(config, &ucp_config_release);
  if (tls != nullptr) ucp_config_modify(config, "TLS", tls);
  ucp_params_t params{};
  params.field_mask = UCP_PARAM_FIELD_FEATURES;
  params.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  ucp_context_h context = nullptr;
  if (ucp_init(&params, config, &context) != UCS_OK) context = nullptr;
  return {context, &ucp_cleanup};
}

std::vector<std::string> memory_types() {
  static constexpr std::array<const char*, 5> kNames = {"host", "cuda", "cuda-managed", "rocm", "rocm-managed"};
  static_assert(UCS_MEMORY_TYPE_CUDA == 1 && UCS_MEMORY_TYPE_ROCM == 3);
  std::vector<std::string> names;
  const Context context = make_context(nullptr);
  ucp_context_attr_t attributes{};
  attributes.field_mask = UCP_ATTR_FIELD_MEMORY_TYPES;
  if (!context || ucp_context_query(context.get(), &attributes) != UCS_OK) return names;
  for (std::size_t type = 0; type < kNames.size(); ++type)
    if ((attributes.memory_types >> type & 1) != 0) names.emplace_back(kNames[type]);
  return names;
}

Worker make_worker(ucp_context_h context) {
  ucp_worker_params_t params{};
  ucp_worker_h worker = nullptr;
  if (ucp_worker_create(context, &params, &worker) != UCS_OK) worker = nullptr;
  return {worker, &ucp_worker_destroy};
}

// UCX's words about the endpoint from one worker of this process to another.
std::string describe_endpoint(ucp_worker_h from, ucp_worker_h to) {
  ucp_address_t* address = nullptr;
  std::size_t size = 0;
  if (ucp_worker_get_address(to, &address, &size) != UCS_OK) return "";
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS;
  params.address = address;
  ucp_ep_h endpoint = nullptr;
  const ucs_status_t status = ucp_ep_create(from, &params, &endpoint);
  ucp_worker_release_address(to, address);
  char* text = nullptr;
  std::FILE* const file = status == UCS_OK ? ::open_memstream(&text, &size) : nullptr;
  if (file == nullptr) return "";
  ucp_ep_print_info(endpoint, file);
  std::fclose(file);
  std::string words(text, size);
  std::free(text);
  return words;
}

// Of "#   lane[0]:  3:sysv/memory.0 md[2]   -> md[2]/sysv/sysdev[255] am am_bw#0" the transport, where `use` is said.
std::string transport_for(const std::string& words, const std::string& use) {
  std::istringstream lines(words);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t lane = line.find("]:"), end = line.find('/');
    if (line.find("lane[") == std::string::npos || lane >= end || line.find(use) == std::string::npos) continue;
    const std::size_t begin = line.find(':', lane + 2);
    if (begin < end) return line.substr(begin + 1, end - begin - 1);
  }
  return "";
}

void add_choices(UcxReport& report) {
  const Context context = make_context("shm,self");
  if (!context) return;
  const Worker from = make_worker(context.get()), to = make_worker(context.get());
  if (!from || !to) return;
  const std::string words = describe_endpoint(from.get(), to.get());
  report.auto_small = transport_for(words, " am");
  report.auto_large = transport_for(words, " rma_bw");
}

std::string why_not(const char* tls) {
  try {
    PayloadPool pool;
    make_ucx_transport({.tls = tls, .interface = ""}, pool);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

}  // namespace

UcxReport ask_ucx() {
  ucs_global_opts_set_value("LOG_LEVEL", "fatal");  // before the first word
  UcxReport report;
  report.version = ucp_get_version_string();
  report.ways = all_ways();
  report.memory_types = memory_types();
  report.auto_problem = why_not("auto");
  report.tcp_problem = why_not("tcp");
  report.any_problem = why_not("any");
  if (report.auto_problem.empty()) add_choices(report);
  return report;
}

}  // namespace troupe
