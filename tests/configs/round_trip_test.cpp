// tests/configs/round_trip_test.cpp -- a printed config reads back; diff() names each difference.
#include <gtest/gtest.h>

#include <limits>

#include "tests/configs/sample.h"
#include "trainer/loop/config.h"

namespace sluice::test {
namespace {

Sample full() {
  Sample c;
  c.name = "a run: \"3:1\" # no comment\n\ttab";
  c.shuffle = true;
  c.single = 0.3f;
  c.every = 7;
  c.bound.reset();
  c.note = "null";
  c.layers = {"kda", "3:1", "", "true", "1e3", "-", "~"};
  c.widths = {1, -2, INT64_MAX, INT64_MIN};
  c.init = Init{"runs/a b"};
  c.optim.lr = 0.1 + 0.2;
  c.optim.betas = {1.0 / 3, 0.95};
  c.optim.schedule.kind = "cosine";
  c.data.train.resize(2);
  c.data.train[0].path = "a.h5";
  c.data.train[1].path =
      "Stra\xc3\x9f"
      "e [1], {2}: & *x";
  c.data.train[1].schedule.warmup_steps = 3;
  c.data.validation = {{"kjv", "a"}, {"3:1 x", "no"}, {"", "b"}};
  return c;
}

TEST(ConfigPrint, ReadsBackToTheSame) {
  for (const Sample& c : {Sample{}, full()}) {
    const std::string text = config::print(c);
    std::printf("%s\n", text.c_str());
    const Sample back = config::load_string<Sample>(text, "printed");
    for (const auto& d : config::diff(c, back))
      ADD_FAILURE() << d.key << ": " << d.a << " against " << d.b;
    EXPECT_EQ(config::print(back), text);
    // Not by way of the printer:
    EXPECT_EQ(back.name, c.name);
    EXPECT_EQ(back.note, c.note);
    EXPECT_EQ(back.bound, c.bound);
    EXPECT_EQ(back.every, c.every);
    EXPECT_EQ(back.layers, c.layers);
    EXPECT_EQ(back.widths, c.widths);
    EXPECT_EQ(back.single, c.single);
    EXPECT_EQ(back.optim.lr, c.optim.lr);
    EXPECT_EQ(back.optim.betas, c.optim.betas);
    EXPECT_EQ(back.data.validation, c.data.validation);
    EXPECT_EQ(back.init.has_value(), c.init.has_value());
    ASSERT_EQ(back.data.train.size(), c.data.train.size());
    for (size_t i = 0; i < c.data.train.size(); ++i) {
      EXPECT_EQ(back.data.train[i].path, c.data.train[i].path);
      EXPECT_EQ(back.data.train[i].schedule.warmup_steps, c.data.train[i].schedule.warmup_steps);
    }
  }
}

TEST(ConfigPrint, DoublesAreShortestAndExact) {
  Optim o;
  for (const double x : {0.1, 1e-5, 2e-3, 1.0, 1e16, 1e22, 0.1 + 0.2, 1.0 / 3, 5e-324,
                         std::numeric_limits<double>::min(), std::numeric_limits<double>::max()}) {
    o.lr = x;
    EXPECT_EQ(config::load_string<Optim>(config::print(o), "printed").lr, x) << config::scalar(x);
  }
  EXPECT_EQ(config::scalar(0.1), "0.1");
  EXPECT_EQ(config::scalar(0.1f), "0.1");
  EXPECT_EQ(config::scalar(0.1 + 0.2), "0.30000000000000004");
}

TEST(ConfigPrint, TextThatYamlWouldReadAsElseIsQuoted) {
  for (const char* plain : {"adamw", "runs/a-b_c.h5", "kda"})
    EXPECT_EQ(config::scalar(std::string(plain)), plain);
  for (const char* other :
       {"",     "3:1",  "null", "Null", "~",  "true", "NO", "1",  "1-sqrt", ".5", "- a",
        "a: b", "a #b", "*a",   "&a",   "!a", "[a]",  " a", "a ", "%a",     "@a"})
    EXPECT_EQ(config::scalar(std::string(other)), cat("\"", other, "\""));
}

TEST(ConfigPrint, InTheOrderOfVisitWithEveryDefault) {
  EXPECT_EQ(config::print(Optim{}),
            "lr: 0.002\n"
            "weight_decay: 0.1\n"
            "betas: [0.9, 0.95]\n"
            "steps: 400\n"
            "schedule:\n"
            "  kind: wsd\n"
            "  warmup_steps: 40\n");
  Data d;
  EXPECT_EQ(config::print(d), "train: []\nvalidation: {}\n");
  d.train.resize(1);
  d.train[0].path = "a";
  d.validation["x y"] = "b";
  EXPECT_EQ(config::print(d),
            "train:\n"
            "  - schedule:\n"
            "      kind: wsd\n"
            "      warmup_steps: 40\n"
            "    path: a\n"
            "    weight: 1\n"
            "validation:\n"
            "  \"x y\": b\n");
}

std::string text(const std::vector<config::Difference>& all) {
  std::string s;
  for (const auto& d : all) s += d.key + ": " + d.a + " -> " + d.b + "\n";
  return s;
}

TEST(ConfigDiff, NamesEveryKey) {
  Sample a, b;
  EXPECT_EQ(text(config::diff(a, b)), "");
  b.optim.lr = 1;
  b.name = "null";
  b.bound.reset();
  b.init = Init{"r"};
  b.data.train.resize(1);
  b.data.train[0].path = "p";
  b.data.validation["kjv"] = "v";
  EXPECT_EQ(text(config::diff(a, b)),
            "name: run -> \"null\"\n"
            "bound: -5 -> null\n"
            "optim.lr: 0.002 -> 1\n"
            "init.from: (absent) -> r\n"
            "data.train[0].schedule.kind: (absent) -> wsd\n"
            "data.train[0].schedule.warmup_steps: (absent) -> 40\n"
            "data.train[0].path: (absent) -> p\n"
            "data.train[0].weight: (absent) -> 1\n"
            "data.validation.kjv: (absent) -> v\n");
  EXPECT_EQ(config::diff(b, a).size(), 9u);
}

TEST(ConfigFiles, ThoseOfTheRepositoryAreValidAndPrintBack) {
  const Config c = config::load<Config>(SLUICE_SOURCE_DIR "/configs/quickstart.yaml");
  const std::string printed = config::print(c);
  EXPECT_EQ(config::print(config::load_string<Config>(printed, "printed")), printed);
  EXPECT_EQ(text(config::diff(c, config::load_string<Config>(printed, "printed"))), "");
  const Config defaults = config::load_string<Config>("", "empty");
  const std::string all = config::print(defaults);
  EXPECT_EQ(config::print(config::load_string<Config>(all, "printed")), all);
}

}  // namespace
}  // namespace sluice::test
