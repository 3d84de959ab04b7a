// launch/generate_command.cpp -- texts from a checkpoint: one as it comes, many in order.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "data/text/documents.h"
#include "launch/commands.h"
#include "launch/text_codec.h"
#include "model/generate/scheduler.h"
#include "model/generate/text_stream.h"
#include "trainer/loop/device.h"
#include "trainer/loop/model_file.h"

namespace sluice::launch {

namespace {

struct Text {
  explicit Text(std::vector<std::string> stop) : stream(std::move(stop)) {}
  TextStream stream;
  std::string shown;
};

std::vector<std::string> read_lines(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  SLUICE_CHECK(in, path, ": ", std::strerror(errno));
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::vector<std::string> prompts_of(const Generate& c) {
  std::vector<std::string> prompts = c.prompts;
  if (!c.prompts_file.empty()) {
    const bool json = c.prompts_file.ends_with(".jsonl");
    for (std::string& p :
         json ? read_documents(find_inputs({c.prompts_file}, TextFormat::json_lines),
                               {.field = c.field})
                    .kept
              : read_lines(c.prompts_file))
      prompts.push_back(std::move(p));
    SLUICE_CHECK(!prompts.empty(), c.prompts_file, " has no prompts");
  }
  if (prompts.empty()) prompts.emplace_back();
  return prompts;
}

std::vector<Request> requests_of(const Generate& c, const TextCodec& codec,
                                 const std::vector<std::string>& prompts) {
  std::vector<Request> requests;
  for (const std::string& prompt : prompts) {
    requests.push_back({.prompt = codec.encode(prompt),
                        .max_new_tokens = c.max_new_tokens,
                        .stop_tokens = codec.stop_tokens,
                        .temperature = c.temperature,
                        .top_k = c.top_k,
                        .top_p = c.top_p,
                        .key = sampling_key(c.seed, int64_t(requests.size()))});
  }
  return requests;
}

void show(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

const char* reason(Finish finish) {
  switch (finish) {
    case Finish::max_new_tokens: return "max_new_tokens";
    case Finish::stop_token: return "end_of_text";
    case Finish::stopped: return "stop_string";
  }
  return "";
}

std::string json_line(const std::string& prompt, const std::string& text, const Completion& done) {
  return nlohmann::ordered_json{{"prompt", prompt},
                                {"text", text},
                                {"tokens", done.tokens},
                                {"logprobs", done.logprobs},
                                {"stop", reason(done.finish)}}
             .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) +
         "\n";
}

std::string size(int64_t bytes) {
  if (bytes < 10000) return fmt::format("{} bytes", bytes);
  return bytes < 10000000 ? fmt::format("{:.1f} KiB", double(bytes) / 1024)
                          : fmt::format("{:.1f} MiB", double(bytes) / (1 << 20));
}

void print_memory(const Generator& g) {
  const GeneratorBytes& b = g.bytes();
  fmt::print(
      stderr,
      "{} slots of {} tokens: state {} a slot, cache {} a token, {} in all; {} of activations\n",
      g.options().slots, g.options().max_tokens, size(b.state_per_slot), size(b.cache_per_token),
      size(b.cache_total), size(b.arena));
}

void print_speed(const Scheduler::Throughput& t) {
  const auto rate = [](int64_t tokens, double s) { return s > 0 ? double(tokens) / s : 0; };
  fmt::print(stderr, "prefill {} tokens, {:.0f} tokens/s; decode {} tokens, {:.0f} tokens/s\n",
             t.prefill_tokens, rate(t.prefill_tokens, t.prefill_seconds), t.decode_tokens,
             rate(t.decode_tokens, t.decode_seconds));
}

}  // namespace

void generate(const Generate& c) {
  const LoadedModel m =
      load_model(c.run, c.device.empty() ? std::nullopt : std::optional(device_of(c.device)));
  for (const std::string& p : m.skipped) fmt::print(stderr, "BROKEN CHECKPOINT {}\n", p);
  const TextCodec codec = text_codec(m.config.data);
  const std::vector<std::string> prompts = prompts_of(c);
  std::vector<Request> requests = requests_of(c, codec, prompts);
  const bool streams = prompts.size() == 1 && !c.json;

  int64_t longest = 0;
  for (const Request& r : requests) longest = std::max(longest, int64_t(r.prompt.size()));
  ThreadPool threads(c.threads > 0 ? int(c.threads)
                                   : int(std::max(1u, std::thread::hardware_concurrency())));
  Context ctx{.threads = &threads};
  const Device device = m.params->shards().front().master.device;
  const DeviceHandles handles(device, ctx);
  m.params->refresh(ctx);
  Generator generator(ctx, *m.params, *m.lm, device == Device::cuda ? DType::bf16 : DType::f32,
                      {.slots = std::min(c.slots, int64_t(prompts.size())),
                       .max_tokens = longest + c.max_new_tokens,
                       .prefill_chunk_tokens = c.prefill_chunk_tokens});
  print_memory(generator);

  Scheduler scheduler(generator);
  std::vector<Text> texts(prompts.size(), Text(c.stop));
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].on_token = [&, i](int32_t id) {
      const std::string shown = texts[i].stream.push(codec.text(id));
      texts[i].shown += shown;
      if (streams) show(shown);
      return !texts[i].stream.stopped();
    };
    scheduler.add(std::move(requests[i]));
  }
  if (streams) show(prompts[0]);
  size_t written = 0;
  for (bool more = true; more;) {
    more = scheduler.step();
    for (; written < prompts.size() && scheduler.finished(int64_t(written)); ++written) {
      const Completion done = scheduler.take(int64_t(written));
      const std::string rest = texts[written].stream.finish();
      texts[written].shown += rest;
      if (streams)
        show(rest + "\n");
      else if (c.json)
        show(json_line(prompts[written], texts[written].shown, done));
      else
        show(prompts[written] + texts[written].shown + "\n\n");
    }
  }
  print_speed(scheduler.throughput());
}

}  // namespace sluice::launch
