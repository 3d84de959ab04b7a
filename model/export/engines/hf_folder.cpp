// model/export/engines/hf_folder.cpp -- shards by size, tensor by tensor.
#include "model/export/engines/hf_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "kernels/cast/cast.h"

namespace sluice {

namespace {

int64_t bytes_of(const EngineTensor& t, DType dtype) {
  return t.numel() * size_of(dtype_in_folder(t, dtype));
}

// [first, last) of the tensors of each file.
std::vector<std::pair<size_t, size_t>> cut_into_files(const std::vector<EngineTensor>& tensors,
                                                      const HfWeights& o) {
  std::vector<std::pair<size_t, size_t>> files;
  int64_t bytes = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const int64_t b = bytes_of(tensors[i], o.dtype);
    if (files.empty() || bytes + b > o.max_shard_bytes) files.push_back({i, i}), bytes = 0;
    bytes += b;
    files.back().second = i + 1;
  }
  return files;
}

// A piece at a time, so that the largest tensor needs no more memory than the smallest.
void write_tensor(const TensorSource& weights, const ParamStore& params, const EngineTensor& t,
                  DType dtype, SafetensorsWriter& out) {
  constexpr int64_t kPiece = int64_t(1) << 22;  // elements
  std::vector<float> values(static_cast<size_t>(std::min(kPiece, t.numel())));
  std::vector<uint16_t> rounded(dtype == DType::f32 ? 0 : values.size());
  for (int64_t at = 0; at < t.numel(); at += kPiece) {
    const int64_t n = std::min(kPiece, t.numel() - at);
    read_values(weights, params, t, at, n, values.data());
    const Tensor wide = make_tensor(values.data(), DType::f32, Device::cpu, {n});
    if (dtype == DType::f32) {
      out.write_slice(t.name, at, wide);
      continue;
    }
    const Tensor narrow = make_tensor(rounded.data(), DType::bf16, Device::cpu, {n});
    cast({}, {.from = wide, .to = narrow});
    out.write_slice(t.name, at, narrow);
  }
}

}  // namespace

DType dtype_in_folder(const EngineTensor& t, DType dtype) {
  auto ends_with = [&](std::string_view end) {
    return t.name.size() >= end.size() &&
           t.name.compare(t.name.size() - end.size(), end.size(), end) == 0;
  };
  const bool constant =
      ends_with(".A_log") || ends_with(".dt_bias") || ends_with(".e_score_correction_bias");
  return constant ? DType::f32 : dtype;
}

void write_hf_weights(const std::string& folder, const TensorSource& weights,
                      const ParamStore& params, const std::vector<EngineTensor>& tensors,
                      const HfWeights& o, const std::function<void(int64_t, int64_t)>& progress) {
  const auto files = cut_into_files(tensors, o);
  int64_t all = 0, done = 0;
  for (const EngineTensor& t : tensors) all += bytes_of(t, o.dtype);
  nlohmann::ordered_json where = nlohmann::ordered_json::object();
  for (size_t f = 0; f < files.size(); ++f) {
    const std::string file =
        files.size() == 1 ? "model.safetensors"
                          : fmt::format("model-{:05d}-of-{:05d}.safetensors", f + 1, files.size());
    std::vector<SafetensorsEntry> entries;
    for (size_t i = files[f].first; i < files[f].second; ++i) {
      const EngineTensor& t = tensors[i];
      entries.push_back({.name = t.name, .dtype = dtype_in_folder(t, o.dtype), .shape = t.shape});
      where[t.name] = file;
    }
    SafetensorsWriter out(folder + "/" + file, entries);
    for (size_t i = files[f].first; i < files[f].second; ++i) {
      write_tensor(weights, params, tensors[i], dtype_in_folder(tensors[i], o.dtype), out);
      progress(done += bytes_of(tensors[i], o.dtype), all);
    }
    out.finish();
  }
  if (files.size() == 1) return;
  replace_text(
      folder + "/model.safetensors.index.json",
      nlohmann::ordered_json{{"metadata", {{"total_size", all}}}, {"weight_map", where}}.dump(2) +
          "\n");
}

}  // namespace sluice
