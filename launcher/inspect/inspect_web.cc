// It says where the page is, and how to reach it from elsewhere.
#include "launcher/inspect/inspect_web.h"

#include <unistd.h>

#include <array>
#include <cstdio>

#include "launcher/inspect/web.h"
#include "launcher/inspect/web_guard.h"
#include "launcher/interrupts.h"

namespace troupe {

namespace {

constexpr useconds_t kPauseUs = 50'000;

std::string machine_name() {
  std::array<char, 256> name{};
  return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "";
}

// Who listens on all addresses is reached on any.
std::string reached_at(const std::string& address) {
  return address == "0.0.0.0" ? "127.0.0.1" : address == "[::]" ? "[::1]" : address;
}

void tell(const std::string& run, const WebOptions& web, std::uint16_t port) {
  const std::string at = reached_at(web.address);
  std::printf("%s is at http://%s:%u/%s\n", run.c_str(), at.c_str(), port,
              web.token.empty() ? "" : ("#token=" + web.token).c_str());
  std::printf("from another machine: ssh -L %u:%s:%u %s, then the same address%s\n", port, at.c_str(), port,
              web.machine.empty() ? "HOST" : web.machine.c_str(), is_loopback(at) ? "" : " with 127.0.0.1");
  if (web.allow_control) std::printf("who has this address with its token may control the run\n");
  if (!is_loopback(web.address))
    std::printf(
        "warning: what goes to %s is not encrypted: whoever is on the way reads it, and the token; a tunnel "
        "is safer\n",
        web.address.c_str());
  std::printf("Ctrl-C ends it; the run goes on\n");
  std::fflush(stdout);
}

}  // namespace

int inspect_web(const InspectOptions& options, InspectSource& source) {
  const View view = source.look();
  WebOptions web{.address = listen_address(options.listen),
                 .port = static_cast<std::uint16_t>(options.port),
                 .machine = machine_name(),
                 .token = "",
                 .allow_control = view.options.can_control};
  if (web.allow_control || !is_loopback(web.address)) web.token = source.token();
  catch_interrupts();
  const WebServer server(source, web);
  tell(view.options.run, web, server.port());
  while (interrupts() == 0) usleep(kPauseUs);
  return 0;
}

}  // namespace troupe
