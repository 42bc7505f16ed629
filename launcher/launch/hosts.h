// What `--on` says: where node processes run. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace troupe {

struct HostLine {
  std::string name;
  int slots = 1;  // processes it takes
};
// A hosts file's text, a host a line: "NAME", "NAME slots=4"; # begins a comment. Throws Error: `path`, line, what.
std::vector<HostLine> parse_hosts(const std::string& text, const std::string& path);

// "node[1-3,07-09],login" as Slurm writes it: node1 node2 node3 node07 node08 node09 login. Throws Error: it is no such
// list, or one of more than a million names.
std::vector<std::string> expand_node_list(const std::string& list);
// "2,1(x3)" as Slurm writes counts: 2 1 1 1. Throws Error.
std::vector<int> expand_counts(const std::string& counts);

struct OnWhat {
  enum class Kind { local, hosts, slurm };
  Kind kind = Kind::local;
  int processes = 0;  // of local; 0: as the configuration says
  std::string file;   // of hosts
};
// "4711", "4711-4720", "0" (any). Throws Error: they are no ports.
std::pair<std::uint16_t, std::uint16_t> parse_ports(const std::string& text);

// "local", "local:4", "hosts:FILE", "slurm". Throws Error.
OnWhat parse_on(const std::string& text);

}  // namespace troupe
