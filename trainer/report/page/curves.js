// trainer/report/page/curves.js -- loss, validation, and the other numbers of training.

// What the numbers of a step are called; one that is not here is shown under its own name.
const kFields = {
  loss: ["Loss", "nats a token"],
  bits_per_byte: ["Bits per byte", ""],
  accuracy: ["Accuracy", "", { from_zero: true }],
  lr: ["Learning rate", "", { raw: true, from_zero: true }],
  grad_norm: ["Gradient norm", ""],
  tokens_per_second: ["Throughput", "tokens/s", { from_zero: true }],
  mfu: ["Share of the measured peak", "MFU", { from_zero: true }],
  data_wait_seconds: ["Waiting for data", "s a step", { from_zero: true }],
  data_wait_ms: ["Waiting for data", "ms a step", { from_zero: true }],
  z_loss: ["z-loss", ""],
  max_attention_logit: ["Largest attention logit", ""],
  qk_clipped_heads: ["Heads clipped by QK-clip", "", { raw: true }],
  skipped_total: ["Skipped steps", "in all", { raw: true }],
  expert_load_worst: ["Worst layer", "largest load / mean"],
  expert_load_mean: ["Mean of the layers", "largest load / mean"],
  experts_idle: ["Experts without a token", "", { from_zero: true }],
};
const title_of = (field) => (kFields[field] || [field, ""]);

function lines_of(event, field) {
  return runs.filter((r) => r.series[event] && r.series[event].fields[field]).map((run) => {
    const series = run.series[event], f = series.fields[field];
    return { label: run.name, of: run.of, run, x: series.steps, mean: f.mean, least: f.least, most: f.most };
  });
}
const fields_of = (event) => [...new Set(runs.flatMap((r) => (r.series[event] ? Object.keys(r.series[event].fields) : [])))];
const always_zero = (event, field) => lines_of(event, field).every((l) => (l.most || l.mean).every((v) => !v) && (l.least || l.mean).every((v) => !v));
const not_finite = (event, field) => runs.reduce((sum, r) => sum + ((r.series[event] && r.series[event].fields[field] || {}).not_finite || 0), 0);
const gaps_note = (event, field) => (not_finite(event, field) ? `${whole(not_finite(event, field))} values not finite` : null);

function add_chart(parent, event, field, options) {
  const [title, unit, how] = title_of(field);
  const body = figure(parent, (options && options.title) || title, unit, gaps_note(event, field), options && options.wide);
  const lines = lines_of(event, field);
  line_chart(body, { title, lines: () => lines, steps: true, smooth: !(how && how.raw), ...how, ...options });
  return body;
}

function loss_section() {
  if (!fields_of("train").includes("loss")) return;
  const node = section("loss", "Training loss", runs.some((r) => r.series.train && r.series.train.fields.loss && r.series.train.fields.loss.least)
    ? "Long runs are thinned: the line is the mean of neighbouring steps, the shade behind it reaches from the least to the largest."
    : null);
  const marks = runs.flatMap((run) => run.events.filter((e) => kMarks[e.event]).map((e) => ({ ...e, run })));
  const body = add_chart(node, "train", "loss", { height: 380, wide: true, marks: () => marks });
  if (marks.length) body.after(marks_key(marks));
}

function validation_section() {
  const sets = [...new Set(runs.flatMap((r) => Object.keys(r.series)))].filter((e) => e.startsWith("valid.")).sort();
  if (!sets.length) return;
  const node = section("validation", "Validation"), charts = grid(node);
  for (const event of sets)
    for (const field of fields_of(event)) {
      if (field === "bits_per_byte" && always_zero(event, field)) continue;
      add_chart(charts, event, field, { title: `${event.slice(6)}: ${title_of(field)[0].toLowerCase()}`, smooth: false, dots: true });
    }
}

function training_section() {
  const known = Object.keys(kFields), there = fields_of("train").filter((f) => f !== "loss" && f !== "skipped" && !f.startsWith("expert"));
  there.sort((a, b) => ((known.indexOf(a) + 99) % 99) - ((known.indexOf(b) + 99) % 99));
  const shown = there.filter((f) => !always_zero("train", f));
  if (!shown.length) return;
  const charts = grid(section("training", "Optimization and speed"));
  for (const field of shown) add_chart(charts, "train", field, {});
}

function experts_section() {
  const there = fields_of("train").filter((f) => f.startsWith("expert"));
  if (!there.length) return;
  const node = section("experts", "Experts", "Largest load of an expert over the mean load: 1 is even, the number of experts over the chosen ones is a collapse.");
  const charts = grid(node);
  for (const field of there) if (!(field === "experts_idle" && always_zero("train", field))) add_chart(charts, "train", field, {});
}
