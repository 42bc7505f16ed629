#include "launcher/inspect/page_files.h"

#include <utility>

namespace troupe {

std::string content_type(std::string_view name) {
  const std::pair<const char*, const char*> kTypes[] = {{".html", "text/html; charset=utf-8"},
                                                        {".css", "text/css; charset=utf-8"},
                                                        {".js", "text/javascript; charset=utf-8"},
                                                        {".svg", "image/svg+xml"},
                                                        {".json", "application/json"},
                                                        {".png", "image/png"},
                                                        {".woff2", "font/woff2"}};
  for (const auto& [end, type] : kTypes)
    if (name.ends_with(end)) return type;
  return "";
}

}  // namespace troupe
