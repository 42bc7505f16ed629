// Who hears of a failed CHECK before the program ends: a simulated world that somebody plays with ends alone, by an
// exception.
#pragma once

#include <functional>
#include <string>

namespace troupe {

// Called with the sentence; may throw. Empty: nobody. Of the whole process.
void set_check_handler(std::function<void(const std::string& sentence)> handler);

}  // namespace troupe
