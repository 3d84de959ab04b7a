// tests/trainer/report_test.cpp -- what `sluice report` reads, keeps and writes.
#include "trainer/report/report.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "configs/schema.h"
#include "tests/support/folder.h"
#include "tests/support/message.h"
#include "trainer/loop/config.h"
#include "trainer/metrics/jsonl.h"
#include "trainer/report/page.h"
#include "trainer/report/series.h"

namespace sluice {
namespace {

using namespace test;
using Json = nlohmann::ordered_json;

Json strings(const std::vector<std::string>& list) {
  return list;
}

class ReportTest : public ::testing::Test {
 protected:
  std::string make_run(const std::string& name, int64_t steps, double lr = 0.002) {
    const std::string dir = folder_ / name;
    std::filesystem::create_directories(dir);
    JsonLines lines(dir + "/metrics.jsonl", 0);
    lines.write("start", 0, {}, {{"cpu", "a </script> & <b>"}});
    for (int64_t i = 1; i <= steps; ++i)
      lines.write("train", i, {{"loss", 1.0 / double(i)}, {"lr", i == 2 ? NAN : lr}});
    lines.write("valid.kjv", steps, {{"loss", 1.23456789}});
    lines.write("done", steps, {});
    Config config;
    config.model.vocab_size = 64;
    config.optim.lr = lr;
    config.run.dir = dir;
    put_bytes(dir + "/config.yaml", config::print(config));
    return dir;
  }
  Folder folder_;
};

TEST_F(ReportTest, ARun) {
  const Json data = report_data({make_run("one", 3)});
  ASSERT_EQ(data.at("runs").size(), 1u);
  const Json& run = data["runs"][0];
  EXPECT_EQ(run.at("name"), "one");
  EXPECT_EQ(run.at("group"), "one");
  EXPECT_EQ(run["series"]["train"].dump(),
            R"({"steps":[1,2,3],"fields":{"loss":{"mean":[1.0,0.5,0.333333]},)"
            R"("lr":{"mean":[0.002,null,0.002],"not_finite":1}}})");
  EXPECT_EQ(run["last"]["valid.kjv"]["loss"], 1.23456789);  // all digits
  EXPECT_EQ(run["events"][0]["cpu"], "a </script> & <b>");
  EXPECT_EQ(run["events"][1]["event"], "done");
  EXPECT_EQ(run["config"]["model.vocab_size"], "64");  // one run: what is not the default
  EXPECT_FALSE(run["config"].contains("optim.lr"));
  EXPECT_GT(run["facts"]["parameters"], 0);
  EXPECT_EQ(run["problems"], strings({"train.lr: 1 of 3 values are not finite and leave gaps"}));
}

TEST_F(ReportTest, DamagedLinesAreLeftOutAndCounted) {
  const std::string run = make_run("one", 3), path = run + "/metrics.jsonl";
  std::string text = file_bytes(path);
  text.insert(text.find('\n') + 1, "{\"event\":\"train\",\"st\n[1]\n\n{\"event\":7,\"step\":1}\n");
  put_bytes(path, text + R"({"event":"train","step":4,"loss":)");
  put_bytes(run + "/config.yaml", "optim: {learning_rate: 1}\n");
  std::filesystem::create_directories(run + "/eval");
  put_bytes(run + "/eval/needle.json", R"({"kind":"needle","lengths":[128]})");
  put_bytes(run + "/eval/cut.json", R"({"kind":"needle","len)");
  const Json j = report_data({run})["runs"][0];
  EXPECT_EQ(j["series"]["train"]["steps"], Json({1, 2, 3}));
  EXPECT_EQ(j["evaluations"].dump(), R"({"needle":{"kind":"needle","lengths":[128]}})");
  ASSERT_EQ(j["problems"].size(), 4u);
  EXPECT_EQ(j["problems"][0],
            "metrics.jsonl: 5 of 11 lines are no records and were left out, the first is line 2");
  expect_contains(j["problems"][2], {"config.yaml: ", "optim.learning_rate"});
  EXPECT_EQ(j["problems"][3], "eval/cut.json: no evaluation (an object with \"kind\")");
}

TEST_F(ReportTest, ASweepBringsItsRuns) {
  make_run("sweep/a-1", 2);
  make_run("sweep/runs/b-1", 2, 0.5);
  const std::string sweep = folder_ / "sweep", other = make_run("other/a-1", 2);
  put_bytes(sweep + "/sweep.json",
            R"({"name":"s","rows":[{"variant":"a","runs":["a-1"],"values":{}},)"
            R"({"variant":"b","runs":["elsewhere/b-1","gone"]}]})");
  const Json data = report_data({sweep, sweep + "/a-1/", other});  // a-1 twice
  ASSERT_EQ(data["runs"].size(), 3u);
  EXPECT_EQ(data["runs"][0]["group"], "a");
  EXPECT_EQ(data["runs"][1]["group"], "b");
  EXPECT_EQ(data["runs"][1]["name"], "b-1");
  EXPECT_EQ(data["runs"][2]["name"], other);  // two runs have the name a-1
  EXPECT_EQ(data["runs"][2]["group"], other);
  EXPECT_EQ(data["runs"][0]["config"].dump(), R"({"optim.lr":"0.002"})");  // no run.dir
  EXPECT_EQ(data["runs"][1]["config"].dump(), R"({"optim.lr":"0.5"})");
  EXPECT_EQ(data["sweeps"][0]["content"]["name"], "s");
  EXPECT_EQ(data["sweeps"][0]["problems"],
            strings({"gone: no metrics.jsonl there, in " + sweep + " or in " + sweep + "/runs"}));
}

TEST_F(ReportTest, WhatIsNoRunIsAnError) {
  std::filesystem::create_directories(folder_ / "empty");
  const std::string empty = folder_ / "empty", gone = folder_ / "gone";
  expect_contains(error_of([&] { report_data({empty}); }),
                  {empty, "metrics.jsonl", "sweep.json", "has neither"});
  expect_contains(error_of([&] { report_data({gone}); }), {gone, "does not exist"});
  put_bytes(empty + "/sweep.json", "[]");
  expect_contains(error_of([&] { report_data({empty}); }), {empty + "/sweep.json", "\"rows\""});
}

// Every tag is closed, in order; the content of scripts and styles is no HTML.
void expect_well_formed(const std::string& page) {
  std::vector<std::string> open;
  for (size_t at = page.find('<'); at != std::string::npos; at = page.find('<', at)) {
    const size_t end = page.find_first_of(" >\n", at);
    const std::string tag = page.substr(at + 1, end - at - 1);
    at = page.find('>', at) + 1;
    if (tag[0] == '!' || tag == "meta" || tag == "input") continue;
    if (tag[0] != '/') {
      open.push_back(tag);
      if (tag == "script" || tag == "style") at = page.find("</" + tag + ">", at);
      ASSERT_NE(at, std::string::npos) << tag;
      continue;
    }
    ASSERT_FALSE(open.empty()) << tag;
    ASSERT_EQ(tag, "/" + open.back());
    open.pop_back();
  }
  EXPECT_TRUE(open.empty());
}

TEST_F(ReportTest, ThePageHoldsItsDataAndNeedsNothingElse) {
  const Json data = report_data({make_run("one", 3), make_run("</script><!-- @DATA@", 3)});
  const std::string page = report_html(data), tag = "id=\"data\">";
  expect_well_formed(page);
  const size_t begin = page.find(tag) + tag.size();
  const std::string json = page.substr(begin, page.find("</script>", begin) - begin);
  EXPECT_EQ(Json::parse(json), data);
  EXPECT_EQ(page.find("<!-- @DATA@"), std::string::npos);
  const std::string own = std::string(kReportPage) + kReportStyle + kReportScript;
  for (const char* outside : {"http", "//cdn", "@import", "url(", "src=", "import("})
    EXPECT_EQ(own.find(outside), std::string::npos) << outside;
  EXPECT_EQ(report_html(report_data({folder_ / "one"})),
            report_html(report_data({folder_ / "one"})));
}

TEST(ReportSeries, ThinningKeepsExtremesAndMeans) {
  Series series;
  const int64_t steps = 100000;
  const std::set<int64_t> high = {7, 4999, 65432, steps}, low = {1, 31337, 99999};
  double sum = 0;
  for (int64_t i = 1; i <= steps; ++i) {
    const double x = high.contains(i) ? 50 + double(i) / 1e5 : low.contains(i) ? -40 : 1;
    series.add(i, {{"x", x}, {"y", i % 2 == 0 ? NAN : 2.0}});
    sum += x;
  }
  const Json j = thin(series, 1000);
  const auto& x = j["fields"]["x"];
  const size_t rows = j["steps"].size();
  EXPECT_GT(rows, 800u);
  EXPECT_LT(rows, 1500u);
  EXPECT_EQ(j["steps"][rows - 1], steps);
  EXPECT_EQ(j["steps"][63], 64);  // early steps are alone
  std::set<double> most;
  int64_t begin = 0, lows = 0;
  double total = 0;
  for (size_t i = 0; i < rows; ++i) {
    const int64_t end = j["steps"][i];
    if (x["most"][i] > 1) most.insert(x["most"][i].get<double>());
    lows += x["least"][i] == -40;
    total += x["mean"][i].get<double>() * double(end - begin);
    const bool blank = end - begin == 1 && end % 2 == 0;
    EXPECT_EQ(j["fields"]["y"]["mean"][i], blank ? Json() : Json(2.0));
    begin = end;
  }
  EXPECT_EQ(most, (std::set<double>{50.0001, 50.05, 50.6543, 51}));  // six digits
  EXPECT_EQ(lows, 3);
  EXPECT_NEAR(total, sum, 1e-5 * sum);  // means are rounded to six digits
  EXPECT_EQ(j["fields"]["y"]["not_finite"], steps / 2);
}

TEST(ReportSeries, OutOfOrderAndMissingFields) {
  Series series;
  series.add(5, {{"a", 1}});
  series.add(3, {{"b", 2}});
  series.add(5, {{"a", 3}, {"b", INFINITY}});
  series.sort();
  EXPECT_EQ(thin(series, 10).dump(), R"({"steps":[3,5,5],"fields":{"a":{"mean":[null,1.0,3.0]},)"
                                     R"("b":{"mean":[2.0,null,null],"not_finite":1}}})");
  EXPECT_EQ(thin({}, 10).dump(), R"({"steps":[],"fields":{}})");
}

}  // namespace
}  // namespace sluice
