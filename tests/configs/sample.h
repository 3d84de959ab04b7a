// tests/configs/sample.h -- a config with every kind of field that a visitor knows.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "configs/schema.h"

namespace sluice::test {

constexpr auto kAny = [](const auto&) { return true; };

struct Schedule {
  std::string kind = "wsd";
  int64_t warmup_steps = 40;

  template <class V>
  void visit(V& v) {
    v("kind", kind, "wsd or cosine",
      [](const std::string& s) { return s == "wsd" || s == "cosine"; });
    v("warmup_steps", warmup_steps, "a count of at least 0", [](int64_t x) { return x >= 0; });
  }
};

struct Optim {
  double lr = 2e-3;
  double weight_decay = 0.1;
  std::array<double, 2> betas{0.9, 0.95};
  int64_t steps = 400;
  Schedule schedule;

  template <class V>
  void visit(V& v) {
    v("lr", lr, "a number above 0", [](double x) { return x > 0; });
    v("weight_decay", weight_decay, "a number of at least 0", [](double x) { return x >= 0; });
    v("betas", betas, "two numbers from 0 to below 1",
      [](const auto& b) { return b[0] >= 0 && b[0] < 1 && b[1] >= 0 && b[1] < 1; });
    v("steps", steps, "a count above 0", [](int64_t x) { return x > 0; });
    v.section("schedule", schedule);
  }
  std::vector<std::pair<std::string, std::string>> problems() const {
    if (schedule.warmup_steps <= steps) return {};
    return {{"steps", cat("expected at least schedule.warmup_steps (", schedule.warmup_steps,
                          "), got \"", steps, "\"")}};
  }
};

struct Source {
  Schedule schedule;  // first, so that a list item may start with a section
  std::string path;
  double weight = 1;

  template <class V>
  void visit(V& v) {
    v.section("schedule", schedule);
    v("path", path, "a file", [](const std::string& s) { return !s.empty(); });
    v("weight", weight, "a number above 0", [](double x) { return x > 0; });
  }
};

struct Data {
  std::vector<Source> train;
  std::map<std::string, std::string> validation;

  template <class V>
  void visit(V& v) {
    v.list("train", train, "a list of {path, weight}");
    v.map("validation", validation, "names, each with a file");
  }
};

struct Init {
  std::string from;

  template <class V>
  void visit(V& v) {
    v("from", from, "a checkpoint", [](const std::string& s) { return !s.empty(); });
  }
};

struct Sample {
  std::string name = "run";
  bool shuffle = false;
  int small = 1;
  float single = 0.1f;
  std::optional<int64_t> every;
  std::optional<double> bound = -5.0;
  std::optional<std::string> note;
  std::vector<std::string> layers;
  std::vector<int64_t> widths;
  std::optional<Init> init;
  Optim optim;
  Data data;

  template <class V>
  void visit(V& v) {
    v("name", name, "a name", kAny);
    v("shuffle", shuffle, "true or false", kAny);
    v("small", small, "a whole number", kAny);
    v("single", single, "a number", kAny);
    v("every", every, "null or a count above 0", [](const auto& x) { return !x || *x > 0; });
    v("bound", bound, "null or a number below 0", [](const auto& x) { return !x || *x < 0; });
    v("note", note, "null or text", kAny);
    v("layers", layers, "a list of kinds", kAny);
    v("widths", widths, "a list of counts", kAny);
    v.optional_section("init", init);
    v.section("optim", optim);
    v.section("data", data);
  }
};

}  // namespace sluice::test
