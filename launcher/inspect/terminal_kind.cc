// Which terminal this is. Apart from terminal.cc: what <term.h> defines are ordinary words.
#include <unistd.h>

#include <ncurses.h>
#include <term.h>

namespace troupe {

bool has_full_screen() {
  if (isatty(STDIN_FILENO) == 0 || isatty(STDOUT_FILENO) == 0) return false;
  int why = 0;
  if (setupterm(nullptr, STDOUT_FILENO, &why) != OK) return false;
  const char* const cursor = tigetstr("cup");
  const bool places_cursor = cursor != nullptr && cursor != reinterpret_cast<const char*>(-1);
  del_curterm(cur_term);
  return places_cursor;
}

}  // namespace troupe
