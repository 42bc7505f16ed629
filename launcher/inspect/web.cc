#include "launcher/inspect/web.h"

#include <microhttpd.h>
#include <strings.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <optional>
#include <string_view>

#include "kernels/base/check.h"
#include "kernels/base/error.h"
#include "launcher/inspect/control_json.h"
#include "launcher/inspect/listener.h"
#include "launcher/inspect/page_files.h"
#include "launcher/inspect/web_answers.h"
#include "launcher/inspect/web_desk.h"
#include "launcher/inspect/web_guard.h"

namespace troupe {

namespace {

constexpr std::size_t kStreamBlockBytes = 16 << 10;
constexpr std::array<const char*, 6> kAskedOfDesk = {"/api/view",    "/api/timeline", "/api/event",
                                                     "/api/metrics", kControlPath,    "/metrics"};

// Of a request, while it lasts.
struct Request {
  std::string path{}, body{};
  WebQuery query{};
  bool head = false;
  std::optional<WebAnswer> answer{};  // written by the desk's thread while the connection sleeps
};

std::string text_of(const char* bytes, std::size_t size) { return bytes == nullptr ? "" : std::string(bytes, size); }

MHD_Result note_header(void* cls, MHD_ValueKind, const char* key, std::size_t key_size, const char* value,
                       std::size_t value_size) {
  auto& asked = *static_cast<Asked*>(cls);
  const std::string name = text_of(key, key_size), said = text_of(value, value_size);
  const auto note = [&](const char* header, std::optional<std::string>& place) {
    if (strcasecmp(name.c_str(), header) != 0) return;
    asked.repeated = asked.repeated || place.has_value();
    place = said;
  };
  note(MHD_HTTP_HEADER_HOST, asked.host);
  note(MHD_HTTP_HEADER_ORIGIN, asked.origin);
  note(MHD_HTTP_HEADER_AUTHORIZATION, asked.authorization);
  note(MHD_HTTP_HEADER_CONTENT_TYPE, asked.content_type);
  if (strcasecmp(name.c_str(), MHD_HTTP_HEADER_CONTENT_LENGTH) == 0)
    std::from_chars(said.data(), said.data() + said.size(), asked.body_bytes);
  return MHD_YES;
}

MHD_Result note_argument(void* cls, MHD_ValueKind, const char* key, std::size_t key_size, const char* value,
                         std::size_t value_size) {
  static_cast<WebQuery*>(cls)->emplace(text_of(key, key_size), text_of(value, value_size));
  return MHD_YES;
}

void add_headers(MHD_Response* response, const std::string& type) {
  MHD_add_response_header(response, "Content-Type", type.c_str());
  MHD_add_response_header(response, "Content-Security-Policy", "default-src 'self'");
  MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
  MHD_add_response_header(response, "X-Frame-Options", "DENY");
  MHD_add_response_header(response, "Cross-Origin-Resource-Policy", "same-origin");
  MHD_add_response_header(response, "Referrer-Policy", "no-referrer");
  MHD_add_response_header(response, "Cache-Control", "no-store");
}

MHD_Result queue(MHD_Connection* connection, int status, MHD_Response* response) {
  if (response == nullptr) return MHD_NO;
  const MHD_Result result = MHD_queue_response(connection, static_cast<unsigned>(status), response);
  MHD_destroy_response(response);
  return result;
}

// An answer's text while it is being sent.
struct Held {
  std::string text;
  std::atomic<std::size_t>& bytes;
};

MHD_Result send(MHD_Connection* connection, WebAnswer answer, std::atomic<std::size_t>& bytes) {
  if (bytes + answer.body.size() > kAnswerBytesMax) answer = web_error(503, "too much is being sent; ask again");
  auto* const held = new Held{std::move(answer.body), bytes};
  bytes += held->text.size();
  MHD_Response* const response = MHD_create_response_from_buffer_with_free_callback_cls(
      held->text.size(), held->text.data(),
      [](void* cls) {
        const std::unique_ptr<Held> done(static_cast<Held*>(cls));
        done->bytes -= done->text.size();
      },
      held);
  CHECK(response != nullptr, "no memory for an answer");
  add_headers(response, answer.type);
  if (answer.status == 401) MHD_add_response_header(response, "WWW-Authenticate", "Bearer");
  if (!answer.allow.empty()) MHD_add_response_header(response, "Allow", answer.allow.c_str());
  return queue(connection, answer.status, response);
}

MHD_Result send_file(MHD_Connection* connection, const PageFile& file) {
  MHD_Response* const response =
      MHD_create_response_from_buffer(file.bytes.size(), const_cast<char*>(file.bytes.data()), MHD_RESPMEM_PERSISTENT);
  CHECK(response != nullptr, "no memory for an answer");
  add_headers(response, content_type(file.name));
  return queue(connection, 200, response);
}

const PageFile* page_file(const std::string& path) {
  const std::string name = path == "/" ? "index.html" : path.substr(1);
  const auto& files = page_files();
  const auto found = std::find_if(files.begin(), files.end(), [&](const PageFile& file) { return file.name == name; });
  return found == files.end() ? nullptr : &*found;
}

ssize_t read_stream(void* cls, std::uint64_t, char* to, std::size_t most) {
  const WebStream::Read read = (*static_cast<std::shared_ptr<WebStream>*>(cls))->read(to, most);
  return read.over ? MHD_CONTENT_READER_END_OF_STREAM : static_cast<ssize_t>(read.bytes);
}

void leave_stream(void* cls) {
  const std::unique_ptr<std::shared_ptr<WebStream>> stream(static_cast<std::shared_ptr<WebStream>*>(cls));
  (*stream)->leave();
}

}  // namespace

struct WebServer::Running {
  Running(InspectSource& source, const WebOptions& options)
      : rules{options.address, options.port, options.machine, options.token, options.allow_control},
        desk(source, options.allow_control) {}

  MHD_Result handle(MHD_Connection* connection, const char* path, const char* method, const char* upload,
                    std::size_t* upload_size, void** request);
  MHD_Result begin(MHD_Connection* connection, Request& request, const char* method);
  MHD_Result answer(MHD_Connection* connection, Request& request);
  MHD_Result stream(MHD_Connection* connection, const Request& request);
  MHD_Result ask(MHD_Connection* connection, Request& request);

  GuardRules rules;
  std::atomic<std::size_t> sending_bytes{0};
  WebDesk desk;
  MHD_Daemon* daemon = nullptr;
};

// A request that is refused is not read any further: the library closes its connection.
MHD_Result WebServer::Running::begin(MHD_Connection* connection, Request& request, const char* method) {
  Asked asked{.method = method, .path = request.path};
  MHD_get_connection_values_n(connection, MHD_HEADER_KIND, note_header, &asked);
  MHD_get_connection_values_n(connection, MHD_GET_ARGUMENT_KIND, note_argument, &request.query);
  request.head = asked.method == "HEAD";
  const auto no = refused(rules, asked);
  if (!no) return MHD_YES;
  WebAnswer answer = web_error(no->status, no->sentence);
  if (no->status == 405) answer.allow = request.path == kControlPath ? "POST" : "GET, HEAD";
  return send(connection, std::move(answer), sending_bytes);
}

MHD_Result WebServer::Running::handle(MHD_Connection* connection, const char* path, const char* method,
                                      const char* upload, std::size_t* upload_size, void** known) {
  if (*known == nullptr) {
    auto* const request = new Request{.path = path};
    *known = request;
    return begin(connection, *request, method);
  }
  Request& request = *static_cast<Request*>(*known);
  if (*upload_size > 0) {  // its length may not have been told
    if (request.body.size() + *upload_size > kBodyBytesMax) return MHD_NO;
    request.body.append(upload, *upload_size);
    *upload_size = 0;
    return MHD_YES;
  }
  return answer(connection, request);
}

MHD_Result WebServer::Running::answer(MHD_Connection* connection, Request& request) {
  if (request.answer) return send(connection, std::move(*request.answer), sending_bytes);
  if (const PageFile* const file = page_file(request.path)) return send_file(connection, *file);
  if (request.path == "/api/stream") return stream(connection, request);
  if (std::find(kAskedOfDesk.begin(), kAskedOfDesk.end(), request.path) != kAskedOfDesk.end())
    return ask(connection, request);
  return send(connection, web_error(404, "there is nothing of this name"), sending_bytes);
}

MHD_Result WebServer::Running::ask(MHD_Connection* connection, Request& request) {
  MHD_suspend_connection(connection);  // first: the answer may come at once
  const bool asked =
      desk.ask({request.path, request.query, std::move(request.body)}, [connection, &request](WebAnswer answer) {
        request.answer = std::move(answer);
        MHD_resume_connection(connection);
      });
  if (asked) return MHD_YES;
  request.answer = web_error(503, "too much is asked at once, or the server is ending; ask again");
  MHD_resume_connection(connection);
  return MHD_YES;
}

MHD_Result WebServer::Running::stream(MHD_Connection* connection, const Request& request) {
  ViewPart part;
  try {
    part = view_part(request.query);
  } catch (const Misasked& problem) {
    return send(connection, web_error(400, problem.what()), sending_bytes);
  }
  if (request.head) return send(connection, {200, "text/event-stream", ""}, sending_bytes);
  const auto stream = std::make_shared<WebStream>(
      part, [connection] { MHD_suspend_connection(connection); }, [connection] { MHD_resume_connection(connection); });
  if (!desk.watch(stream)) return send(connection, web_error(503, "too many watch this run already"), sending_bytes);
  MHD_Response* const response = MHD_create_response_from_callback(
      MHD_SIZE_UNKNOWN, kStreamBlockBytes, read_stream, new std::shared_ptr<WebStream>(stream), leave_stream);
  CHECK(response != nullptr, "no memory for a stream");
  add_headers(response, "text/event-stream");
  return queue(connection, 200, response);
}

WebServer::WebServer(InspectSource& source, const WebOptions& options) {
  CHECK(!options.token.empty() || (is_loopback(options.address) && !options.allow_control), "a server without a token");
  const Listener listener = listen_on(options.address, options.port);
  running_ = std::make_unique<Running>(source, options);
  running_->rules.port = listener.port;
  const auto handle = [](void* cls, MHD_Connection* connection, const char* path, const char* method, const char*,
                         const char* upload, std::size_t* upload_size, void** request) -> MHD_Result {
    try {
      return static_cast<Running*>(cls)->handle(connection, path, method, upload, upload_size, request);
    } catch (const std::exception&) {  // no memory: this connection is closed
      return MHD_NO;
    }
  };
  const auto completed = [](void*, MHD_Connection*, void** request, MHD_RequestTerminationCode) {
    delete static_cast<Request*>(*request);
    *request = nullptr;
  };
  running_->daemon = MHD_start_daemon(
      MHD_USE_POLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME, 0, nullptr, nullptr,
      static_cast<MHD_AccessHandlerCallback>(handle), running_.get(), MHD_OPTION_LISTEN_SOCKET, listener.fd,
      MHD_OPTION_NOTIFY_COMPLETED, static_cast<MHD_RequestCompletedCallback>(completed), nullptr,
      MHD_OPTION_CONNECTION_LIMIT, kConnectionsMax, MHD_OPTION_CONNECTION_TIMEOUT, kConnectionTimeoutSeconds,
      MHD_OPTION_CONNECTION_MEMORY_LIMIT, kConnectionBytesMax, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
  if (running_->daemon != nullptr) return;
  close(listener.fd);
  throw Error("the server can't be started: has this machine threads and descriptors left?");
}

// The desk first: it wakes every connection that sleeps, and none falls asleep again.
WebServer::~WebServer() {
  running_->desk.close();
  MHD_stop_daemon(running_->daemon);
}

std::uint16_t WebServer::port() const { return running_->rules.port; }

}  // namespace troupe
