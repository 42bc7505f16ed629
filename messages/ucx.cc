// The transport between processes, over UCX active messages. Laws: nothing is thrown through UCX's frames; what UCX may
// still read or write is never freed; frames are handed over after progress, not inside UCX's callbacks.
//
// On the wire: active message kFrameId carries the frame's header as its own header and the payloads as its data. A
// frame whose header is too long for that goes as kLongFrameId: its own header is the length (u64), and the data is the
// frame's header, zeros up to a multiple of 64, and the payloads. With kJoinedBit the frame's header is preceded by a
// PiecesNote: its payloads in device memory come as kPieceId each, in any order.
#include "messages/ucx.h"

#include <ucp/api/ucp.h>
#include <ucs/config/global_opts.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <exception>
#include <map>
#include <span>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "messages/pieces.h"
#include "messages/ucx_ways.h"

namespace troupe {
namespace {

constexpr unsigned kFrameId = 1, kLongFrameId = 2, kPieceId = 3, kJoinedBit = 4;
constexpr int kProgressRoundsMax = 64;                  // per poll: a flood doesn't starve the loop
constexpr std::chrono::milliseconds kGoodbyeMax{2000};  // for the last frames to leave

using Clock = std::chrono::steady_clock;
using Context = std::unique_ptr<ucp_context, decltype(&ucp_cleanup)>;
using Worker = std::unique_ptr<ucp_worker, decltype(&ucp_worker_destroy)>;

std::size_t aligned(std::size_t offset) {
  return (offset + kPayloadAlignment - 1) / kPayloadAlignment * kPayloadAlignment;
}

void require(ucs_status_t status, const char* what, const UcxOptions& options) {
  if (status != UCS_OK)
    throw Error("UCX can't {} over \"{}\", interface \"{}\": {}; `ucx_info -d` lists what this host has", what,
                options.tls, options.interface, ucs_status_string(status));
}

Context make_context(const UcxOptions& options, const UcxWays& ways, bool cuda) {
  // UCX reads the environment when it is loaded, too early for us; what we need to know of peers we are told by status.
  ucs_global_opts_set_value("LOG_LEVEL", "fatal");
  ucp_config_t* config = nullptr;
  require(ucp_config_read(nullptr, nullptr, &config), "read its configuration", options);
  const std::unique_ptr<ucp_config_t, decltype(&ucp_config_release)> owned(config, &ucp_config_release);
  const std::string tls = std::string(ways.tls) + (cuda ? ",cuda" : "");  // which it may not have
  require(ucp_config_modify(config, "TLS", tls.c_str()), "set its transports", options);
  // Else connecting to a host that doesn't answer stops the loop for as long as the kernel tries: two minutes.
  // UCX 1.13 knows the key without its prefix, others with it; the one that it doesn't know it leaves alone.
  for (const char* key : {"CONN_NB", "TCP_CONN_NB"})
    if (ways.between()) ucp_config_modify(config, key, "y");
  if (ways.between() && !options.interface.empty())
    require(ucp_config_modify(config, "NET_DEVICES", options.interface.c_str()), "set its interface", options);
  ucp_params_t params{};
  params.field_mask = UCP_PARAM_FIELD_FEATURES;
  params.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  ucp_context_h context = nullptr;
  require(ucp_init(&params, config, &context), "start", options);
  return {context, &ucp_cleanup};
}

Worker make_worker(ucp_context_h context, const UcxOptions& options) {
  ucp_worker_params_t params{};
  params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  params.thread_mode = UCS_THREAD_MODE_SINGLE;
  ucp_worker_h worker = nullptr;
  require(ucp_worker_create(context, &params, &worker), "make a worker", options);
  return {worker, &ucp_worker_destroy};
}

// What an address begins with, before UCX's own.
struct Preamble {
  MachinePlace place{};
  std::uint64_t name = 0;  // in notes of pieces; 0: it takes none
};

// Of a payload in device memory: the active message's own header.
struct PieceHeader {
  std::uint64_t sender = 0, number = 0, index = 0;
};

class UcxTransport final : public Transport {
 public:
  UcxTransport(const UcxOptions& options, PayloadPool& pool, const UcxDevice& device)
      : options_(options),
        ways_(ucx_ways_of(options)),
        pool_(pool),
        device_(device),
        context_(make_context(options, ways_, device.pool != nullptr && !device.is_host)),
        worker_(make_worker(context_.get(), options)) {
    ucp_worker_attr_t attributes{};
    attributes.field_mask = UCP_WORKER_ATTR_FIELD_MAX_AM_HEADER;
    require(ucp_worker_query(worker_.get(), &attributes), "ask its worker", options_);
    header_max_ = attributes.max_am_header;
    require(ucp_worker_get_efd(worker_.get(), &wake_fd_), "wake by descriptor", options_);
    listen(kFrameId, &on_message<kFrameId>);
    listen(kLongFrameId, &on_message<kLongFrameId>);
    listen(kFrameId | kJoinedBit, &on_message<kFrameId | kJoinedBit>);
    listen(kLongFrameId | kJoinedBit, &on_message<kLongFrameId | kJoinedBit>);
    listen(kPieceId, &on_message<kPieceId>);
    if (device_.pool != nullptr && (device_.is_host || moves_cuda())) self_.name = device_.name;
  }
  ~UcxTransport() override;
  UcxTransport(const UcxTransport&) = delete;
  UcxTransport& operator=(const UcxTransport&) = delete;

  std::string local_address() const override;
  void connect(std::uint32_t node, const std::string& address) override;
  bool carries_device_memory(std::uint32_t node) const override {
    const auto peer = peers_.find(node);
    return self_.name != 0 && peer != peers_.end() && peer->second->name != 0;
  }
  void send(std::uint32_t node, Frame frame) override;
  bool poll(const std::function<void(Frame)>& deliver) override;
  bool arm() override { return arrived_.empty() && ucp_worker_arm(worker_.get()) == UCS_OK; }
  int wake_fd() const override { return wake_fd_; }
  void forget(std::uint32_t node) override;

 private:
  struct Peer {
    ucp_ep_h endpoint = nullptr;
    std::uint64_t name = 0;  // of its notes; 0: it takes no pieces
    bool here = false;       // it shares memory with this process
    bool broken = false;
    bool* any_broken = nullptr;  // of the transport's peers
    std::size_t sending = 0;     // frames and pieces that have not left
  };
  // What UCX reads until it says that the frame has left.
  struct Sending : RecycledObject {
    Peer* peer = nullptr;
    FrameHeader header;
    std::uint64_t header_size = 0;  // a long frame's: the active message's own header
    PieceHeader piece;              // a piece's: likewise
    Payload data;
  };
  // What UCX writes until it says that the data is here.
  struct Receiving : RecycledObject {
    UcxTransport* transport = nullptr;
    FrameHeader header;           // a short frame's
    std::size_t header_size = 0;  // a long frame's: how much of the data is header
    PieceHeader piece;            // a piece's
    unsigned id = kFrameId;
    Payload data;
  };
  using Header = std::span<const std::byte>;

  bool moves_cuda() const;
  ucs_memory_type_t memory_type(const Payload& payload) const;
  Payload gather(const Frame& frame, bool long_header);
  void post(Peer& peer, unsigned id, Header header, std::unique_ptr<Sending> sending);
  void send_pieces(Peer& peer, Frame& frame);
  void listen(unsigned id, ucp_am_recv_callback_t callback);
  template <unsigned id>
  static ucs_status_t on_message(void* self, const void* header, std::size_t header_size, void* data,
                                 std::size_t data_size, const ucp_am_recv_param_t* param);
  ucs_status_t arrive(unsigned id, Header header, void* data, std::size_t data_size, bool rendezvous);
  ucs_status_t arrive_piece(Header header, void* data, std::size_t data_size, bool rendezvous);
  ucs_status_t fetch(std::unique_ptr<Receiving> receiving, void* data);
  void finish(Receiving& receiving);
  void join(Frame frame);
  static void on_sent(void* request, ucs_status_t status, void* sending);
  static void on_received(void* request, ucs_status_t status, std::size_t size, void* receiving);
  static void on_broken(void* peer, ucp_ep_h endpoint, ucs_status_t status);
  void bury(std::unique_ptr<Peer> peer);
  void bury_broken();
  void close(Peer& peer, std::uint32_t flags);
  bool settle(Clock::time_point deadline);
  bool say_goodbye();

  const UcxOptions options_;
  const UcxWays& ways_;
  Preamble self_{own_place(), 0};
  PayloadPool& pool_;
  const UcxDevice device_;
  Context context_;
  Worker worker_;
  std::size_t header_max_ = 0;
  int wake_fd_ = -1;
  std::map<std::uint32_t, std::unique_ptr<Peer>> peers_;
  std::vector<std::unique_ptr<Peer>> buried_;  // UCX may still name them
  std::vector<ucs_status_ptr_t> requests_;     // flushes and closings under way
  bool any_broken_ = false;
  std::vector<Frame> arrived_, due_;
  PieceJoiner joiner_;
  std::uint64_t joined_ = 0;   // frames with pieces that were sent
  std::size_t receiving_ = 0;  // transfers under way
};

// ---- Peers ----------------------------------------------------------------------------------------------------------
std::string UcxTransport::local_address() const {
  ucp_address_t* address = nullptr;
  std::size_t size = 0;
  require(ucp_worker_get_address(worker_.get(), &address, &size), "tell its address", options_);
  std::string blob(reinterpret_cast<const char*>(&self_), sizeof self_);
  blob.append(reinterpret_cast<const char*>(address), size);
  ucp_worker_release_address(worker_.get(), address);
  return blob;
}

void UcxTransport::connect(std::uint32_t node, const std::string& address) {
  forget(node);
  Preamble told;
  if (address.size() <= sizeof told) {
    log_warning("event=unreachable peer={} reason=\"an address of {} bytes\"", node, address.size());
    return;
  }
  std::memcpy(&told, address.data(), sizeof told);
  auto peer = std::make_unique<Peer>();
  peer->any_broken = &any_broken_;
  peer->name = told.name;
  peer->here = ways_.within && (told.place == self_.place || !ways_.between());
  ucp_ep_params_t params{};
  params.field_mask =
      UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE | UCP_EP_PARAM_FIELD_ERR_HANDLER;
  params.address = reinterpret_cast<const ucp_address_t*>(address.data() + sizeof told);
  // Shared memory has no news of dead peers: asked for it, UCX would refuse, or quietly take TCP.
  params.err_mode = peer->here ? UCP_ERR_HANDLING_MODE_NONE : UCP_ERR_HANDLING_MODE_PEER;
  params.err_handler = {.cb = &on_broken, .arg = peer.get()};
  // Its process may have died since it told its address: its frames are dropped until it tells another.
  if (const ucs_status_t status = ucp_ep_create(worker_.get(), &params, &peer->endpoint); status != UCS_OK) {
    log_warning("event=unreachable peer={} tls={} interface=\"{}\" reason=\"{}\"", node, options_.tls,
                options_.interface, ucs_status_string(status));
    return;
  }
  peers_[node] = std::move(peer);
}

void UcxTransport::forget(std::uint32_t node) {
  const auto found = peers_.find(node);
  if (found == peers_.end()) return;
  if (found->second->name != 0) joiner_.forget(found->second->name);
  bury(std::move(found->second));
  peers_.erase(found);
}

// A shared-memory endpoint of a dead peer can't be closed, only left alone; then the worker can't be destroyed either.
void UcxTransport::bury(std::unique_ptr<Peer> peer) {
  if (!peer->here) close(*peer, UCP_EP_CLOSE_FLAG_FORCE);
  buried_.push_back(std::move(peer));
}

void UcxTransport::close(Peer& peer, std::uint32_t flags) {
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
  param.flags = flags;
  if (peer.endpoint == nullptr) return;
  ucs_status_ptr_t request = ucp_ep_close_nbx(std::exchange(peer.endpoint, nullptr), &param);
  if (UCS_PTR_IS_PTR(request)) requests_.push_back(request);
}

// Called by UCX inside progress: only notes it.
void UcxTransport::on_broken(void* broken, ucp_ep_h, ucs_status_t) {
  auto* const peer = static_cast<Peer*>(broken);
  peer->broken = *peer->any_broken = true;
}

void UcxTransport::bury_broken() {
  if (!std::exchange(any_broken_, false)) return;
  for (auto at = peers_.begin(); at != peers_.end();) {
    if (!at->second->broken) {
      ++at;
      continue;
    }
    log_info("event=connection_broken peer={}", at->first);
    bury(std::move(at->second));
    at = peers_.erase(at);
  }
}

// ---- Device memory --------------------------------------------------------------------------------------------------
bool UcxTransport::moves_cuda() const {
  ucp_context_attr_t attributes{};
  attributes.field_mask = UCP_ATTR_FIELD_MEMORY_TYPES;
  require(ucp_context_query(context_.get(), &attributes), "tell what memory it moves", options_);
  return (attributes.memory_types >> UCS_MEMORY_TYPE_CUDA & 1) != 0;
}

ucs_memory_type_t UcxTransport::memory_type(const Payload& payload) const {
  return payload.on_device && !device_.is_host ? UCS_MEMORY_TYPE_CUDA : UCS_MEMORY_TYPE_HOST;
}

// ---- Sending --------------------------------------------------------------------------------------------------------
// The data of an active message in one piece; a copy unless it is a single payload already. UCX takes pieces too, but moves them
// through fragments of 8 KiB that need both sides awake: 1 MiB in two pieces took 8 ms to and fro through shared memory
// where a copy and one piece take 0.4 ms (two busy cores, both sides sleeping between).
Payload UcxTransport::gather(const Frame& frame, bool long_header) {
  const std::size_t room = long_header ? aligned(frame.header.size()) : 0;
  Payload data = concatenate(frame.payloads, pool_, room);
  if (!long_header) return data;
  std::memcpy(data.data.get(), frame.header.data(), frame.header.size());
  std::memset(data.data.get() + frame.header.size(), 0, room - frame.header.size());
  return data;
}

void UcxTransport::send(std::uint32_t node, Frame frame) {
  const auto found = peers_.find(node);
  if (found == peers_.end() || found->second->broken) return;
  Peer& peer = *found->second;
  unsigned id = frame.device.empty() ? 0 : kJoinedBit;
  if (id != 0) send_pieces(peer, frame);
  const bool long_header = frame.header.size() > header_max_;
  id |= long_header ? kLongFrameId : kFrameId;
  auto sending = std::make_unique<Sending>();
  sending->data = gather(frame, long_header);
  sending->header_size = frame.header.size();
  sending->header = std::move(frame.header);
  const Header header = long_header ? std::as_bytes(std::span(&sending->header_size, 1)) : Header(sending->header);
  post(peer, id, header, std::move(sending));
}

// Each on its own: to join them would take a copy on the device, and the receiver cuts them apart again. By rendezvous
// whatever their size: what came before its place was known would lie in the processor's memory.
void UcxTransport::send_pieces(Peer& peer, Frame& frame) {
  CHECK(self_.name != 0 && peer.name != 0, "{} payloads in device memory, which UCX doesn't carry there",
        frame.device.size());
  const PiecesNote note{self_.name, ++joined_, frame.device.size()};
  write_note(frame, note);
  for (std::uint64_t index = 0; index < note.pieces; ++index) {
    auto sending = std::make_unique<Sending>();
    sending->piece = {note.sender, note.number, index};
    sending->data = std::move(frame.device[index]);
    const Header header = std::as_bytes(std::span(&sending->piece, 1));
    post(peer, kPieceId, header, std::move(sending));
  }
  frame.device.clear();
}

// `header` is what `sending` owns.
void UcxTransport::post(Peer& peer, unsigned id, Header header, std::unique_ptr<Sending> sending) {
  sending->peer = &peer;
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_MEMORY_TYPE |
                       UCP_OP_ATTR_FIELD_FLAGS;
  param.flags = id == kPieceId ? static_cast<std::uint32_t>(UCP_AM_SEND_FLAG_RNDV) : 0U;
  param.cb.send = &on_sent;
  param.user_data = sending.get();
  param.memory_type = memory_type(sending->data);
  ucs_status_ptr_t request = ucp_am_send_nbx(peer.endpoint, id, header.data(), header.size(), sending->data.data.get(),
                                             sending->data.size, &param);
  if (UCS_PTR_IS_ERR(request)) peer.broken = any_broken_ = true;
  if (!UCS_PTR_IS_PTR(request)) return;  // it has left, or never will: no callback comes
  ++peer.sending;
  (void)sending.release();  // on_sent takes it
}

void UcxTransport::on_sent(void* request, ucs_status_t, void* sending) {
  const std::unique_ptr<Sending> sent(static_cast<Sending*>(sending));
  --sent->peer->sending;
  ucp_request_free(request);
}

// ---- Receiving ------------------------------------------------------------------------------------------------------
void UcxTransport::listen(unsigned id, ucp_am_recv_callback_t callback) {
  ucp_am_handler_param_t handler{};
  handler.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                       UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG;
  handler.id = id;
  handler.flags = UCP_AM_FLAG_WHOLE_MSG;
  handler.cb = callback;
  handler.arg = this;
  require(ucp_worker_set_am_recv_handler(worker_.get(), &handler), "receive", options_);
}

template <unsigned id>
ucs_status_t UcxTransport::on_message(void* self, const void* header, std::size_t header_size, void* data,
                                      std::size_t data_size, const ucp_am_recv_param_t* param) {
  const bool rendezvous = (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0;
  try {
    return static_cast<UcxTransport*>(self)->arrive(id, {static_cast<const std::byte*>(header), header_size}, data,
                                                    data_size, rendezvous);
  } catch (const std::exception& e) {
    log_error("event=frame_dropped bytes={} reason=\"{}\"", data_size, e.what());
    return UCS_OK;  // the sender is told that it was taken
  }
}

// `header` is valid in this call only, and aligned to nothing; `data` is the bytes themselves, or a ticket for them.
ucs_status_t UcxTransport::arrive(unsigned id, Header header, void* data, std::size_t data_size, bool rendezvous) {
  if (id == kPieceId) return arrive_piece(header, data, data_size, rendezvous);
  std::uint64_t split = 0;
  const bool is_long = (id & kLongFrameId) != 0;
  if (is_long && header.size() == sizeof split) std::memcpy(&split, header.data(), sizeof split);
  const std::size_t header_most = kFrameHeaderMax + sizeof(PiecesNote);
  const bool well_formed = is_long ? split > 0 && split <= header_most && aligned(split) <= data_size &&
                                         data_size - aligned(split) <= kFramePayloadMax
                                   : header.size() <= header_most && data_size <= kFramePayloadMax;
  if (!well_formed) {
    log_warning("event=frame_dropped bytes={} reason=\"malformed active message\"", data_size);
    return UCS_OK;
  }
  Receiving receiving;
  receiving.transport = this;
  receiving.header_size = split;
  receiving.id = id;
  receiving.data = pool_.take(data_size);
  if (!is_long) receiving.header.assign(header.begin(), header.end());
  if (rendezvous) return fetch(std::make_unique<Receiving>(std::move(receiving)), data);
  if (data_size > 0) std::memcpy(receiving.data.data.get(), data, data_size);
  finish(receiving);
  return UCS_OK;
}

// Into the device's memory, without a look at it.
ucs_status_t UcxTransport::arrive_piece(Header header, void* data, std::size_t data_size, bool rendezvous) {
  auto receiving = std::make_unique<Receiving>();
  const bool well_formed = self_.name != 0 && rendezvous && header.size() == sizeof receiving->piece && data_size > 0 &&
                           data_size <= kFramePayloadMax;
  if (!well_formed) {
    log_warning("event=frame_dropped bytes={} reason=\"malformed payload in device memory\"", data_size);
    return UCS_OK;
  }
  std::memcpy(&receiving->piece, header.data(), sizeof receiving->piece);
  receiving->transport = this;
  receiving->id = kPieceId;
  receiving->data = device_.pool->take(data_size);
  return fetch(std::move(receiving), data);
}

ucs_status_t UcxTransport::fetch(std::unique_ptr<Receiving> receiving, void* data) {
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_MEMORY_TYPE;
  param.cb.recv_am = &on_received;
  param.user_data = receiving.get();
  param.memory_type = memory_type(receiving->data);
  Payload& into = receiving->data;
  ucs_status_ptr_t request = ucp_am_recv_data_nbx(worker_.get(), data, into.data.get(), into.size, &param);
  if (UCS_PTR_IS_PTR(request)) {
    ++receiving_;
    (void)receiving.release();  // on_received takes it
  } else if (request == nullptr) {
    finish(*receiving);  // it is here: no callback comes
  }
  return UCS_INPROGRESS;  // the ticket is spent in any case
}

void UcxTransport::on_received(void* request, ucs_status_t status, std::size_t size, void* receiving) {
  const std::unique_ptr<Receiving> received(static_cast<Receiving*>(receiving));
  --received->transport->receiving_;
  ucp_request_free(request);
  // Anything else: its sender died half-way.
  if (status == UCS_OK && size == received->data.size) received->transport->finish(*received);
}

void UcxTransport::finish(Receiving& receiving) {
  if (receiving.id == kPieceId) {
    const PieceHeader& piece = receiving.piece;
    if (auto whole = joiner_.add(piece.sender, piece.number, piece.index, std::move(receiving.data)))
      arrived_.push_back(std::move(*whole));
    return;
  }
  Frame frame{.header = std::move(receiving.header), .payloads = {}};
  Payload whole = std::move(receiving.data);
  if (const std::size_t split = receiving.header_size; split > 0) {
    frame.header.assign(whole.data.get(), whole.data.get() + split);
    whole = {.data = {whole.data, whole.data.get() + aligned(split)}, .size = whole.size - aligned(split)};
  }
  if (whole.size > 0) frame.payloads.push_back(std::move(whole));
  if ((receiving.id & kJoinedBit) != 0) return join(std::move(frame));
  arrived_.push_back(std::move(frame));
}

void UcxTransport::join(Frame frame) {
  const auto note = take_note(frame);
  if (!note) return log_warning("event=frame_dropped reason=\"a malformed note of payloads in device memory\"");
  if (auto whole = joiner_.add(*note, std::move(frame))) arrived_.push_back(std::move(*whole));
}

bool UcxTransport::poll(const std::function<void(Frame)>& deliver) {
  bool happened = false;
  for (int round = 0; round < kProgressRoundsMax && ucp_worker_progress(worker_.get()) > 0; ++round) {
    happened = true;
    if (!arrived_.empty()) break;  // what is here doesn't wait for what may come
  }
  bury_broken();
  // A frame that `deliver` sends to this very node may arrive meanwhile: it waits for the next call.
  due_.swap(arrived_);
  for (Frame& frame : due_) deliver(std::move(frame));
  happened = happened || !due_.empty();
  due_.clear();
  return happened;
}

// ---- The end --------------------------------------------------------------------------------------------------------
// Progresses until every flush and closing is done, and every transfer of a live peer. False: time is up.
bool UcxTransport::settle(Clock::time_point deadline) {
  while (Clock::now() < deadline) {
    std::erase_if(requests_, [](ucs_status_ptr_t request) {
      if (ucp_request_check_status(request) == UCS_INPROGRESS) return false;
      ucp_request_free(request);
      return true;
    });
    const bool sending = std::any_of(peers_.begin(), peers_.end(), [](const auto& p) { return p.second->sending > 0; });
    if (requests_.empty() && !sending && receiving_ == 0) return true;
    ucp_worker_progress(worker_.get());
    bury_broken();
  }
  return false;
}

// Whether everything has left and nothing more can come, so that the worker may be destroyed.
bool UcxTransport::say_goodbye() {
  const auto deadline = Clock::now() + kGoodbyeMax;
  // UCX's flush waits for no rendezvous: those first.
  bool done = settle(deadline);
  ucp_request_param_t param{};
  for (auto& [node, peer] : peers_) {
    ucs_status_ptr_t request = ucp_ep_flush_nbx(peer->endpoint, &param);
    if (UCS_PTR_IS_PTR(request)) requests_.push_back(request);
  }
  done = settle(deadline) && done;
  const bool any_here_left = std::any_of(peers_.begin(), peers_.end(), [](const auto& p) { return p.second->here; });
  const bool any_here_dead = std::any_of(buried_.begin(), buried_.end(), [](const auto& peer) { return peer->here; });
  if (any_here_dead || (any_here_left && !done)) return false;
  for (auto& [node, peer] : peers_) close(*peer, done ? 0 : UCP_EP_CLOSE_FLAG_FORCE);
  return settle(deadline + kGoodbyeMax) &&
         std::all_of(buried_.begin(), buried_.end(), [](const auto& peer) { return peer->sending == 0; });
}

UcxTransport::~UcxTransport() {
  if (joined_ > 0) log_info("event=device_memory_carried way=ucx frames={}", joined_);
  if (say_goodbye()) {
    worker_.reset();  // while all that its callbacks touch is there
    return;
  }
  // UCX aborts when a worker is destroyed that has something queued for a dead peer; and a live one may still write
  // here.
  std::size_t sending = 0;
  for (const auto& peer : buried_) sending += peer->sending;
  for (const auto& [node, peer] : peers_) sending += peer->sending;
  log_info("event=worker_leaked sending={} receiving={}", sending, receiving_);
  (void)worker_.release();
  (void)context_.release();
}

}  // namespace

std::unique_ptr<Transport> make_ucx_transport(const UcxOptions& options, PayloadPool& pool, const UcxDevice& device) {
  return std::make_unique<UcxTransport>(options, pool, device);
}

}  // namespace troupe
