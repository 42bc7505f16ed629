#include "launcher/inspect/web_desk.h"

#include <algorithm>
#include <chrono>

#include "launcher/loop.h"

namespace troupe {

namespace {

const auto kComment = std::make_shared<const std::string>(":\n\n");
constexpr std::chrono::milliseconds kPause{50};  // between two askings whether a second is over
constexpr std::chrono::milliseconds kCommentPause{1000};

}  // namespace

WebDesk::WebDesk(InspectSource& source, bool may_control)
    : answers_(source, may_control), worker_([this] { work(); }), commenter_([this] { comment(); }) {}

WebDesk::~WebDesk() { close(); }

bool WebDesk::ask(WebQuestion question, Told told) {
  const std::lock_guard lock(mutex_);
  if (closed_ || questions_.size() >= kQuestionsMax) return false;
  questions_.push_back({std::move(question), std::move(told)});
  something_.notify_one();
  return true;
}

bool WebDesk::watch(std::shared_ptr<WebStream> stream) {
  const std::lock_guard lock(mutex_);
  forget_left();
  if (closed_ || streams_.size() >= kStreamsMax) return false;
  stream->said_us = monotonic_us();
  streams_.push_back(std::move(stream));
  something_.notify_one();
  return true;
}

void WebDesk::close() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    something_.notify_one();
    silence_.notify_one();
  }
  if (worker_.joinable()) worker_.join();
  if (commenter_.joinable()) commenter_.join();
  for (const Asking& asking : questions_) asking.told(web_error(503, "the server is ending"));
  questions_.clear();
  for (const auto& stream : streams_) stream->end();
  streams_.clear();
}

void WebDesk::forget_left() {
  std::erase_if(streams_, [](const auto& stream) { return stream->left(); });
}

// All when the view is old, else those who have not been told it.
WebDesk::Streams WebDesk::due() {
  forget_left();
  if (monotonic_us() < retry_us_) return {};
  Streams due = streams_;
  if (!answers_.must_look())
    std::erase_if(due, [this](const auto& stream) { return stream->look == answers_.looks(); });
  return due;
}

void WebDesk::work() {
  show({});  // rates are of the time between two looks: so the first who asks is told some
  std::unique_lock lock(mutex_);
  while (!closed_) {
    if (const Streams streams = due(); !streams.empty()) {
      lock.unlock();
      show(streams);
      lock.lock();
    }
    if (!questions_.empty()) {
      const Asking asking = std::move(questions_.front());
      questions_.pop_front();
      lock.unlock();
      asking.told(answers_.answer(asking.question));
      lock.lock();
    } else if (streams_.empty()) {
      something_.wait(lock);
    } else {
      something_.wait_for(lock, kPause);
    }
  }
}

void WebDesk::show(const Streams& streams) try {
  if (answers_.must_look()) answers_.look();
  for (const auto& stream : streams) {
    WebAnswers::Event event = answers_.event(stream->part, stream->experts_heard);
    stream->experts_heard = event.experts;
    stream->say(std::move(event.text));
    const std::lock_guard lock(mutex_);
    stream->look = answers_.looks();
    stream->said_us = monotonic_us();
  }
} catch (const std::exception&) {
  // Streams hear comments meanwhile; who asks for the view is told why.
  const std::lock_guard lock(mutex_);
  retry_us_ = monotonic_us() + kLookUs;
}

void WebDesk::comment() {
  std::unique_lock lock(mutex_);
  while (!closed_) {
    const std::int64_t now_us = monotonic_us();
    for (const auto& stream : streams_) {
      if (now_us - stream->said_us < kSilentUs) continue;
      stream->said_us = now_us;
      stream->comment(kComment);
    }
    silence_.wait_for(lock, kCommentPause);
  }
}

}  // namespace troupe
