// Chat: conversations as tokens. The law: what is learned is the assistant's text and the token that ends it, the last
// answer behind exactly what a model is given when it is asked for it: example(m) begins with prompt(all of m but the
// last). So it is for every answer in plain; in r1 an earlier one is learned as it stands in a later prompt.
//
//   plain  the messages' texts one after another, an end token behind each of the assistant's
//   r1     <｜begin▁of▁sentence｜>{system}<｜User｜>{user}<｜Assistant｜>{assistant}<｜end▁of▁sentence｜>..., where
//          an earlier answer has only its text behind </think>, and the last one begins with <think> and a line
//          break, which are given, not learned
//
// A template's words are special tokens; the same words in a message are ordinary text, but for <think> and </think>
// in an answer, which the model writes itself. With one token a byte the words are their bytes.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "actors/data/json_lines.h"
#include "actors/data/tokenizer.h"

namespace troupe {

enum class Speaker { system, user, assistant };

struct ChatMessage {
  Speaker speaker = Speaker::user;
  std::string text;
};

// {"messages": [{"role": ..., "content": ...}, ...]}, or {"prompt": ..., "completion": ...}, which is a user's message
// and its answer: perhaps a system message, then user and assistant in turns; the last word is the assistant's.
// Throws Error with file, line and message.
std::vector<ChatMessage> read_chat(const std::string& path, const JsonLine& line);

struct ChatTokens {
  std::vector<std::int32_t> ids;
  std::vector<bool> is_target;  // the assistant's

  void append(std::span<const std::int32_t> tokens, bool learned);
};

class ChatTemplate {
 public:
  // kind: "plain" or "r1". end_token: what ends an answer in plain, and in r1 with one token a byte. Throws Error: the
  // tokenizer lacks a token of the template.
  ChatTemplate(const std::string& kind, std::shared_ptr<const Tokenizer> tokenizer, std::int32_t end_token);

  // What a model is given to answer. REQUIRES: the last message is the user's.
  ChatTokens prompt(std::span<const ChatMessage> messages) const;
  // What it learns from. REQUIRES: messages as of read_chat.
  ChatTokens example(std::span<const ChatMessage> messages) const;
  std::int32_t end_token() const { return end_token_; }
  // The text that an answer is given to begin with, at the end of a prompt; "": none.
  std::string_view prefill() const;

 private:
  std::vector<std::int32_t> marker(const std::string& content) const;
  void append_answer(ChatTokens& tokens, std::string_view text) const;

  bool is_r1_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::int32_t end_token_;
  std::vector<std::int32_t> begin_, user_, assistant_, think_, think_end_, prefill_;
};

}  // namespace troupe
