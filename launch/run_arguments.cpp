// launch/run_arguments.cpp -- sluice train, plan, sweep, config, generate.
#include "launch/arguments.h"
#include "model/export/engines/targets.h"
#include "trainer/loop/exit_code.h"

namespace sluice::launch {

void add_config_options(CLI::App& app, ConfigSource& c) {
  app.add_option("config", c.file, "YAML file")->required();
  app.add_option("--set", c.set, "override a key: --set model.ratio=7:1")->allow_extra_args(false);
}

CLI::Validator count() {
  return {[](std::string& text) {
            int64_t n = 0;
            const bool number = CLI::detail::lexical_cast(text, n);
            return number && n > 0 ? std::string() : "expected a count above 0, got " + text;
          },
          "COUNT"};
}

void add_runs(CLI::App& app, int& status) {
  static ConfigSource run, shown;
  static PlanRun planned;
  CLI::App* t = app.add_subcommand("train", "pretraining; the same command resumes");
  add_config_options(*t, run);
  static bool fresh = false;
  t->add_flag("--fresh", fresh, "a new run: refuse a folder that a run has used");
  static std::string profile;
  t->add_option("--profile", profile, "a time line of two steps for Perfetto: ops, phases, ranks");
  t->footer(sluice::kExitCodes);
  t->callback([&status] { status = train(run, fresh, profile); });

  CLI::App* p = app.add_subcommand("plan", "a run's memory, wire and time, a rank; needs no GPU");
  add_config_options(*p, planned.config);
  p->add_option("--ranks", planned.ranks, "of the run, on the mesh of the section parallel")
      ->check(count())
      ->capture_default_str();
  CLI::Option* figures = p->add_option("--figures", planned.figures,
                                       "measured rates, for times: configs/figures/*.yaml");
  p->add_option("--set-figure", planned.set_figures, "override one: inside.bytes_per_second=1e11")
      ->allow_extra_args(false)
      ->needs(figures);
  p->callback([] { plan(planned); });

  static Sweep swept;
  CLI::App* w = app.add_subcommand("sweep", "all variants of a config, and one table of them");
  add_config_options(*w, swept.sweep);
  w->add_flag("--plan,--dry-run", swept.plan, "print runs, parameters, FLOPs and matched widths");
  w->footer(sluice::kExitCodes);
  w->callback([&status] { status = sweep(swept); });

  CLI::App* c = app.add_subcommand("config", "check a config");
  add_config_options(*c, shown);
  static bool print = false;
  c->add_flag("--print", print, "show it with every default");
  c->callback([] { print_config(shown); });
}

void add_generate(CLI::App& app) {
  static Generate gen;
  CLI::App* g = app.add_subcommand("generate", "texts from a checkpoint");
  g->add_option("run", gen.run, "a run's folder, or one checkpoint of it")->required();
  g->add_option("--prompt", gen.prompts,
                "text to continue, repeatable; without any: a new document")
      ->allow_extra_args(false);
  g->add_option("--prompts", gen.prompts_file, "file of prompts: .jsonl, or text with one a line");
  g->add_option("--field", gen.field, "string to take from each JSON line")->capture_default_str();
  g->add_option("--slots,--batch-size", gen.slots, "sequences at a time")
      ->check(count())
      ->capture_default_str();
  g->add_option("--prefill-chunk-tokens", gen.prefill_chunk_tokens, "bounds the memory of a call")
      ->check(count())
      ->capture_default_str();
  g->add_option("--max-new-tokens", gen.max_new_tokens)->check(count())->capture_default_str();
  g->add_option("--temperature", gen.temperature, "0: the likeliest token")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  g->add_option("--top-k", gen.top_k, "draw from this many tokens; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  g->add_option("--top-p", gen.top_p, "draw from the likeliest tokens with this share of the mass")
      ->check(CLI::Range(1e-9, 1.0))
      ->capture_default_str();
  g->add_option("--seed", gen.seed, "with a request's number: its random numbers")
      ->capture_default_str();
  g->add_option("--stop", gen.stop, "text that ends a sample and is left out, repeatable")
      ->allow_extra_args(false);
  g->add_option("--device", gen.device, "cpu or cuda; left out: the run's")
      ->check(CLI::IsMember({"cpu", "cuda"}));
  g->add_flag("--json", gen.json, "one JSON line a prompt: prompt, text, tokens, logprobs, stop");
  g->add_option("--threads", gen.threads, "0: one a core")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  g->callback([] { generate(gen); });
}

void add_export(CLI::App& app) {
  static Export c;
  CLI::App* e = app.add_subcommand(
      "export", "a checkpoint -> a folder or a .gguf file that other engines load");
  e->add_option("checkpoint", c.checkpoint, "a run's folder, or one checkpoint of it")->required();
  e->add_option("out", c.out, "folder to make, or a name that ends in .gguf: llama.cpp's file")
      ->required();
  e->add_option("--dtype", c.dtype, "of the weights: bf16 | f32; of a .gguf file also f16 | q8_0")
      ->check(CLI::IsMember({"bf16", "f32", "f16", "q8_0"}))
      ->capture_default_str();
  e->add_option("--for", c.engines, std::string("engine that must load it: ") + engines_text())
      ->check([](const std::string& s) {
        return is_engine(s) ? std::string() : std::string("expected ") + engines_text();
      })
      ->allow_extra_args(false);
  e->add_option("--context-tokens", c.context_tokens,
                "that the folder names; else training's longest row")
      ->check(count());
  e->add_option("--max-shard-mib", c.max_shard_mib, "size of a file")
      ->check(count())
      ->capture_default_str();
  e->callback([] { export_model(c); });

  static Import i;
  CLI::App* m = app.add_subcommand("import", "a Hugging Face folder -> weights for run.init.from");
  m->add_option("folder", i.folder, "with config.json and .safetensors files")->required();
  m->add_option("out", i.out, "run folder to make")->required();
  m->callback([] { import_model(i); });
}

}  // namespace sluice::launch
