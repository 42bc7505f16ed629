// safetensors files: u64 header length, JSON header, raw little-endian data. Read through a memory map, written at
// offsets that the header fixes beforehand, so that tensors may arrive in any order.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace troupe {

struct SafetensorsEntry {
  std::string dtype;  // "F32", "BF16", "I64", ...
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0, end = 0;  // bytes within the data part
  std::int64_t elements() const;
};

// One file or a folder's model.safetensors or its sharded model.safetensors.index.json: all tensors by name.
class SafetensorsReader {
 public:
  explicit SafetensorsReader(const std::string& path);  // file or folder; throws Error: what is wrong, where
  ~SafetensorsReader();
  SafetensorsReader(const SafetensorsReader&) = delete;
  const std::map<std::string, SafetensorsEntry>& entries() const;
  bool has(const std::string& name) const;
  // Copies `count` elements from element `begin`, widened to float32 (F32, BF16, F16, F64). Throws Error.
  void read_f32(const std::string& name, std::int64_t begin, std::int64_t count, float* out) const;
  std::vector<std::int64_t> read_i64(const std::string& name) const;  // I64, I32
  const std::byte* raw(const std::string& name) const;
  std::map<std::string, std::string> metadata() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

struct SafetensorsTensor {
  std::string name, dtype;
  std::vector<std::int64_t> shape;
};

// The header's bytes (with the length word, padded to 8) and where each tensor's data begins in the file.
struct SafetensorsPlan {
  std::string header;
  std::map<std::string, std::uint64_t> offset;  // from the start of the file
  std::uint64_t file_bytes = 0;
};
SafetensorsPlan plan_safetensors(const std::vector<SafetensorsTensor>& tensors,
                                 const std::map<std::string, std::string>& metadata);

// Whole small file at once (fixture candidates, exports of small models): float32 and int64 tensors.
class SafetensorsWriter {
 public:
  void add_f32(const std::string& name, std::vector<std::int64_t> shape, const float* values);
  void add_i64(const std::string& name, std::vector<std::int64_t> shape, const std::int64_t* values);
  void write(const std::string& path) const;  // aside, synced, renamed

 private:
  struct Item {
    std::string dtype;
    std::vector<std::int64_t> shape;
    std::string bytes;
  };
  std::map<std::string, Item> items_;
};

}  // namespace troupe
