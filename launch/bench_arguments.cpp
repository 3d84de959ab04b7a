// launch/bench_arguments.cpp -- sluice bench ...
#include "launch/arguments.h"

namespace sluice::launch {

void add_bench(CLI::App& app) {
  CLI::App* bench =
      app.add_subcommand("bench", "correctness first, then speed beside the machine's");
  bench->require_subcommand(1);
  static BenchOp op;
  CLI::App* o = bench->add_subcommand("op", "one operator: GB/s or GFLOP/s, share of copy or GEMM");
  o->add_option("name", op.op, "kda, mla, linear, ...: a program bench_<name>")->required();
  o->footer("What follows goes to Google Benchmark: --benchmark_filter=forward");
  o->prefix_command();
  o->callback([o] {
    op.arguments = o->remaining();
    bench_op(op);
  });

  static BenchStep step;
  CLI::App* s = bench->add_subcommand("step", "training steps of a config, on random tokens");
  add_config_options(*s, step.config);
  s->add_option("--repeats", step.repeats, "measured steps")->check(count())->capture_default_str();
  s->add_flag("!--no-check", step.check, "leave the comparison with f64 out");
  s->add_flag("--json", step.json, "for programs");
  s->callback([] { bench_step(step); });

  static BenchDecode dec;
  CLI::App* d = bench->add_subcommand("decode", "generation after a context of random tokens");
  add_config_options(*d, dec.config);
  d->add_option("--context-tokens", dec.context_tokens, "one or more: 4096,131072")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(count())
      ->capture_default_str();
  d->add_option("--new-tokens", dec.new_tokens, "measured")->check(count())->capture_default_str();
  d->add_option("--slots", dec.slots, "sequences at a time")->check(count())->capture_default_str();
  d->add_flag("--most-slots", dec.most_slots, "then as many sequences as the GPU's memory holds");
  d->add_flag("--made-up-context", dec.made_up, "caches of random numbers, not prefilled");
  d->add_flag("--json", dec.json, "for programs");
  d->callback([] { bench_decode(dec); });

  static BenchPrefill pre;
  CLI::App* p = bench->add_subcommand(
      "prefill", "a long prompt in chunks: some are timed, each after a made-up context");
  add_config_options(*p, pre.config);
  p->add_option("--context-tokens", pre.context_tokens, "one or more: 131072,524288")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(count())
      ->capture_default_str();
  p->add_option("--chunk-tokens", pre.chunk_tokens)->check(count())->capture_default_str();
  p->add_option("--points", pre.points, "chunks that are timed")
      ->check(count())
      ->capture_default_str();
  p->add_flag("--json", pre.json, "for programs");
  p->callback([] { bench_prefill(pre); });
}

}  // namespace sluice::launch
