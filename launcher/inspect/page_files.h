// The page's files (launcher/web), as they were when the program was built: it needs nothing beside it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace troupe {

struct PageFile {
  std::string_view name, bytes;
};
const std::vector<PageFile>& page_files();  // written by embed.cmake

// By the end of its name; empty: of no kind that a page needs.
std::string content_type(std::string_view name);

}  // namespace troupe
