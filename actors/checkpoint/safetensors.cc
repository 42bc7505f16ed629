// safetensors, read and written. The law: a file is believed only after its whole header was checked (every tensor
// inside the data part, sized by its shape, none overlapping, no gap), so that a read can't leave the memory map.
#include "actors/checkpoint/safetensors.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "actors/mapped_file.h"
#include "kernels/base/check.h"
#include "kernels/base/error.h"

namespace troupe {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian");

using Json = nlohmann::json;
constexpr std::uint64_t kHeaderBytesMax = 100'000'000;  // as the format's own library has it

std::uint64_t element_bytes(const std::string& dtype) {
  if (dtype == "F64" || dtype == "I64" || dtype == "U64") return 8;
  if (dtype == "F32" || dtype == "I32" || dtype == "U32") return 4;
  if (dtype == "F16" || dtype == "BF16" || dtype == "I16" || dtype == "U16") return 2;
  if (dtype == "I8" || dtype == "U8" || dtype == "BOOL" || dtype == "F8_E4M3" || dtype == "F8_E5M2") return 1;
  return 0;
}

std::string quoted(const std::string& name) {
  const bool plain =
      std::all_of(name.begin(), name.end(), [](char c) { return c >= ' ' && c <= '~' && c != '"' && c != '\\'; });
  return plain ? '"' + name + '"' : Json(name).dump();
}

// The library's parser keeps the last of two equal keys; a header with two is refused instead.
Json parse_without_duplicates(const char* begin, const char* end, const std::string& path) {
  std::vector<std::set<std::string>> keys;
  std::string duplicate;
  const auto callback = [&](int, Json::parse_event_t event, Json& parsed) {
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(parsed.get<std::string>()).second &&
        duplicate.empty()) {
      duplicate = parsed.get<std::string>();
    }
    return true;
  };
  Json json;
  try {
    json = Json::parse(begin, end, callback);
  } catch (const Json::exception& problem) {
    throw Error("{}: the header is not json ({})", path, problem.what());
  }
  if (!duplicate.empty()) throw Error("{}: {} stands twice in the header", path, duplicate);
  if (!json.is_object()) throw Error("{}: the header is not a json object", path);
  return json;
}

std::uint64_t natural(const Json& value, const std::string& path, const std::string& name) {
  if (!value.is_number_unsigned()) throw Error("{}: {} has {} where a count must stand", path, name, value.dump());
  return value.get<std::uint64_t>();
}

SafetensorsEntry read_entry(const std::string& path, const std::string& name, const Json& value,
                            std::uint64_t data_bytes) {
  if (!value.is_object() || !value.contains("dtype") || !value.contains("shape") || !value.contains("data_offsets") ||
      !value["dtype"].is_string() || !value["shape"].is_array() || !value["data_offsets"].is_array() ||
      value["data_offsets"].size() != 2) {
    throw Error("{}: the header's entry of {} must have dtype, shape and two data_offsets", path, name);
  }
  SafetensorsEntry entry;
  entry.dtype = value["dtype"].get<std::string>();
  const std::uint64_t width = element_bytes(entry.dtype);
  if (width == 0) throw Error("{}: {} has the unknown dtype {}", path, name, entry.dtype);
  __extension__ unsigned __int128 bytes = width;
  bool is_empty = false;
  for (const Json& item : value["shape"]) {
    const std::uint64_t extent = natural(item, path, name);
    entry.shape.push_back(static_cast<std::int64_t>(extent));
    if (extent > (std::uint64_t{1} << 62) || bytes > (std::uint64_t{1} << 62))
      throw Error("{}: {} is larger than any memory", path, name);
    is_empty = is_empty || extent == 0;
    if (extent > 0) bytes *= extent;
  }
  if (is_empty) bytes = 0;
  entry.begin = natural(value["data_offsets"][0], path, name);
  entry.end = natural(value["data_offsets"][1], path, name);
  if (entry.begin > entry.end || entry.end > data_bytes) {
    throw Error("{}: {} lies at bytes {}..{}, outside the {} bytes of data (is the file cut short?)", path, name,
                entry.begin, entry.end, data_bytes);
  }
  if (entry.end - entry.begin != bytes) {
    throw Error("{}: {} has {} bytes, its shape and dtype need {}", path, name, entry.end - entry.begin,
                static_cast<std::uint64_t>(bytes));
  }
  return entry;
}

struct File {
  std::string path;
  std::unique_ptr<MappedFile> mapping;
  const std::byte* data = nullptr;
  std::map<std::string, SafetensorsEntry> entries;
  std::map<std::string, std::string> metadata;
};

void check_layout(const File& file, std::uint64_t data_bytes) {
  std::vector<const std::pair<const std::string, SafetensorsEntry>*> order;
  for (const auto& item : file.entries) order.push_back(&item);
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  std::uint64_t reached = 0;
  for (const auto* item : order) {
    if (item->second.begin < reached) throw Error("{}: {} overlaps another tensor", file.path, item->first);
    if (item->second.begin > reached) {
      throw Error("{}: bytes {}..{} of the data belong to no tensor", file.path, reached, item->second.begin);
    }
    reached = item->second.end;
  }
  if (reached != data_bytes) {
    throw Error("{}: bytes {}..{} of the data belong to no tensor", file.path, reached, data_bytes);
  }
}

File open_file(const std::string& path) {
  File file{
      .path = path, .mapping = std::make_unique<MappedFile>(path), .data = nullptr, .entries = {}, .metadata = {}};
  const MappedFile& bytes = *file.mapping;
  if (bytes.size() < 8) throw Error("{}: {} bytes are too few for a safetensors file", path, bytes.size());
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), 8);
  if (header_bytes > kHeaderBytesMax || header_bytes > bytes.size() - 8) {
    throw Error("{}: the header should have {} bytes, the file has {}: not a safetensors file, or cut short", path,
                header_bytes, bytes.size());
  }
  const char* text = reinterpret_cast<const char*>(bytes.data()) + 8;
  const Json header = parse_without_duplicates(text, text + header_bytes, path);
  const std::uint64_t data_bytes = bytes.size() - 8 - header_bytes;
  file.data = bytes.data() + 8 + header_bytes;
  for (const auto& [name, value] : header.items()) {
    if (name != "__metadata__") {
      file.entries.emplace(name, read_entry(path, name, value, data_bytes));
      continue;
    }
    if (!value.is_object()) throw Error("{}: __metadata__ must be an object of strings", path);
    for (const auto& [key, text_value] : value.items()) {
      if (!text_value.is_string()) throw Error("{}: __metadata__ must be an object of strings", path);
      file.metadata.emplace(key, text_value.get<std::string>());
    }
  }
  check_layout(file, data_bytes);
  return file;
}

float widen_half(std::uint16_t bits) {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000U) << 16;
  const std::uint32_t exponent = (bits >> 10) & 0x1FU, fraction = bits & 0x3FFU;
  if (exponent == 0) {  // zero and subnormals: fraction * 2^-24, exact
    const float magnitude = static_cast<float>(fraction) * 0x1.0p-24F;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(magnitude) | sign);
  }
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000U | (fraction << 13));
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (fraction << 13));
}

template <typename Stored, typename Widen>
void widen(const std::byte* from, std::int64_t count, float* out, Widen widen_one) {
  for (std::int64_t i = 0; i < count; ++i) {
    Stored value;
    std::memcpy(&value, from + static_cast<std::size_t>(i) * sizeof(Stored), sizeof(Stored));
    out[i] = widen_one(value);
  }
}

void write_fully(int file, const std::string& bytes, const std::string& path) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t count = ::write(file, bytes.data() + done, bytes.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw Error("can't write {}: {}", path, std::strerror(errno));
    done += static_cast<std::size_t>(count);
  }
}

}  // namespace

std::int64_t SafetensorsEntry::elements() const {
  std::int64_t count = 1;
  for (const std::int64_t extent : shape) count *= extent;
  return count;
}

struct SafetensorsReader::Impl {
  std::string path;
  std::vector<File> files;
  std::map<std::string, SafetensorsEntry> entries;
  std::map<std::string, std::size_t> file_of;

  void add(File file) {
    for (const auto& [name, entry] : file.entries) {
      entries.emplace(name, entry);
      file_of.emplace(name, files.size());
    }
    files.push_back(std::move(file));
  }

  const SafetensorsEntry& at(const std::string& name) const {
    const auto found = entries.find(name);
    if (found == entries.end()) throw Error("{} has no tensor {}", path, name);
    return found->second;
  }

  void open_sharded(const std::filesystem::path& index_path) {
    const MappedFile text(index_path.string());
    const char* begin = reinterpret_cast<const char*>(text.data());
    const Json index = parse_without_duplicates(begin, begin + text.size(), index_path.string());
    if (!index.contains("weight_map") || !index["weight_map"].is_object()) {
      throw Error("{} has no weight_map", index_path.string());
    }
    std::map<std::string, std::vector<std::string>> names_of;  // by shard
    for (const auto& [name, shard] : index["weight_map"].items()) {
      const std::string file = shard.is_string() ? shard.get<std::string>() : "";
      if (file.empty() || file != std::filesystem::path(file).filename()) {
        throw Error("{}: weight_map of {} must name a file of the same folder", index_path.string(), name);
      }
      names_of[file].push_back(name);
    }
    std::string missing;
    for (const auto& [file, names] : names_of) {
      if (!std::filesystem::exists(index_path.parent_path() / file)) missing += (missing.empty() ? "" : ", ") + file;
    }
    if (!missing.empty()) throw Error("{} names files that are missing: {}", index_path.string(), missing);
    for (const auto& [shard, names] : names_of) {
      File file = open_file((index_path.parent_path() / shard).string());
      std::map<std::string, SafetensorsEntry> mapped;  // what the index doesn't give to this shard is not read from it
      for (const std::string& name : names) {
        const auto found = file.entries.find(name);
        if (found == file.entries.end()) throw Error("{} should hold {}, and does not", file.path, name);
        mapped.insert(*found);
      }
      file.entries = std::move(mapped);
      add(std::move(file));
    }
  }
};

SafetensorsReader::SafetensorsReader(const std::string& path) : impl_(std::make_unique<Impl>()) {
  namespace fs = std::filesystem;
  impl_->path = path;
  const fs::path folder = path;
  if (!fs::is_directory(folder)) {
    if (!fs::exists(folder)) throw Error("{} does not exist", path);
    if (path.ends_with(".index.json")) {
      impl_->open_sharded(folder);
    } else {
      impl_->add(open_file(path));
    }
  } else if (fs::exists(folder / "model.safetensors")) {
    impl_->add(open_file((folder / "model.safetensors").string()));
  } else if (fs::exists(folder / "model.safetensors.index.json")) {
    impl_->open_sharded(folder / "model.safetensors.index.json");
  } else {
    throw Error("{} has neither model.safetensors nor model.safetensors.index.json", path);
  }
}

SafetensorsReader::~SafetensorsReader() = default;

const std::map<std::string, SafetensorsEntry>& SafetensorsReader::entries() const { return impl_->entries; }
bool SafetensorsReader::has(const std::string& name) const { return impl_->entries.contains(name); }

const std::byte* SafetensorsReader::raw(const std::string& name) const {
  const SafetensorsEntry& entry = impl_->at(name);
  return impl_->files[impl_->file_of.at(name)].data + entry.begin;
}

std::map<std::string, std::string> SafetensorsReader::metadata() const {
  std::map<std::string, std::string> all;
  for (const File& file : impl_->files) all.insert(file.metadata.begin(), file.metadata.end());
  return all;
}

void SafetensorsReader::read_f32(const std::string& name, std::int64_t begin, std::int64_t count, float* out) const {
  const SafetensorsEntry& entry = impl_->at(name);
  if (begin < 0 || count < 0 || begin > entry.elements() || count > entry.elements() - begin) {
    throw Error("{}: elements {}..{} of {} were asked for, it has {}", impl_->path, begin, begin + count, name,
                entry.elements());
  }
  const std::byte* from = raw(name) + static_cast<std::uint64_t>(begin) * element_bytes(entry.dtype);
  if (entry.dtype == "F32") {
    if (count > 0) std::memcpy(out, from, static_cast<std::size_t>(count) * sizeof(float));
  } else if (entry.dtype == "BF16") {
    widen<std::uint16_t>(from, count, out,
                         [](std::uint16_t b) { return std::bit_cast<float>(std::uint32_t{b} << 16); });
  } else if (entry.dtype == "F16") {
    widen<std::uint16_t>(from, count, out, widen_half);
  } else if (entry.dtype == "F64") {
    widen<double>(from, count, out, [](double value) { return static_cast<float>(value); });
  } else {
    throw Error("{}: {} is {}, which can't be read as float32 (F32, BF16, F16 and F64 can)", impl_->path, name,
                entry.dtype);
  }
}

std::vector<std::int64_t> SafetensorsReader::read_i64(const std::string& name) const {
  const SafetensorsEntry& entry = impl_->at(name);
  std::vector<std::int64_t> values(static_cast<std::size_t>(entry.elements()));
  if (entry.dtype == "I64") {
    if (!values.empty()) std::memcpy(values.data(), raw(name), values.size() * sizeof(std::int64_t));
  } else if (entry.dtype == "I32") {
    for (std::size_t i = 0; i < values.size(); ++i) {
      std::int32_t value = 0;
      std::memcpy(&value, raw(name) + i * sizeof(value), sizeof(value));
      values[i] = value;
    }
  } else {
    throw Error("{}: {} is {}, where I64 or I32 was expected", impl_->path, name, entry.dtype);
  }
  return values;
}

SafetensorsPlan plan_safetensors(const std::vector<SafetensorsTensor>& tensors,
                                 const std::map<std::string, std::string>& metadata) {
  std::vector<SafetensorsTensor> order = tensors;  // wide elements first: every tensor lies aligned
  const auto wider = [](const auto& a, const auto& b) { return element_bytes(a.dtype) > element_bytes(b.dtype); };
  if (!std::is_sorted(order.begin(), order.end(), wider)) std::stable_sort(order.begin(), order.end(), wider);
  std::map<std::string, std::string> header;  // by name
  if (!metadata.empty()) header["__metadata__"] = Json(metadata).dump();
  SafetensorsPlan plan;
  std::uint64_t reached = 0;
  for (const SafetensorsTensor& tensor : order) {
    CHECK(element_bytes(tensor.dtype) > 0, "{} has the unknown dtype {}", tensor.name, tensor.dtype);
    const SafetensorsEntry sized{.dtype = tensor.dtype, .shape = tensor.shape};
    const std::uint64_t end = reached + static_cast<std::uint64_t>(sized.elements()) * element_bytes(tensor.dtype);
    CHECK(plan.offset.emplace(tensor.name, reached).second && tensor.name != "__metadata__", "{} is planned twice",
          tensor.name);
    header[tensor.name] = fmt::format(R"({{"data_offsets":[{},{}],"dtype":"{}","shape":[{}]}})", reached, end,
                                      tensor.dtype, fmt::join(tensor.shape, ","));
    reached = end;
  }
  std::string text;
  for (const auto& [name, entry] : header) (((text += text.empty() ? '{' : ',') += quoted(name)) += ':') += entry;
  text += text.empty() ? "{}" : "}";
  text.append((8 - text.size() % 8) % 8, ' ');
  const std::uint64_t length = text.size();
  plan.header.assign(reinterpret_cast<const char*>(&length), 8);
  plan.header += text;
  for (auto& [name, offset] : plan.offset) offset += plan.header.size();
  plan.file_bytes = plan.header.size() + reached;
  return plan;
}

void SafetensorsWriter::add_f32(const std::string& name, std::vector<std::int64_t> shape, const float* values) {
  const SafetensorsEntry sized{.dtype = "F32", .shape = shape};
  std::string bytes(reinterpret_cast<const char*>(values), static_cast<std::size_t>(sized.elements()) * sizeof(float));
  items_[name] = {"F32", std::move(shape), std::move(bytes)};
}

void SafetensorsWriter::add_i64(const std::string& name, std::vector<std::int64_t> shape, const std::int64_t* values) {
  const SafetensorsEntry sized{.dtype = "I64", .shape = shape};
  std::string bytes(reinterpret_cast<const char*>(values),
                    static_cast<std::size_t>(sized.elements()) * sizeof(std::int64_t));
  items_[name] = {"I64", std::move(shape), std::move(bytes)};
}

void SafetensorsWriter::write(const std::string& path) const {
  std::vector<SafetensorsTensor> tensors;
  for (const auto& [name, item] : items_) tensors.push_back({name, item.dtype, item.shape});
  const SafetensorsPlan plan = plan_safetensors(tensors, {});
  std::vector<std::pair<std::uint64_t, const std::string*>> order;
  for (const auto& [name, item] : items_) order.emplace_back(plan.offset.at(name), &item.bytes);
  std::sort(order.begin(), order.end());
  const std::string aside = path + ".partial";
  const int file = ::open(aside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) throw Error("can't write {}: {}", aside, std::strerror(errno));
  try {
    write_fully(file, plan.header, aside);
    for (const auto& [offset, bytes] : order) write_fully(file, *bytes, aside);
    if (::fsync(file) != 0) throw Error("can't sync {}: {}", aside, std::strerror(errno));
  } catch (const Error&) {
    ::close(file);
    ::unlink(aside.c_str());
    throw;
  }
  ::close(file);
  if (::rename(aside.c_str(), path.c_str()) != 0)
    throw Error("can't rename {} to {}: {}", aside, path, std::strerror(errno));
}

}  // namespace troupe
