// Pre-tokenizing with PCRE2 (compiled, just in time where it can be) and ICU. A text streams through the steps: only
// one piece of each step is held, so a long text needs no memory for its pieces.
#include "actors/data/pre_tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>

#include <algorithm>
#include <array>

#include "actors/data/pattern.h"
#include "kernels/base/check.h"
#include "kernels/base/error.h"

namespace troupe {
namespace {

template <auto function>
struct Free {
  template <typename T>
  void operator()(T* pointer) const {
    function(pointer);
  }
};
using Code = std::unique_ptr<pcre2_code, Free<pcre2_code_free>>;
using CompileContext = std::unique_ptr<pcre2_compile_context, Free<pcre2_compile_context_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Free<pcre2_match_context_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Free<pcre2_match_data_free>>;
using Stack = std::unique_ptr<pcre2_jit_stack, Free<pcre2_jit_stack_free>>;

constexpr std::size_t kStackBytesMin = std::size_t{64} << 10, kStackBytesMax = std::size_t{64} << 20;

std::string sentence_of(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

PCRE2_SPTR units_of(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

Code compile(const SplitStep& step) {
  const std::string pattern = step.is_literal ? step.pattern : pattern_for_pcre2(step.pattern);
  const CompileContext context(pcre2_compile_context_create(nullptr));
  CHECK(context, "no memory for a pattern");
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  const std::uint32_t how = step.is_literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_MULTILINE;
  int problem = 0;
  std::size_t place = 0;
  Code code(pcre2_compile(units_of(pattern), pattern.size(), PCRE2_UTF | how, &problem, &place, context.get()));
  if (!code)
    throw Error("the pattern {} can't be compiled: {} (after {})", step.pattern, sentence_of(problem),
                pattern.substr(0, place));
  std::uint32_t may_be_empty = 0;
  pcre2_pattern_info(code.get(), PCRE2_INFO_MATCHEMPTY, &may_be_empty);
  if (may_be_empty != 0) throw Error("the pattern {} may match nothing, which is not supported", step.pattern);
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);  // where it can't be, the pattern is interpreted
  return code;
}

const icu::Normalizer2& normalizer_of(NormalForm form) {
  UErrorCode status = U_ZERO_ERROR;
  const icu::Normalizer2* found = form == NormalForm::nfc    ? icu::Normalizer2::getNFCInstance(status)
                                  : form == NormalForm::nfd  ? icu::Normalizer2::getNFDInstance(status)
                                  : form == NormalForm::nfkc ? icu::Normalizer2::getNFKCInstance(status)
                                                             : icu::Normalizer2::getNFKDInstance(status);
  if (U_FAILURE(status)) throw Error("icu has no normal forms ({}): install its data", u_errorName(status));
  return *found;
}

icu::StringPiece piece_of(std::string_view text) { return {text.data(), static_cast<std::int32_t>(text.size())}; }

// ICU counts in 32 bits.
void check_size(std::string_view text) {
  if (text.size() >= std::size_t{1} << 30) throw Error("{} bytes are too many to normalise: cut the text", text.size());
}

}  // namespace

struct PreTokenizer::Step {
  SplitStep told;
  Code code;  // null: no split
};

PreTokenizer::PreTokenizer(std::vector<NormalForm> forms, const std::vector<SplitStep>& steps)
    : forms_(std::move(forms)) {
  for (const SplitStep& step : steps) steps_.push_back({step, step.pattern.empty() ? Code() : compile(step)});
}
PreTokenizer::~PreTokenizer() = default;
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;

bool PreTokenizer::is_normalized(std::string_view text) const {
  if (!forms_.empty()) check_size(text);
  return std::all_of(forms_.begin(), forms_.end(), [&](NormalForm form) {
    UErrorCode status = U_ZERO_ERROR;
    return normalizer_of(form).isNormalizedUTF8(piece_of(text), status) != 0 && U_SUCCESS(status);
  });
}

std::string PreTokenizer::normalized(std::string_view text) const {
  std::string result(text);
  for (const NormalForm form : forms_) {
    check_size(result);
    std::string next;
    icu::StringByteSink<std::string> sink(&next);
    UErrorCode status = U_ZERO_ERROR;
    normalizer_of(form).normalizeUTF8(0, piece_of(result), sink, nullptr, status);
    if (U_FAILURE(status)) throw Error("a text of {} bytes can't be normalised: {}", text.size(), u_errorName(status));
    result = std::move(next);
  }
  return result;
}

// ---- Splitting ------------------------------------------------------------------------------------------------------

// One text on its way through the steps.
class PreTokenizer::Splitting {
 public:
  Splitting(const std::vector<Step>& steps, const Take& take) : steps_(steps), take_(take) {
    for (const Step& step : steps_)
      data_.emplace_back(step.code ? pcre2_match_data_create_from_pattern(step.code.get(), nullptr) : nullptr);
  }

  // Hands the piece to step number `step` and what comes of it to those behind.
  void run(std::size_t step, std::string_view piece) {
    if (piece.empty()) return;
    if (step == steps_.size()) return take_(piece);
    const Step& here = steps_[step];
    if (here.told.prefix_space && piece.front() != ' ') return split(step, ' ' + std::string(piece));
    split(step, piece);
  }

 private:
  // Neighbours that become one piece: at most one piece waits for the one behind it.
  struct Waiting {
    std::string_view piece;
    bool is_match = false;
  };

  void split(std::size_t step, std::string_view text) {
    const Step& here = steps_[step];
    if (!here.code) return run(step + 1, text);
    Waiting waiting;
    std::size_t done = 0;
    while (done < text.size()) {
      const auto [begin, end] = match(step, text, done);
      if (begin > done) add(step, waiting, text.substr(done, begin - done), here.told.invert);
      if (end > begin) add(step, waiting, text.substr(begin, end - begin), !here.told.invert);
      done = end;
    }
    run(step + 1, waiting.piece);
  }

  void add(std::size_t step, Waiting& waiting, std::string_view piece, bool is_match) {
    const SplitBehaviour behaviour = steps_[step].told.behaviour;
    if (behaviour == SplitBehaviour::removed && is_match) return;
    const bool was_match = waiting.is_match;
    const bool joins =
        !waiting.piece.empty() && ((behaviour == SplitBehaviour::contiguous && is_match == was_match) ||
                                   (behaviour == SplitBehaviour::merged_with_previous && is_match && !was_match) ||
                                   (behaviour == SplitBehaviour::merged_with_next && !is_match && was_match));
    if (joins) {
      waiting.piece = {waiting.piece.data(), waiting.piece.size() + piece.size()};
    } else {
      run(step + 1, waiting.piece);
      waiting.piece = piece;
    }
    waiting.is_match = is_match;
  }

  // The next match at or after `from`; {size, size}: none.
  std::pair<std::size_t, std::size_t> match(std::size_t step, std::string_view text, std::size_t from) {
    const pcre2_code* code = steps_[step].code.get();
    pcre2_match_data* data = data_[step].get();
    CHECK(data != nullptr, "no memory for a match");
    int found = pcre2_match(code, units_of(text), text.size(), from, PCRE2_NO_UTF_CHECK, data, context_.get());
    if (found == PCRE2_ERROR_JIT_STACKLIMIT || found == PCRE2_ERROR_MATCHLIMIT) {
      widen(text.size());
      found = pcre2_match(code, units_of(text), text.size(), from, PCRE2_NO_UTF_CHECK, data, context_.get());
    }
    if (found == PCRE2_ERROR_NOMATCH) return {text.size(), text.size()};
    if (found < 0) {
      throw Error("the pattern {} gave up on a text of {} bytes, {} bytes into it: {}", steps_[step].told.pattern,
                  text.size(), from, sentence_of(found));
    }
    const std::size_t* bounds = pcre2_get_ovector_pointer(data);
    return {bounds[0], bounds[1]};
  }

  // A long run of one kind of character may need more room and more tries than texts usually do.
  void widen(std::size_t bytes) {
    context_.reset(pcre2_match_context_create(nullptr));
    stack_.reset(pcre2_jit_stack_create(kStackBytesMin, kStackBytesMax, nullptr));
    CHECK(context_ && stack_, "no memory for a match");
    pcre2_jit_stack_assign(context_.get(), nullptr, stack_.get());
    const std::size_t tries = std::min<std::size_t>(100'000'000 + 16 * bytes, 0xffffffff);
    pcre2_set_match_limit(context_.get(), static_cast<std::uint32_t>(tries));
  }

  const std::vector<Step>& steps_;
  const Take& take_;
  std::vector<MatchData> data_;
  MatchContext context_;
  Stack stack_;
};

void PreTokenizer::split(std::string_view text, const Take& take) const { Splitting(steps_, take).run(0, text); }

}  // namespace troupe
