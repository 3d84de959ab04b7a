// model/export/engines/hf_reader.cpp -- tensors of several files under one roof.
#include "model/export/engines/hf_reader.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

namespace sluice {

namespace {

using Json = nlohmann::json;

// JSON allows a key twice; one of the two would win, silently.
Json parse_once(const std::string& path) {
  std::vector<std::set<std::string>> open;  // keys of the objects around
  return Json::parse(read_text(path), [&](int, Json::parse_event_t event, Json& parsed) {
    if (event == Json::parse_event_t::object_start) open.emplace_back();
    if (event == Json::parse_event_t::object_end) open.pop_back();
    if (event == Json::parse_event_t::key)
      SLUICE_CHECK(open.back().insert(parsed.get<std::string>()).second, path, ": ", parsed.dump(),
                   " is given twice");
    return true;
  });
}

// Tensor -> file; empty: one file has them all.
std::map<std::string, std::string> read_index(const std::string& folder) {
  if (exists(folder + "/model.safetensors")) return {};
  const std::string index = folder + "/model.safetensors.index.json";
  SLUICE_CHECK(exists(index), folder,
               " has neither model.safetensors nor model.safetensors.index.json");
  std::map<std::string, std::string> places;
  try {
    places = parse_once(index).at("weight_map").get<std::map<std::string, std::string>>();
  } catch (const Json::exception& e) {
    SLUICE_CHECK(false, index, ": ", e.what());
  }
  SLUICE_CHECK(!places.empty(), index, ": weight_map names no tensor");
  for (const auto& [tensor, file] : places)
    SLUICE_CHECK(file.find('/') == std::string::npos && file.find('\0') == std::string::npos &&
                     file.ends_with(".safetensors"),
                 index, ": file name \"", file.substr(0, 80),
                 "\", expected one of this folder that ends in .safetensors");
  return places;
}

// Of dense layers, as transformers' save_pretrained has it.
std::string other_spelling(const std::string& name) {
  const size_t at = name.find(".mlp.");
  return at == std::string::npos ? name : std::string(name).replace(at, 5, ".block_sparse_moe.");
}

float from_bf16(uint16_t x) {
  const uint32_t bits = uint32_t(x) << 16;
  float f;
  std::memcpy(&f, &bits, sizeof f);
  return f;
}

}  // namespace

HfWeightFiles::HfWeightFiles(const std::string& folder) : folder_(folder) {
  const std::map<std::string, std::string> index = read_index(folder);
  std::set<std::string> names;
  for (const auto& place : index) names.insert(place.second);
  if (index.empty()) names.insert("model.safetensors");
  for (const std::string& f : names) files_.emplace_back(folder + "/" + f);
  for (size_t i = 0; i < files_.size(); ++i)
    for (const SafetensorsEntry& e : files_[i].entries()) {
      const bool fresh = tensors_.try_emplace(e.name, Place{i, &e}).second;
      SLUICE_CHECK(fresh, files_[i].path(), ": ", e.name, " is in another file, too");
      SLUICE_CHECK(index.empty() || index.contains(e.name), files_[i].path(), ": ", e.name,
                   " is not in the index");
    }
  for (const auto& [tensor, file] : index) {
    const auto it = tensors_.find(tensor);
    SLUICE_CHECK(it != tensors_.end(), folder, "/", file, ": has no ", tensor,
                 ", which the index says is there");
    SLUICE_CHECK(files_[it->second.file].path() == folder + "/" + file, folder, "/", file,
                 ": has no ", tensor, ", which is in ", files_[it->second.file].path());
  }
}

const HfWeightFiles::Place* HfWeightFiles::find(const std::string& name) const {
  for (const std::string& n : {name, other_spelling(name)})
    if (const auto it = tensors_.find(n); it != tensors_.end()) return &it->second;
  return nullptr;
}

void HfWeightFiles::check(const std::vector<EngineTensor>& expected) {
  std::string problems;
  std::set<const SafetensorsEntry*> used;
  for (const EngineTensor& t : expected) {
    const Place* p = find(t.name);
    if (!p) {
      problems += cat("\n  ", t.name, ": missing");
      continue;
    }
    used.insert(p->entry);
    if (p->entry->shape != t.shape)
      problems += cat(
          "\n  ", t.name, ": is ", to_string(*p->entry), ", expected ",
          to_string(SafetensorsEntry{.name = t.name, .dtype = p->entry->dtype, .shape = t.shape}));
    else if (p->entry->dtype != DType::f32 && p->entry->dtype != DType::bf16)
      problems += cat("\n  ", t.name, ": is ", to_string(*p->entry), ", expected f32 or bf16");
  }
  for (const auto& [name, p] : tensors_)
    if (!used.count(p.entry)) problems += cat("\n  ", name, ": the model has no such parameter");
  SLUICE_CHECK(problems.empty(), folder_, ":", problems);
}

void HfWeightFiles::read(const EngineTensor& t, float* out) const {
  const Place* p = find(t.name);
  SLUICE_CHECK(p, t.name, ": missing");
  const int64_t n = t.numel();
  const SafetensorsReader& file = files_[p->file];
  if (p->entry->dtype == DType::f32)
    return file.read_slice(p->entry->name, 0, make_tensor(out, DType::f32, Device::cpu, {n}));
  std::vector<uint16_t> narrow(static_cast<size_t>(n));
  file.read_slice(p->entry->name, 0, make_tensor(narrow.data(), DType::bf16, Device::cpu, {n}));
  std::transform(narrow.begin(), narrow.end(), out, from_bf16);
}

}  // namespace sluice
