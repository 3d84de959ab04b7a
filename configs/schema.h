// configs/schema.h -- configs as structs with one visit(): reading, printing and comparing walk it.
//
//   Config c = config::load<Config>("run.yaml", {"optim.lr=1e-3"});
//
// A struct lists its keys once:
//   template <class V> void visit(V& v) {
//     v("lr", lr, "a number above 0", [](double x) { return x > 0; });
//     v.section("schedule", schedule);          // a struct
//     v.optional_section("init", init);         // std::optional of a struct: null or its keys
//     v.list("train", train, "a list of sources");   // std::vector of structs
//     v.map("validation", validation, "names and files");  // std::map<string, string>
//     v.settings("set", set, "keys and values");    // std::vector<Setting>: of another config
//     v.choices("axes", axes, "keys with lists");   // one std::vector<Setting> a key
//   }
// and may have problems(): {key, text} pairs of what is wrong across keys.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "configs/flatten.h"
#include "configs/reader.h"

namespace sluice::config {

template <class Config>
Config read(Document document) {
  Config c;
  Reader reader(document, document.root, "");
  reader.read(c);
  reader.finish();
  return c;
}

// Every problem at once, one a line, `file:line:column: key: expected ..., got ...`. `overrides`
// are "a.b=value", value in YAML.
template <class Config>
Config load_string(const std::string& text, const std::string& label,
                   const std::vector<std::string>& overrides = {}) {
  return read<Config>(parse(text, label, overrides));
}
// The same with settings that stand in another file, whose places are then reported.
template <class Config>
Config load_string_with(const std::string& text, const std::string& label,
                        const std::vector<Setting>& settings) {
  return read<Config>(parse_with(text, label, settings));
}
template <class Config>
Config load(const std::string& file, const std::vector<std::string>& overrides = {}) {
  return load_string<Config>(read_file(file), file, overrides);
}

// YAML with every key, in the order of visit(); load_string() reads it back to an equal config.
template <class Config>
std::string print(const Config& config) {
  return to_yaml(flatten(config));
}

struct Difference {
  std::string key, a, b;
};
template <class Config>
std::vector<Difference> diff(const Config& a, const Config& b) {
  std::vector<Difference> out;
  for (const auto& [key, va, vb] : differences(flatten(a), flatten(b)))
    out.push_back({key, va, vb});
  return out;
}

}  // namespace sluice::config
