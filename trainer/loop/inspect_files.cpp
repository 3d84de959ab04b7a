// trainer/loop/inspect_files.cpp -- headers, then every value once, a block at a time.
#include "trainer/loop/inspect_files.h"

#include <sys/stat.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "kernels/tensor/buffer.h"
#include "model/export/engines/hf_reader.h"
#include "model/export/gguf.h"
#include "model/export/safetensors.h"
#include "trainer/loop/value_stats.h"

namespace sluice {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kBlock = 1 << 20;  // elements read at a time; whole blocks of any type

int64_t size_or_zero(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode) ? int64_t(status.st_size)
                                                                       : 0;
}

class Report {
 public:
  Report(const std::string& kind, int64_t bytes, const InspectOptions& options)
      : bytes_(bytes), options_(options) {
    json_ = {
        {"kind", kind},  {"state", "valid"},        {"problems", Json::array()}, {"bytes", bytes},
        {"elements", 0}, {"facts", Json::object()}, {"tensors", Json::array()}};
  }
  void problem(const std::string& text) {
    json_["state"] = "broken";
    json_["problems"].push_back(text);
  }
  template <class V>
  void fact(const std::string& key, const V& value) {
    json_["facts"][key] = value;
  }
  void tensor(const std::string& name, const std::string& type, const std::string& file,
              int64_t elements, const ValueStats* values) {
    Json t = {{"name", name}, {"type", type}, {"file", file}};
    if (values)
      add_values(*values, t);
    else
      t.update({{"nonfinite", nullptr}, {"norm", nullptr}, {"min", nullptr}, {"max", nullptr}});
    if (values && values->nonfinite > 0) problem(cat(name, ": ", values->nonfinite, " not finite"));
    json_["tensors"].push_back(std::move(t));
    elements_ += elements;
    json_["elements"] = elements_;
  }
  void read(int64_t bytes) { options_.progress(done_ = std::min(done_ + bytes, bytes_), bytes_); }

  Json json_;

 private:
  int64_t bytes_, done_ = 0, elements_ = 0;
  const InspectOptions& options_;
};

void add_gguf(const std::string& path, Report& report) {
  const GgufReader file(path);
  for (const auto& [key, value] : file.keys()) report.fact(key, to_string(value));
  std::vector<float> block(static_cast<size_t>(kBlock));
  for (const GgufTensor& t : file.tensors()) {
    ValueStats s;
    const bool readable = can_encode(t.type);
    for (int64_t at = 0; readable && at < t.numel(); at += kBlock) {
      const int64_t n = std::min(kBlock, t.numel() - at);
      file.read(t, at, n, block.data());
      s.add(make_tensor(block.data(), DType::f32, Device::cpu, {n}));
    }
    report.read(t.bytes());
    report.tensor(t.name, to_string(t), "", t.numel(), readable ? &s : nullptr);
  }
}

void add_safetensors(const std::string& path, const std::string& shown, Report& report) {
  const SafetensorsReader file(path);
  if (shown.empty())
    for (const auto& [key, value] : file.metadata()) report.fact(key, value);
  const Buffer block(DType::f64, {kBlock});
  for (const SafetensorsEntry& e : file.entries()) {
    ValueStats s;
    for (int64_t at = 0; at < e.numel(); at += kBlock) {
      const Tensor t =
          make_tensor(block.view().data, e.dtype, Device::cpu, {std::min(kBlock, e.numel() - at)});
      file.read_slice(e.name, at, t);
      s.add(t);
      report.read(t.bytes());
    }
    report.tensor(e.name, to_string(e), shown, e.numel(), &s);
  }
}

// Sections of a config one below the other: "linear_attn_config.num_heads".
void add_facts(const std::string& prefix, const Json& json, Report& report) {
  for (const auto& item : json.items())
    if (item.value().is_object())
      add_facts(prefix + item.key() + ".", item.value(), report);
    else
      report.fact(prefix + item.key(), item.value());
}

std::vector<std::string> weights_in(const std::string& folder) {
  std::vector<std::string> files;
  for (const std::string& name : names_in(folder))
    if (name.ends_with(".safetensors")) files.push_back(name);
  return files;
}

void add_folder(const std::string& folder, Report& report) {
  const auto attempt = [&](auto&& read) {
    try {
      read();
    } catch (const std::exception& e) {  // of JSON too
      report.problem(e.what());
    }
  };
  for (const char* file : {"config.json", "generation_config.json"})
    if (exists(folder + "/" + file))
      attempt([&] { add_facts("", Json::parse(read_text(folder + "/" + file)), report); });
  attempt([&] { HfWeightFiles files(folder); });  // the index and the files say the same
  for (const std::string& name : weights_in(folder))
    attempt([&] { add_safetensors(folder + "/" + name, name, report); });
}

}  // namespace

bool is_of_engines(const std::string& path) {
  return path.ends_with(".gguf") || path.ends_with(".safetensors") || exists(path + "/config.json");
}

Json inspect_files(const std::string& path, const InspectOptions& options) {
  const bool gguf = path.ends_with(".gguf"), one = gguf || path.ends_with(".safetensors");
  int64_t bytes = 0;
  for (const std::string& name : one ? std::vector<std::string>{""} : weights_in(path))
    bytes += size_or_zero(name.empty() ? path : path + "/" + name);
  Report report(gguf ? "GGUF" : one ? "safetensors" : "Hugging Face folder", bytes, options);
  try {
    if (gguf)
      add_gguf(path, report);
    else if (one)
      add_safetensors(path, "", report);
    else
      add_folder(path, report);
  } catch (const Error& e) {
    report.problem(e.what());
  }
  options.progress(bytes, bytes);
  return {{"path", path}, {"files", report.json_}};
}

}  // namespace sluice
