// `troupe export RUN DIR`: a Hugging Face directory, float32 or bfloat16.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "actors/checkpoint/manifest.h"
#include "actors/checkpoint/safetensors.h"
#include "kernels/base/error.h"
#include "kernels/tensor.h"
#include "launcher/tools.h"

namespace troupe {

namespace fs = std::filesystem;

namespace {

// One tensor after another, so that a model larger than memory could be exported too.
void write_model(const SafetensorsReader& reader, const std::string& path, bool bfloat16) {
  std::vector<SafetensorsTensor> tensors;
  const auto narrow = [&](const std::string& name) { return bfloat16 && !name.ends_with("e_score_correction_bias"); };
  for (const auto& [name, entry] : reader.entries())
    tensors.push_back({name, narrow(name) ? "BF16" : "F32", entry.shape});
  const SafetensorsPlan plan = plan_safetensors(tensors, {{"format", "pt"}});
  std::ofstream file(path, std::ios::binary);
  file.write(plan.header.data(), static_cast<std::streamsize>(plan.header.size()));
  for (const SafetensorsTensor& t : tensors) {
    const auto count = static_cast<std::size_t>(reader.entries().at(t.name).elements());
    std::vector<float> values(count);
    reader.read_f32(t.name, 0, static_cast<std::int64_t>(count), values.data());
    file.seekp(static_cast<std::streamoff>(plan.offset.at(t.name)));
    if (t.dtype == "F32") {
      file.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(count * 4));
      continue;
    }
    std::vector<std::uint16_t> rounded(count);
    for (std::size_t i = 0; i < count; ++i) rounded[i] = round_to_bf16(values[i]);
    file.write(reinterpret_cast<const char*>(rounded.data()), static_cast<std::streamsize>(count * 2));
  }
  if (!file.flush()) throw Error("{}: can't be written; is the disk full?", path);
}

}  // namespace

int export_model(const ExportOptions& options) {
  if (options.dtype != "float32" && options.dtype != "bfloat16")
    throw Error("export: --dtype is {}, must be float32 or bfloat16", options.dtype);
  const std::string from = resolve_checkpoint(options.run);
  if (fs::exists(options.out + "/model.safetensors"))
    throw Error("{}: a model is here already; choose another folder", options.out);
  std::error_code failed;
  fs::create_directories(options.out, failed);
  if (failed) throw Error("{}: can't make the folder: {}", options.out, failed.message());
  const SafetensorsReader reader(from);
  write_model(reader, options.out + "/model.safetensors.partial", options.dtype == "bfloat16");
  std::ifstream in(from + "/config.json");
  nlohmann::json config = nlohmann::json::parse(in);
  config["torch_dtype"] = options.dtype;
  std::ofstream(options.out + "/config.json") << config.dump(1) << "\n";
  fs::rename(options.out + "/model.safetensors.partial", options.out + "/model.safetensors");
  // A run's folder, two above its checkpoints, has the tokenizer that it was trained with.
  const fs::path run = fs::path(fs::absolute(from)).parent_path().parent_path();
  for (const char* name : {"tokenizer.json", "tokenizer_config.json"})
    if (fs::exists(run / "config.toml") && fs::exists(run / name))
      fs::copy_file(run / name, fs::path(options.out) / name);
  std::printf("wrote %s (config.json, model.safetensors, %s) from %s\n", options.out.c_str(), options.dtype.c_str(),
              from.c_str());
  return 0;
}

}  // namespace troupe
