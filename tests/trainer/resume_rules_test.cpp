// tests/trainer/resume_rules_test.cpp -- every key of the config has a rule, and the rules are
// applied.
#include <gtest/gtest.h>

#include "configs/schema.h"
#include "tests/trainer/checkpoint_case.h"
#include "trainer/loop/fingerprint.h"
#include "trainer/loop/resume.h"

namespace sluice {
namespace {

// Every list has an item and every optional section its keys, so that all keys there are show up.
struct Fill {
  template <class T, class Ok>
  void operator()(const char*, T&, const std::string&, Ok) {}
  template <class Section>
  void section(const char*, Section& s) {
    s.visit(*this);
  }
  template <class Section>
  void optional_section(const char*, std::optional<Section>& s) {
    s.emplace().visit(*this);
  }
  template <class Struct>
  void list(const char*, std::vector<Struct>& items, const std::string&) {
    items.emplace_back().visit(*this);
  }
  void map(const char*, std::map<std::string, std::string>& items, const std::string&) {
    items["name"] = "file";
  }
};

TEST(ResumeRules, EveryKeyHasOne) {
  Config config;
  Fill fill;
  config.visit(fill);
  std::set<std::string> kinds;
  for (const config::Line& line : config::flatten(config)) {
    if (line.value.empty()) continue;  // a section's head
    const KeyRule* rule = rule_of(line.path);
    ASSERT_TRUE(rule) << line.path << ": say in trainer/loop/resume.cpp what a change of it means";
    EXPECT_NE(std::string(rule->why), "") << line.path;
  }
}

TEST(ResumeRules, TheLongestCounts) {
  EXPECT_EQ(rule_of("optim.kind")->kind, KeyKind::fatal);
  EXPECT_EQ(rule_of("optim.betas")->kind, KeyKind::changes);
  EXPECT_EQ(rule_of("data.train[1].weight")->kind, KeyKind::changes);
  EXPECT_EQ(rule_of("data.validation.x")->kind, KeyKind::free);
  EXPECT_FALSE(rule_of("models"));
  EXPECT_FALSE(rule_of("train.new_key"));
}

TEST(ResumeRules, TheReport) {
  const Context ctx;
  CheckpointMeta meta;
  Config config;
  meta.config_yaml = config::print(config);
  meta.fingerprint = fingerprint(ctx);
  ResumeReport r = check_resume(meta, config, fingerprint(ctx));
  EXPECT_TRUE(r.fatal.empty() && r.changed.empty() && r.bitwise.empty());

  config.run.threads = 3;
  config.optim.lr = 0.5;
  config.model.kda.head_dim = 17;
  meta.fingerprint["blas"] = "another";
  meta.fingerprint.erase("cpu");
  r = check_resume(meta, config, fingerprint(ctx));
  ASSERT_EQ(r.changed.size(), 2u);
  test::expect_in(r.changed[0], {"run.threads: was null, is 3 (no effect on results: "});
  test::expect_in(r.changed[1], {"optim.lr: was 0.002, is 0.5 (CHANGES RESULTS: "});
  ASSERT_EQ(r.fatal.size(), 1u);
  test::expect_in(r.fatal[0], {"model.kda.head_dim: was 48, is 17: another model"});
  ASSERT_EQ(r.bitwise.size(), 3u);
  test::expect_in(r.bitwise[0], {"optim.lr"});
  test::expect_in(r.bitwise[1], {"blas: was another, is "});
  test::expect_in(r.bitwise[2], {"cpu: was (unknown), is "});
}

TEST(ResumeRules, TheFingerprintNamesTheBuild) {
  const auto f = fingerprint({});
  // SHA-1 of the program, of a portable build "+" that of its kernels.
  const bool portable = f.at("flags").find("-march=portable") != std::string::npos;
  EXPECT_EQ(f.at("build").size(), portable ? 81u : 40u) << f.at("build");
  EXPECT_NE(f.at("flags").find("-march="), std::string::npos);
  EXPECT_EQ(f.at("libm").rfind("glibc 2.", 0), 0u);
  EXPECT_EQ(f, fingerprint({}));
}

}  // namespace
}  // namespace sluice
