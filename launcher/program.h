// How a person calls this program: its path as seen from the working directory, for commands that can be pasted.
#pragma once

#include <string>

namespace troupe {

std::string program();

}  // namespace troupe
