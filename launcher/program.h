// How a person calls this program: its path as seen from the working directory, for commands that can be pasted.
#pragma once

#include <string>

namespace troupe {

std::string program();
// `word` as a shell takes it: quoted if it holds anything but letters, digits and _ - . / = : , + @ %.
std::string shell_quoted(const std::string& word);
// "troupe train RUN/config.toml --out RUN --resume", to be pasted.
std::string resume_command(const std::string& folder);

}  // namespace troupe
