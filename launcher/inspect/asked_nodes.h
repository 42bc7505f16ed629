// AskedNodes: looks at a run whose folder isn't here, by asking its nodes. Their clocks are aligned by the questions: an
// answer was made in the middle of its round trip. Who gives no answer is shown as it was seen last, with the data's age.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "launcher/inspect/node_client.h"
#include "launcher/inspect/source.h"

namespace troupe {

class AskedNodes final : public InspectSource {
 public:
  // addresses: "HOST:PORT,HOST:PORT". Throws Error: the first gives no answer.
  AskedNodes(const std::string& addresses, std::string token, bool can_control);
  View look() override;
  std::vector<JournalPage> journals(std::uint64_t most) override;
  MetricsTail& metrics() override { return metrics_; }
  std::string control(const Control& control) override;
  std::string token() override;

 private:
  struct Asked {
    std::string address;
    std::unique_ptr<NodeClient> client;  // null: to be connected
    std::optional<BoardPage> page;       // in our clock
    std::int64_t offset_us = 0;          // of its clock ahead of ours
  };
  NodeClient& client(Asked& asked) const;
  bool look_at(Asked& asked) const;
  Asked& node_of(std::uint32_t node);
  void to_own_clock(std::vector<JournalPage>& pages);

  std::string token_;
  std::vector<Asked> nodes_;
  Config config_;
  Plan plan_;
  ViewOptions options_;
  MetricsTail metrics_{""};
  std::optional<Observed> before_;
};

}  // namespace troupe
