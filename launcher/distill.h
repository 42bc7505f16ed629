// Distillation: a teacher answers problems of the training split, what it got right is written down as JSONL, and a
// student learns from it as from any conversation (rejection sampling and supervised fine-tuning; no logits).
#pragma once

#include <string>

#include "actors/config.h"

namespace troupe {

// Writes `path`, a line for each answer that is kept: prompt, completion, task, level, and whose it is. One that is there
// is left as it is. Throws Error: the teacher got nothing right.
void write_traces(const Config& phase, const std::string& teacher, const std::string& path, bool quiet);

// The phase as supervised fine-tuning on these traces.
Config student_of(const Config& phase, const std::string& traces);

}  // namespace troupe
