// tests/configs/reader_test.cpp -- what is accepted, and the exact words for what is not.
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

#include "tests/configs/sample.h"

namespace sluice::test {
namespace {

using Overrides = std::vector<std::string>;

std::string problems_of(const std::string& yaml, const Overrides& set = {}) {
  try {
    config::load_string<Sample>(yaml, "c.yaml", set);
  } catch (const Error& e) {
    std::printf("%s\n", e.what());
    return e.what();
  }
  return "(none)";
}

Sample good(const std::string& yaml, const Overrides& set = {}) {
  return config::load_string<Sample>(yaml, "c.yaml", set);
}

TEST(ConfigReader, EmptyFilesAreDefaults) {
  for (const char* text : {"", "\n", "# only a comment\n", "---\n", "{}", "~"}) {
    const Sample c = good(text);
    EXPECT_EQ(c.name, "run") << text;
    EXPECT_EQ(c.optim.steps, 400) << text;
  }
}

TEST(ConfigReader, Numbers) {
  EXPECT_EQ(good("optim: {steps: 1_000_000}").optim.steps, 1000000);
  EXPECT_EQ(good("optim: {steps: +500}").optim.steps, 500);
  EXPECT_EQ(good("optim: {steps: 9223372036854775807}").optim.steps, INT64_MAX);
  EXPECT_EQ(good("optim: {lr: 1.0e-3}").optim.lr, 1e-3);
  EXPECT_EQ(good("optim: {lr: 1_000.5}").optim.lr, 1000.5);
  EXPECT_EQ(good("optim: {lr: 3}").optim.lr, 3.0);
  EXPECT_EQ(good("single: 0.3").single, 0.3f);
  EXPECT_EQ(good("small: -7").small, -7);
  const std::string steps = "c.yaml:1:16: optim.steps: expected a count above 0, got ";
  for (const char* bad : {"4k", "1.5", "1e3", "9223372036854775808", "_5", "5_", "1__0", "0x10",
                          "+-5", "true", "abc"})
    EXPECT_EQ(problems_of(cat("optim: {steps: ", bad, "}")), cat(steps, "\"", bad, "\""));
  EXPECT_EQ(problems_of("optim: {steps: null}"), steps + "null");
  EXPECT_EQ(problems_of("optim: {steps: \"\"}"), steps + "\"\"");
  EXPECT_EQ(problems_of("optim: {steps: [1, [2], {a: 3}]}"), steps + "[\"1\", a list, a section]");
  EXPECT_EQ(problems_of("optim: {steps: {a: 1}}"), steps + "a section");
  const std::string lr = "c.yaml:1:13: optim.lr: expected a number above 0, got ";
  for (const char* bad : {".nan", ".inf", "nan", "inf", "-infinity", "1e400", "1,5", "0", "-1e-3"})
    EXPECT_EQ(problems_of(cat("optim: {lr: \"", bad, "\"}")), cat(lr, "\"", bad, "\""));
  EXPECT_EQ(problems_of("small: 2147483648"),
            "c.yaml:1:8: small: expected a whole number, got \"2147483648\"");
  EXPECT_EQ(problems_of("single: 1e39"), "c.yaml:1:9: single: expected a number, got \"1e39\"");
}

TEST(ConfigReader, BoolsAreTrueOrFalseOnly) {
  EXPECT_TRUE(good("shuffle: true").shuffle);
  for (const char* bad : {"yes", "on", "True", "1"})
    EXPECT_EQ(problems_of(cat("shuffle: ", bad)),
              cat("c.yaml:1:10: shuffle: expected true or false, got \"", bad, "\""));
}

TEST(ConfigReader, StringsAreScalars) {
  EXPECT_EQ(good("name: 3:1").name, "3:1");
  EXPECT_EQ(good("name: 'null'").name, "null");
  EXPECT_EQ(problems_of("name: [a]"), "c.yaml:1:7: name: expected a name, got [\"a\"]");
  EXPECT_EQ(problems_of("name: {a: b}"), "c.yaml:1:7: name: expected a name, got a section");
  EXPECT_EQ(problems_of("name: null"), "c.yaml:1:7: name: expected a name, got null");
}

TEST(ConfigReader, NullAndTheDefaultAreTwoThings) {
  EXPECT_EQ(good("").bound, -5.0);
  EXPECT_EQ(good("bound: null").bound, std::nullopt);
  EXPECT_EQ(good("bound: ~").bound, std::nullopt);
  EXPECT_EQ(good("bound:").bound, std::nullopt);
  EXPECT_EQ(good("bound: -2.5").bound, -2.5);
  EXPECT_EQ(good("every: 7").every, 7);
  EXPECT_EQ(good("note: null").note, std::nullopt);
  EXPECT_EQ(good("note: \"null\"").note, "null");  // text of four letters
  EXPECT_EQ(good("note: \"\"").note, "");
  EXPECT_EQ(problems_of("every: \"null\""),
            "c.yaml:1:8: every: expected null or a count above 0, got \"null\"");
  EXPECT_FALSE(good("init: null").init.has_value());
  EXPECT_EQ(good("init: {from: runs/a}").init->from, "runs/a");
  EXPECT_EQ(problems_of("init: runs/a"),
            "c.yaml:1:7: init: expected null or a section of keys, got \"runs/a\"");
  EXPECT_EQ(problems_of("init: {form: x}"),
            "c.yaml:1:8: init.form: unknown key; did you mean \"from\"?");
}

TEST(ConfigReader, Lists) {
  EXPECT_EQ(good("layers: [kda, mla]").layers, (std::vector<std::string>{"kda", "mla"}));
  EXPECT_EQ(good("widths: [1_000, 2]").widths, (std::vector<int64_t>{1000, 2}));
  EXPECT_EQ(good("optim: {betas: [0.5, 0.6]}").optim.betas[1], 0.6);
  EXPECT_EQ(problems_of("optim: {betas: [0.9]}"),
            "c.yaml:1:16: optim.betas: expected two numbers from 0 to below 1, got [\"0.9\"]");
  EXPECT_EQ(problems_of("optim: {betas: 0.9}"),
            "c.yaml:1:16: optim.betas: expected two numbers from 0 to below 1, got \"0.9\"");
  EXPECT_EQ(problems_of("widths: [1, x]"),
            "c.yaml:1:9: widths: expected a list of counts, got [\"1\", \"x\"]");
}

// --- wrong files ------------------------------------------------------------------------------

TEST(ConfigReader, ListItemsCarryTheirIndex) {
  EXPECT_EQ(problems_of("data:\n  train:\n    - path: a\n    - path: b\n      weight: -1\n    - c\n"
                        "    - {path: d, schedule: {kind: linear}, wieght: 2}\n"),
            "c.yaml:5:15: data.train[1].weight: expected a number above 0, got \"-1\"\n"
            "c.yaml:6:7: data.train[2]: expected a list of {path, weight}, got \"c\"\n"
            "c.yaml:7:34: data.train[3].schedule.kind: expected wsd or cosine, got \"linear\"\n"
            "c.yaml:7:43: data.train[3].wieght: unknown key; did you mean \"weight\"?");
  EXPECT_EQ(problems_of("data: {train: a}"),
            "c.yaml:1:15: data.train: expected a list of {path, weight}, got \"a\"");
}

TEST(ConfigReader, EveryProblemOfAFileAtOnceInTheOrderOfLines) {
  EXPECT_EQ(problems_of("data:\n"
                        "  validation: {kjv: [a], kjv: b}\n"
                        "optim:\n"
                        "  wieght_decay: 0.1\n"
                        "  lr: 4k\n"
                        "  schedule: {kind: wsd, warmup: 3}\n"
                        "  lr: 1\n"
                        "shufle: true\n"),
            "c.yaml:2:21: data.validation.kjv: expected names, each with a file, got [\"a\"]\n"
            "c.yaml:2:26: data.validation.kjv: given twice (first at line 2)\n"
            "c.yaml:4:3: optim.wieght_decay: unknown key; did you mean \"weight_decay\"?\n"
            "c.yaml:5:7: optim.lr: expected a number above 0, got \"4k\"\n"
            "c.yaml:6:25: optim.schedule.warmup: unknown key\n"
            "c.yaml:7:3: optim.lr: given twice (first at line 5)\n"
            "c.yaml:8:1: shufle: unknown key; did you mean \"shuffle\"?");
}

TEST(ConfigReader, RepeatedKeysAtEveryLevel) {
  EXPECT_EQ(problems_of("name: a\nname: b\n"), "c.yaml:2:1: name: given twice (first at line 1)");
  EXPECT_EQ(problems_of("optim: {lr: 1}\ndata: {}\noptim: {lr: 1}\n"),
            "c.yaml:3:1: optim: given twice (first at line 1)");
  EXPECT_EQ(problems_of("optim:\n  schedule:\n    kind: wsd\n    kind: wsd\n    kind: wsd\n"),
            "c.yaml:4:5: optim.schedule.kind: given twice (first at line 3)\n"
            "c.yaml:5:5: optim.schedule.kind: given twice (first at line 3)");
}

TEST(ConfigReader, ProblemsAcrossKeys) {
  const std::string text = "expected at least schedule.warmup_steps (40), got ";
  EXPECT_EQ(problems_of("optim:\n  steps: 8\n"), "c.yaml:2:10: optim.steps: " + text + "\"8\"");
  EXPECT_EQ(problems_of("optim:\n  schedule: {warmup_steps: 500}\n"),  // no steps: the section
            "c.yaml:2:3: optim.steps: expected at least schedule.warmup_steps (500), got \"400\"");
  EXPECT_EQ(problems_of("optim: {schedule: {warmup_steps: 50}}", {"optim.steps=8"}),
            "--set optim.steps=8: optim.steps: expected at least schedule.warmup_steps (50), got "
            "\"8\"");
  EXPECT_EQ(problems_of("", {"optim.schedule.warmup_steps=500", "name=x"}),
            "--set optim.schedule.warmup_steps=500: optim.steps: expected at least "
            "schedule.warmup_steps (500), got \"400\"");
}

TEST(ConfigReader, WrongShapes) {
  EXPECT_EQ(problems_of("optim: 3"), "c.yaml:1:8: optim: expected a section of keys, got \"3\"");
  EXPECT_EQ(problems_of("name: a\noptim:\n"),
            "c.yaml:2:1: optim: expected a section of keys, got null");
  EXPECT_EQ(problems_of("- a\n"), "c.yaml:1:1: expected a mapping of sections");
  EXPECT_EQ(problems_of("name:a\n"), "c.yaml:1:1: expected a mapping of sections");
  EXPECT_EQ(problems_of("name: a\n---\nname: b\n"),
            "c.yaml:3:1: expected one YAML document, got more");
  EXPECT_EQ(problems_of("name: a\n---\n"), "(none)");  // an empty one is none
  // Found by a fuzzer: yaml-cpp's LoadAll() makes documents of this until memory ends.
  EXPECT_NE(problems_of(", name: a\n"), "(none)");
  EXPECT_NE(problems_of(","), "(none)");
}

TEST(ConfigReader, SyntaxErrorsInTheSameForm) {
  EXPECT_EQ(problems_of("name: a\noptim: {lr: 1\n"), "c.yaml:3:1: end of map flow not found");
  EXPECT_EQ(problems_of("name: a\n\toptim: 1\n"), "c.yaml:2:1: expected spaces, got a tab");
  EXPECT_EQ(problems_of("optim:\n  lr: 1\n \tsteps: 2\n"),
            "c.yaml:3:2: expected spaces, got a tab");
  const std::string never = ": a quote that is never closed";
  for (const char* open :
       {"name: \"abc", "name: \"abc\n", "name: \"abc\noptim:\n  lr: 1\n", "name: 'a\n\n"})
    EXPECT_EQ(problems_of(open), "c.yaml:1:7" + never);
  EXPECT_EQ(problems_of("note: \"one\n  two\"\nname: \"a\noptim: {}\n"), "c.yaml:3:7" + never);
  EXPECT_EQ(problems_of("optim: {}\ninit\n"), "c.yaml:2:1: end of map not found");
  EXPECT_EQ(problems_of("optim:\n  lr: 1\n bad: 2\n").substr(0, 9), "c.yaml:3:");
}

TEST(ConfigReader, FilesThatCannotBeRead) {
  auto message = [](const std::string& file) -> std::string {
    try {
      config::load<Sample>(file);
    } catch (const Error& e) {
      std::printf("%s\n", e.what());
      return e.what();
    }
    return "(none)";
  };
  EXPECT_EQ(message("/nowhere/c.yaml"), "/nowhere/c.yaml: No such file or directory");
  EXPECT_EQ(message(testing::TempDir()), testing::TempDir() + ": Is a directory");
  const std::string file = testing::TempDir() + "sluice_reader_test.yaml";
  std::ofstream(file) << "nmae: a\n";
  EXPECT_EQ(message(file), file + ":1:1: nmae: unknown key; did you mean \"name\"?");
  std::ofstream(file, std::ios::trunc).close();
  EXPECT_EQ(message(file), "(none)");  // empty: all defaults
  std::remove(file.c_str());
}

// --- overrides --------------------------------------------------------------------------------

TEST(ConfigOverrides, AreYamlAndWin) {
  const Sample c = good(
      "name: a\noptim: {lr: 1}\ndata: {train: [{path: x}, {path: y}]}\n",
      {"optim.lr=1e-4", "optim.schedule.kind=cosine", "data.train.1.path=z", "layers=[kda, mla]",
       "name=3:1", "note=", "data.validation.kjv=a=b", "optim.lr=2_0", "init.from=r"});
  EXPECT_EQ(c.name, "3:1");
  EXPECT_EQ(c.optim.lr, 20);  // the last one
  EXPECT_EQ(c.optim.schedule.kind, "cosine");
  EXPECT_EQ(c.data.train.at(0).path, "x");
  EXPECT_EQ(c.data.train.at(1).path, "z");
  EXPECT_EQ(c.layers.size(), 2u);
  EXPECT_EQ(c.note, std::nullopt);
  EXPECT_EQ(c.data.validation.at("kjv"), "a=b");
  EXPECT_EQ(c.init->from, "r");
}

TEST(ConfigOverrides, ReachIntoListsOfTheFile) {
  const Sample c =
      good("optim: {betas: [0.1, 0.2]}\nlayers: [a, b]", {"optim.betas.1=0.3", "layers.0=c"});
  EXPECT_EQ(c.optim.betas, (std::array<double, 2>{0.1, 0.3}));
  EXPECT_EQ(c.layers, (std::vector<std::string>{"c", "b"}));
}

TEST(ConfigOverrides, AnAnchorUsedTwiceChangesInBothPlaces) {
  const Sample c = good("data: {train: [&a {path: x}, *a]}", {"data.train.0.path=z"});
  EXPECT_EQ(c.data.train.at(0).path + c.data.train.at(1).path, "zz");
}

TEST(ConfigOverrides, AnEmptySectionOfTheFileIsMade) {
  EXPECT_EQ(good("optim:\n", {"optim.lr=3"}).optim.lr, 3);
}

TEST(ConfigOverrides, ProblemsNameTheOverride) {
  EXPECT_EQ(problems_of("", {"optim.lrr=3"}),
            "--set optim.lrr=3: optim.lrr: unknown key; did you mean \"lr\"?");
  EXPECT_EQ(problems_of("", {"optm.lr=3", "name=a"}),
            "--set optm.lr=3: optm: unknown key; did you mean \"optim\"?");
  EXPECT_EQ(problems_of("optim: {lr: 1}", {"optim.lr=x"}),
            "--set optim.lr=x: optim.lr: expected a number above 0, got \"x\"");
  EXPECT_EQ(problems_of("data: {train: [{path: a}]}", {"data.train.0.weight=-1"}),
            "--set data.train.0.weight=-1: data.train[0].weight: expected a number above 0, got "
            "\"-1\"");
  EXPECT_EQ(problems_of("", {"data.train=[{pth: a}]"}),
            "--set data.train=[{pth: a}]: data.train[0].pth: unknown key; did you mean \"path\"?");
  EXPECT_EQ(problems_of("", {"optim={lr: 1, lr: 2}"}),
            "--set optim={lr: 1, lr: 2}: optim.lr: given twice (first at line 1)");
  EXPECT_EQ(problems_of("", {"optim.betas.0=0.5"}),  // a list of the defaults has no items to set
            "--set optim.betas.0=0.5: optim.betas: expected two numbers from 0 to below 1, got a "
            "section");
  EXPECT_EQ(problems_of("", {"optim=3"}),
            "--set optim=3: optim: expected a section of keys, got \"3\"");
}

TEST(ConfigOverrides, ProblemsOfTheFileStayItsOwn) {
  EXPECT_EQ(problems_of("optim:\n  lr: x\n  stpes: 1\n", {"optim.steps=0"}),
            "--set optim.steps=0: optim.steps: expected a count above 0, got \"0\"\n"
            "c.yaml:2:7: optim.lr: expected a number above 0, got \"x\"\n"
            "c.yaml:3:3: optim.stpes: unknown key; did you mean \"steps\"?");
  EXPECT_EQ(problems_of("name: a\nname: b\n", {"name=c"}),
            "c.yaml:2:1: name: given twice (first at line 1)");
  EXPECT_EQ(problems_of("optim:\n  lr: x\n", {"optim.lr=1"}), "(none)");  // replaced unread
}

TEST(ConfigOverrides, Malformed) {
  for (const char* bad : {"foo", "=3", "a..b=1", "optim.=1", ".lr=1", ""})
    EXPECT_EQ(problems_of("", {bad}), cat("--set ", bad, ": expected section.key=value"));
  EXPECT_EQ(problems_of("", {"name={a"}), "--set name={a: end of map flow not found");
  EXPECT_EQ(problems_of("name: a", {"name.x=1"}),
            "--set name.x=1: name: no section, so it has no key \"x\"");
  for (const char* index : {"2", "-1", "1x", "x"})
    EXPECT_EQ(
        problems_of("data: {train: [{path: a}, {path: b}]}",
                    {cat("data.train.", index, ".path=c")}),
        cat("--set data.train.", index, ".path=c: expected an index below 2, got \"", index, "\""));
}

}  // namespace
}  // namespace sluice::test
