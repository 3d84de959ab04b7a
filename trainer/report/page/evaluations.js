// trainer/report/page/evaluations.js -- needle, loss by position, and the scores.

const evaluations_of = (kind) => runs.flatMap((run) => Object.entries(run.evaluations).filter(([, e]) => e.kind === kind).map(([name, e]) => ({ run, name, e })));

function evaluations_section() {
  if (!runs.some((r) => Object.keys(r.evaluations).length)) return;
  const node = section("evaluations", "Evaluations");
  by_position(node);
  needles(node);
  scores(node);
}

function by_position(node) {
  const all = evaluations_of("by_position").filter(({ e }) => (e.buckets || []).length);
  if (!all.length) return;
  const lines = all.map(({ run, name, e }) => ({
    label: all.filter((a) => a.run === run).length > 1 ? `${run.name} ${name}` : run.name, of: run.of, run,
    x: e.buckets.map((b) => (b.begin + b.end) / 2), mean: e.buckets.map((b) => (finite(b.loss) ? b.loss : null)) }));
  const rules = [...new Set(all.map(({ e }) => e.train_seq_len_tokens))].filter(finite).map((x) => ({ x, text: "trained to here" }));
  const body = figure(node, "Loss by position", "nats a token", "beyond the rule: longer than any row of training", true);
  line_chart(body, { title: "Loss by position", lines: () => lines, height: 300, x_title: "position", rules, dots: all[0].e.buckets.length < 40 });
}

const percent = (v) => `${Math.round(100 * v)}\u2009%`;
function needles(node) {
  const all = evaluations_of("needle").filter(({ e }) => Array.isArray(e.accuracy) && e.accuracy.length);
  if (!all.length) return;
  const charts = grid(node);
  for (const { run, name, e } of all) {
    const body = figure(charts, `${name}: ${run.name}`, "", finite(e.checkpoint_step) ? `after step ${whole(e.checkpoint_step)}` : null);
    const map = (values, how) => () => ({
      rows: e.depths.map((d) => (d <= 1 ? percent(d) : String(d))), cols: e.lengths.map(String), row_title: "depth", col_title: "length in tokens",
      values: e.depths.map((_, d) => e.lengths.map((_, l) => (finite((values[l] || [])[d]) ? values[l][d] : null))), ...how });
    heat_map(body, `Needle, ${run.name}`, map(e.accuracy, { ends: [0, 1], text: percent }));
    if (e.answer_loss) heat_map(figure(charts, `${name}: ${run.name}`, "loss of the answer, nats a token"), `Loss of the answer, ${run.name}`, map(e.answer_loss, {}));
  }
}

// The other evaluations, a table a kind; perplexity has a row a set.
function scores(node) {
  const rest = runs.flatMap((run) => Object.entries(run.evaluations).filter(([, e]) => !["needle", "by_position"].includes(e.kind)).flatMap(([name, e]) =>
    e.sets && typeof e.sets === "object" ? Object.entries(e.sets).map(([set, x]) => ({ run, kind: e.kind, name: `${name}: ${set}`, numbers: { checkpoint_step: e.checkpoint_step, ...x } })) : [{ run, kind: e.kind, name, numbers: e }]));
  for (const kind of [...new Set(rest.map((r) => r.kind))]) {
    const rows = rest.filter((r) => r.kind === kind);
    const fields = [...new Set(rows.flatMap((r) => Object.keys(r.numbers).filter((k) => finite(r.numbers[k]))))];
    node.append(h("h3", { style: "margin-top:1.4rem" }, kind.replace(/_/g, " ")));
    table(node, [["evaluation", "name"], ["run", "name"], ...fields.map((f) => [f.replace(/_/g, " "), "number"])],
      rows.map((r) => [r.name, h("td", { class: "name" }, swatch(r.run.of), r.run.name),
        ...fields.map((f) => (Number.isInteger(r.numbers[f]) ? whole(r.numbers[f]) : show(r.numbers[f], 5)))]));
  }
}
