#include "launcher/inspect/web_stream.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace troupe {

void WebStream::say(std::shared_ptr<const std::string> text) {
  const std::lock_guard lock(mutex_);
  if (left_ || over_) return;
  next_ = std::move(text);
  if (std::exchange(asleep_, false)) wake_();
}

void WebStream::comment(const std::shared_ptr<const std::string>& text) {
  const std::lock_guard lock(mutex_);
  if (left_ || over_ || sending_ || next_) return;
  next_ = text;
  if (std::exchange(asleep_, false)) wake_();
}

void WebStream::end() {
  const std::lock_guard lock(mutex_);
  over_ = true;
  if (!left_ && std::exchange(asleep_, false)) wake_();
}

bool WebStream::left() const {
  const std::lock_guard lock(mutex_);
  return left_;
}

void WebStream::leave() {
  const std::lock_guard lock(mutex_);
  left_ = true;
  sending_ = next_ = nullptr;
}

WebStream::Read WebStream::read(char* to, std::size_t most) {
  const std::lock_guard lock(mutex_);
  if (over_) return {0, true};
  if (!sending_) {
    sending_ = std::exchange(next_, nullptr);
    sent_ = 0;
  }
  if (!sending_) {
    asleep_ = true;
    sleep_();
    return {};
  }
  const std::size_t bytes = std::min(most, sending_->size() - sent_);
  std::memcpy(to, sending_->data() + sent_, bytes);
  sent_ += bytes;
  if (sent_ == sending_->size()) sending_ = nullptr;
  return {bytes, false};
}

}  // namespace troupe
