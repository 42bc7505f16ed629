// `troupe export RUN DIR`: a Hugging Face directory, float32 or bfloat16.
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "actors/checkpoint/manifest.h"
#include "actors/checkpoint/safetensors.h"
#include "kernels/base/error.h"
#include "kernels/tensor.h"
#include "launcher/tools.h"
#include "launcher/whole_file.h"

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

// A run's own folder would from then on be read as the exported model, whatever is trained in it later.
void refuse_taken(const std::string& out) {
  for (const char* name : {"/model.safetensors", "/model.safetensors.index.json"})
    if (fs::exists(out + name)) throw Error("{}: a model is here already; choose another folder", out);
  if (fs::exists(out + "/config.toml"))
    throw Error("{}: a run is here; choose another folder, {}/exported say", out, out);
}

// A run's folder, two above its checkpoints, has the tokenizer that it was trained with.
void bring_tokenizer(const std::string& checkpoint, const std::string& out) {
  const fs::path run = fs::path(fs::absolute(checkpoint)).parent_path().parent_path();
  if (!fs::exists(run / "config.toml")) return;
  for (const std::string name : {"tokenizer.json", "tokenizer_config.json"}) {
    if (!fs::exists(run / name)) continue;
    const std::string text = read_whole_file((run / name).string());
    if (text.empty()) throw Error("{}: it is empty or can't be read", (run / name).string());
    write_whole_file(out + "/" + name, text);
  }
}

}  // namespace

// The model comes last: where it stands, all of the folder does.
int export_model(const ExportOptions& options) {
  if (options.dtype != "float32" && options.dtype != "bfloat16")
    throw Error("export: --dtype is {}, must be float32 or bfloat16", options.dtype);
  const std::string from = resolve_checkpoint(options.run);
  refuse_taken(options.out);
  nlohmann::json config = read_json_file(from + "/config.json");
  config["torch_dtype"] = options.dtype;
  const SafetensorsReader reader(from);
  std::error_code failed;
  fs::create_directories(options.out, failed);
  if (failed) throw Error("{}: can't make the folder: {}", options.out, failed.message());
  const std::string model = options.out + "/model.safetensors", aside = model + ".partial";
  try {
    write_model(reader, aside, options.dtype == "bfloat16");
    write_whole_file(options.out + "/config.json", config.dump(1) + "\n");
    bring_tokenizer(from, options.out);
  } catch (const std::exception&) {
    fs::remove(aside, failed);
    throw;
  }
  fs::rename(aside, model, failed);
  if (failed) throw Error("{}: can't be written: {}; choose another folder", model, failed.message());
  std::printf("wrote %s (config.json, model.safetensors, %s) from %s\n", options.out.c_str(), options.dtype.c_str(),
              from.c_str());
  return 0;
}

}  // namespace troupe
