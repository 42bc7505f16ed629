// Captured: tensors on their way to a Capture. A segment copies them into payloads, and when it is done they are shown.
#pragma once

#include <string>
#include <vector>

#include "actors/capture.h"
#include "actors/owner.h"

namespace troupe {

class Captured {
 public:
  // Copies `tensor` as it is after the ops so far.
  void add(Ops& ops, PayloadPool& pool, std::string name, const Tensor& tensor, std::vector<std::int64_t> shape);
  // Every gradient of the owner, by name.
  void add_gradients(Ops& ops, PayloadPool& pool, const Owner& owner);
  // REQUIRES: the segments with those ops are done.
  void show(Capture& capture);

 private:
  struct One {
    std::string name;
    std::vector<std::int64_t> shape;
    Payload payload;
    Tensor copy;  // in the payload
  };
  std::vector<One> all_;
};

}  // namespace troupe
