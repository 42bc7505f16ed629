// A transport whose payloads in device memory go straight from GPU to GPU where two processes of one machine have
// different ones (kernels/cuda/peer_copies.h); all else goes by the transport below, and so do these while no way is open.
//
// For each direction between two such processes the sender makes a way and tells the other by the transport below. A frame
// with pieces goes there too, with a note: its number and the sizes of its pieces, which are started on the way at once.
// The receiver starts them in the order of those numbers, when it has the note and its own memory for them: so no end
// waits on a GPU for longer than a note travels.
// The law: nothing here blocks. A way that doesn't open is left, and payloads go through shared memory as before; one that
// breaks, or stands still, makes its peer a lost one: no frame goes there any more, and the peer misses this node.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "kernels/cuda/peer_copies.h"
#include "messages/transport.h"

namespace troupe {

struct PeerTransportOptions {
  std::uint64_t name = 0;              // of this process, and no other's that it talks to; not 0
  PayloadPool* device_pool = nullptr;  // what arrives lies there
  std::int64_t open_us = 60'000'000;   // for a way to open
  std::int64_t still_us = 20'000'000;  // for a transfer to end, when those before it have
  std::function<std::int64_t()> now_us = {};
  std::function<void()> rests = {};  // called while no transfer is under way; may be empty
};

std::unique_ptr<Transport> make_peer_transport(std::unique_ptr<Transport> below, std::unique_ptr<PeerCopies> copies,
                                               PeerTransportOptions options);

}  // namespace troupe
