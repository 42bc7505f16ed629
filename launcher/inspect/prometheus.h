// The view as Prometheus reads it (text format 0.0.4). The law: a name once told keeps its meaning; what is not known is
// left out.
#pragma once

#include <string>

#include "launcher/inspect/view.h"

namespace troupe {

std::string prometheus_text(const View& view);
constexpr const char* kPrometheusType = "text/plain; version=0.0.4; charset=utf-8";

}  // namespace troupe
