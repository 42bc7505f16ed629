// The one user of ncurses. It draws what a Screen says, whole, and ncurses sends the terminal what has changed.
#include "launcher/inspect/terminal.h"

#include <langinfo.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#define NCURSES_NOMACROS 1  // they are named like functions of everybody
#include <ncurses.h>

#include "kernels/base/error.h"
#include "launcher/inspect/screen.h"
#include "launcher/interrupts.h"
#include "launcher/loop.h"

namespace troupe {

namespace {

constexpr std::int64_t kLookUs = 1'000'000, kFirstLookUs = 250'000;  // the first looks have no rates without the second
constexpr int kEscapeMs = 25;                                        // a key's sequence comes in less
constexpr std::size_t kMessagesMax = 500;                            // of an actor
constexpr std::uint64_t kRecordsMax = 100'000;                       // of a journal, looked at for them

// The terminal while the full screen has it.
class Curses {
 public:
  Curses() : screen_(newterm(nullptr, stdout, stdin)) {
    if (screen_ == nullptr) throw Error("the terminal can't be used for a full screen; try troupe inspect RUN --once");
    set_escdelay(kEscapeMs);
    cbreak();
    noecho();
    nodelay(stdscr, TRUE);
    keypad(stdscr, TRUE);
    curs_set(0);
    define_keys();
    const char* const no_color = std::getenv("NO_COLOR");
    colours_ = has_colors() && (no_color == nullptr || *no_color == '\0');
    if (colours_) start_colours();
  }
  ~Curses() {
    endwin();
    delscreen(screen_);
  }
  Curses(const Curses&) = delete;
  Curses& operator=(const Curses&) = delete;

  static ScreenSize size() { return {getmaxy(stdscr), getmaxx(stdscr)}; }
  void put(const Lines& lines) const {
    werase(stdscr);
    for (std::size_t y = 0; y < lines.size(); ++y) {
      wmove(stdscr, static_cast<int>(y), 0);
      for (const Span& span : lines[y]) {
        wattrset(stdscr, static_cast<int>(attributes(span)));
        waddstr(stdscr, span.text.c_str());
      }
    }
    wattrset(stdscr, A_NORMAL);
    wrefresh(stdscr);
  }

 private:
  // As most terminals send them, also where TERM names another one.
  static void define_keys() {
    define_key("\033[A", KEY_UP);
    define_key("\033[B", KEY_DOWN);
    define_key("\033[H", KEY_HOME);
    define_key("\033[F", KEY_END);
    define_key("\033[5~", KEY_PPAGE);
    define_key("\033[6~", KEY_NPAGE);
  }
  static void start_colours() {
    start_color();
    const short ground = use_default_colors() == OK ? -1 : COLOR_BLACK;
    const auto pair = [&](Tone tone, short colour) { init_pair(static_cast<short>(tone), colour, ground); };
    pair(Tone::good, COLOR_GREEN);
    pair(Tone::note, COLOR_CYAN);
    pair(Tone::warn, COLOR_YELLOW);
    pair(Tone::bad, COLOR_RED);
    pair(Tone::other, COLOR_MAGENTA);
    pair(Tone::more, COLOR_BLUE);
  }
  // Without colours what is bad is bold, and so it is with them.
  chtype attributes(const Span& span) const {
    chtype attributes = span.filled ? A_REVERSE : A_NORMAL;
    if (span.tone == Tone::strong || span.tone == Tone::bad) attributes |= A_BOLD;
    if (span.tone == Tone::dim) attributes |= A_DIM;
    if (colours_ && span.tone >= Tone::good) attributes |= static_cast<chtype>(COLOR_PAIR(static_cast<int>(span.tone)));
    return attributes;
  }

  SCREEN* screen_;
  bool colours_ = false;
};

// Bytes of a letter come one by one; the filter that they are typed into is text.
std::optional<Key> key_of(int code) {
  switch (code) {
    case KEY_UP:
      return Key{Key::Name::up, ""};
    case KEY_DOWN:
      return Key{Key::Name::down, ""};
    case KEY_PPAGE:
      return Key{Key::Name::page_up, ""};
    case KEY_NPAGE:
      return Key{Key::Name::page_down, ""};
    case KEY_HOME:
      return Key{Key::Name::home, ""};
    case KEY_END:
      return Key{Key::Name::end, ""};
    case KEY_ENTER:
    case '\n':
    case '\r':
      return Key{Key::Name::enter, ""};
    case KEY_BACKSPACE:
    case 0x7f:
    case '\b':
      return Key{Key::Name::backspace, ""};
    case 0x1b:
      return Key{Key::Name::escape, ""};
    default:
      if (code < ' ' || code > 0xff) return std::nullopt;  // a key without a meaning here, or the size has changed
      return Key{Key::Name::letter, std::string(1, static_cast<char>(code))};
  }
}

// Until there is something to read, a signal or that time. False: the terminal is gone.
bool wait_for_key(std::int64_t until_us) {
  pollfd input{STDIN_FILENO, POLLIN, 0};
  const std::int64_t left_us = std::max<std::int64_t>(0, until_us - monotonic_us());
  if (poll(&input, 1, static_cast<int>((left_us + 999) / 1000)) <= 0) return true;
  int bytes = 0;
  return (input.revents & POLLIN) != 0 && ioctl(STDIN_FILENO, FIONREAD, &bytes) == 0 && bytes > 0;
}

// What was seen, and what the opened actor last said and heard.
class Viewer {
 public:
  explicit Viewer(InspectSource& source) : source_(source) { look(std::nullopt); }
  void look(const std::optional<Address>& opened) {
    view_ = source_.look();
    of_.reset();
    read(opened);
  }
  void read(const std::optional<Address>& opened) {
    if (opened && opened != of_)
      messages_ = last_messages(source_.journals(kRecordsMax), *opened, kMessagesMax, view_.now_us);
    of_ = opened;
  }
  void obey(const Control& control, Screen& screen) {
    try {
      screen.tell(source_.control(control), false);
    } catch (const Error& error) {
      screen.tell(error.what(), true);
    }
    look(screen.opened());
  }
  const View& view() const { return view_; }
  const std::vector<LastMessage>& messages() const { return messages_; }

 private:
  InspectSource& source_;
  View view_;
  std::optional<Address> of_;
  std::vector<LastMessage> messages_;
};

// All keys that are there. False: to the end.
bool take_keys(Screen& screen, Viewer& viewer) {
  for (int code = wgetch(stdscr); code != ERR; code = wgetch(stdscr)) {
    const auto key = key_of(code);
    if (!key) continue;
    const Screen::Wish wish = screen.press(*key, viewer.view());
    if (wish.quit) return false;
    if (wish.control) viewer.obey(*wish.control, screen);
    viewer.read(screen.opened());
  }
  return true;
}

}  // namespace

bool show_full_screen(InspectSource& source, ActorOrder order, const std::string& filter) {
  std::setlocale(LC_CTYPE, "");  // what letters are, and nothing else: numbers keep their points
  const bool utf8 = std::strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
  catch_interrupts();
  Viewer viewer(source);
  Screen screen(order, filter, utf8);
  const Curses curses;
  std::int64_t next_us = monotonic_us() + kFirstLookUs;
  while (interrupts() == 0) {
    curses.put(screen.draw(viewer.view(), viewer.messages(), Curses::size()));
    if (!wait_for_key(next_us) || !take_keys(screen, viewer)) break;
    if (monotonic_us() < next_us) continue;
    viewer.look(screen.opened());
    next_us = monotonic_us() + kLookUs;
  }
  return viewer.view().healthy;
}

}  // namespace troupe
