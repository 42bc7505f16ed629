// WebDesk: the thread that answers what the server is asked, one question after another, and looks once a second while
// somebody watches; so a source is used by one thread, and the server's own never waits. Another thread lets streams
// hear a comment when there is nothing to say, for the page takes silence for a broken connection.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "launcher/inspect/web_answers.h"
#include "launcher/inspect/web_stream.h"

namespace troupe {

class WebDesk {
 public:
  WebDesk(InspectSource& source, bool may_control);
  ~WebDesk();  // as after close()
  WebDesk(const WebDesk&) = delete;
  WebDesk& operator=(const WebDesk&) = delete;

  using Told = std::function<void(WebAnswer)>;
  // told is called once, by another thread. False: too much is asked, or it is closed; told is not called.
  bool ask(WebQuestion question, Told told);
  bool watch(std::shared_ptr<WebStream> stream);
  // Ends streams, and answers what waits that it won't be answered. Then nobody is called any more.
  void close();

 private:
  struct Asking {
    WebQuestion question;
    Told told;
  };
  void work();
  void comment();
  using Streams = std::vector<std::shared_ptr<WebStream>>;
  Streams due();
  void show(const Streams& streams);
  void forget_left();

  WebAnswers answers_;  // of the working thread
  std::mutex mutex_;    // of all below
  std::condition_variable something_, silence_;
  std::deque<Asking> questions_;
  Streams streams_;
  std::int64_t retry_us_ = 0;  // after a look that failed
  bool closed_ = false;
  std::thread worker_, commenter_;
};
constexpr std::size_t kQuestionsMax = 256, kStreamsMax = 128;
constexpr std::int64_t kSilentUs = 5'000'000;

}  // namespace troupe
