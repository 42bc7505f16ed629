#include "actors/data/chat.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "actors/data/r1.h"
#include "kernels/base/check.h"
#include "kernels/base/error.h"

namespace troupe {
namespace {

using nlohmann::json;

// One line; throws Error that names it.
class Reading {
 public:
  Reading(const std::string& path, const JsonLine& line) : path_(path), line_(line) {}

  std::vector<ChatMessage> run() {
    const json object = parse_json_line(path_, line_);
    const bool has_messages = object.contains("messages");
    if (!object.is_object() || has_messages == (object.contains("prompt") || object.contains("completion")))
      refuse("not an object with either \"messages\", or \"prompt\" and \"completion\"");
    std::vector<ChatMessage> messages;
    if (!has_messages) {
      messages.push_back({Speaker::user, text_of(object, "prompt", "the object")});
      messages.push_back({Speaker::assistant, text_of(object, "completion", "the object")});
    } else {
      if (!object["messages"].is_array()) refuse("\"messages\" is not a list");
      for (const json& message : object["messages"]) messages.push_back(read_message(message, messages.size() + 1));
    }
    check_turns(messages, has_messages);
    return messages;
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const { throw Error("{}:{}: {}", path_, line_.number, what); }

  std::string text_of(const json& object, const std::string& key, const std::string& where) const {
    if (!object.contains(key) || !object[key].is_string()) refuse(fmt::format("{} has no string \"{}\"", where, key));
    return object[key].get<std::string>();
  }

  ChatMessage read_message(const json& message, std::size_t number) const {
    const std::string where = fmt::format("message {}", number);
    if (!message.is_object()) refuse(where + " is not an object with \"role\" and \"content\"");
    const std::string role = text_of(message, "role", where);
    if (role != "system" && role != "user" && role != "assistant")
      refuse(fmt::format("{} has role \"{}\", must be system, user or assistant", where, role));
    const Speaker speaker = role == "system" ? Speaker::system : role == "user" ? Speaker::user : Speaker::assistant;
    return {speaker, text_of(message, "content", where)};
  }

  void check_turns(const std::vector<ChatMessage>& messages, bool are_messages) const {
    Speaker due = Speaker::user;
    for (std::size_t i = 0; i < messages.size(); ++i) {
      const auto& [speaker, text] = messages[i];
      const std::string where = are_messages ? fmt::format("message {}", i + 1)
                                : i == 0     ? "the prompt"
                                             : "the completion";
      if (speaker == Speaker::system && i == 0) continue;
      if (speaker != due)
        refuse(fmt::format(
            "{} is the {}'s, must be the {}'s: after a system message, if any, user and assistant take turns", where,
            name_of(speaker), name_of(due)));
      if (text.empty()) refuse(fmt::format("{} is empty", where));
      due = due == Speaker::user ? Speaker::assistant : Speaker::user;
    }
    if (messages.empty() || messages.back().speaker != Speaker::assistant)
      refuse("the last message must be the assistant's: there is nothing to learn after it");
  }

  static const char* name_of(Speaker speaker) {
    return speaker == Speaker::system ? "system" : speaker == Speaker::user ? "user" : "assistant";
  }

  const std::string& path_;
  const JsonLine& line_;
};

std::string_view behind_thinking(std::string_view text) {
  const std::size_t end = text.rfind(kThinkEnd);
  return end == std::string_view::npos ? text : text.substr(end + kThinkEnd.size());
}

// <think> and one line break at the begin: what was given.
std::string_view behind_prefill(std::string_view text) {
  if (!text.starts_with(kThink)) return text;
  text.remove_prefix(kThink.size());
  if (text.starts_with('\n')) text.remove_prefix(1);
  return text;
}

}  // namespace

std::vector<ChatMessage> read_chat(const std::string& path, const JsonLine& line) { return Reading(path, line).run(); }

void ChatTokens::append(std::span<const std::int32_t> tokens, bool learned) {
  ids.insert(ids.end(), tokens.begin(), tokens.end());
  is_target.insert(is_target.end(), tokens.size(), learned);
}

ChatTemplate::ChatTemplate(const std::string& kind, std::shared_ptr<const Tokenizer> tokenizer, std::int32_t end_token)
    : is_r1_(kind == "r1"), tokenizer_(std::move(tokenizer)), end_token_(end_token) {
  CHECK(is_r1_ || kind == "plain", "chat template {}", kind);
  if (!is_r1_) return;
  begin_ = marker("<｜begin▁of▁sentence｜>");
  user_ = marker("<｜User｜>");
  assistant_ = marker("<｜Assistant｜>");
  if (!tokenizer_->is_bytes()) end_token_ = marker("<｜end▁of▁sentence｜>")[0];
  think_ = tokenizer_->encode_with_special(kThink);
  think_end_ = tokenizer_->encode_with_special(kThinkEnd);
  prefill_ = tokenizer_->encode_with_special(kPrefill);
}

std::string_view ChatTemplate::prefill() const { return is_r1_ ? kPrefill : ""; }

std::vector<std::int32_t> ChatTemplate::marker(const std::string& content) const {
  std::vector<std::int32_t> tokens = tokenizer_->encode_with_special(content);
  if (!tokenizer_->is_bytes() && tokens.size() != 1)
    throw Error("{} has no token {}, which data.template = \"r1\" needs: choose \"plain\", or another tokenizer",
                tokenizer_->path(), content);
  return tokens;
}

ChatTokens ChatTemplate::prompt(std::span<const ChatMessage> messages) const {
  CHECK(!messages.empty() && messages.back().speaker == Speaker::user, "a prompt of {} messages", messages.size());
  ChatTokens tokens;
  tokens.append(begin_, false);
  for (const auto& [speaker, text] : messages) {
    if (speaker == Speaker::assistant) {
      append_answer(tokens, is_r1_ ? behind_thinking(text) : text);
      continue;
    }
    if (speaker == Speaker::user) tokens.append(user_, false);
    tokens.append(tokenizer_->encode(text), false);
    if (speaker == Speaker::user) tokens.append(assistant_, false);
  }
  tokens.append(prefill_, false);
  return tokens;
}

ChatTokens ChatTemplate::example(std::span<const ChatMessage> messages) const {
  ChatTokens tokens = prompt(messages.first(messages.size() - 1));
  append_answer(tokens, is_r1_ ? behind_prefill(messages.back().text) : messages.back().text);
  return tokens;
}

// The model's own words, its marks of thinking among them.
void ChatTemplate::append_answer(ChatTokens& tokens, std::string_view text) const {
  while (is_r1_) {
    const std::size_t begin = text.find(kThink), end = text.find(kThinkEnd), at = std::min(begin, end);
    if (at == std::string_view::npos) break;
    tokens.append(tokenizer_->encode(text.substr(0, at)), true);
    tokens.append(begin < end ? think_ : think_end_, true);
    text.remove_prefix(at + (begin < end ? kThink : kThinkEnd).size());
  }
  tokens.append(tokenizer_->encode(text), true);
  tokens.append(std::span(&end_token_, 1), true);
}

}  // namespace troupe
