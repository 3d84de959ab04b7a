// trainer/report/page/tables.js -- the runs, their configurations, what happened, what was left out.

// columns: [title, cell, class]; a cell is text or a node.
function table(parent, head, rows) {
  parent.append(h("div", { class: "scroll" }, h("table", {},
    h("thead", {}, h("tr", {}, head.map(([title, kind]) => h("th", { class: kind, scope: "col" }, title)))),
    h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell, i) => (cell instanceof Node && cell.tagName === "TD" ? cell : h("td", { class: head[i][1] }, cell)))))))));
}

const last_event = (run, names) => [...run.events].reverse().find((e) => names.includes(e.event));
const started = (run) => last_event(run, ["start", "resume"]) || {};
const last_of = (run, event, field) => (run.last[event] || {})[field];

// How a run ended, as far as its metrics know.
function ending(run) {
  const last = run.events.filter((e) => e.event !== "save" && e.event !== "spike").pop() || {};
  const step = last_of(run, "train", "step"), planned = run.facts && run.facts.steps;
  if (last.event === "done") return "done";
  if (last.event === "signal") return last.signal || "signal";
  if (last.event === "stop") return "stopped: not finite";
  return planned && step >= planned ? "done" : "not ended";
}

function runs_section() {
  if (!runs.length) return;
  const node = section("runs", runs.length > 1 ? "Runs" : "Run");
  const sets = [...new Set(runs.flatMap((r) => Object.keys(r.series)))].filter((e) => e.startsWith("valid.")).sort();
  const head = [["run", "name"], ["parameters", "number"], ["a token meets", "number"], ["steps", "number"], ["tokens", "number"], ["train loss", "number"]];
  for (const set of sets) {
    head.push([`${set.slice(6)} loss`, "number"]);
    if (fields_of(set).includes("bits_per_byte") && !always_zero(set, "bits_per_byte")) head.push([`${set.slice(6)} bits/byte`, "number"]);
  }
  head.push(["tokens/s", "number"], ["ended", ""]);
  table(node, head, runs.map((run) => {
    const f = run.facts || {}, step = last_of(run, "train", "step");
    const cells = [h("td", { class: "name" }, swatch(run.of), run.name), si(f.parameters), si(f.active_parameters),
      step === undefined ? "\u2013" : f.steps && f.steps !== step ? `${whole(step)} of ${whole(f.steps)}` : whole(step),
      si(step * f.batch_tokens), show(final_loss(run), 5)];
    for (const set of sets) {
      cells.push(show(last_of(run, set, "loss"), 5));
      if (head.some(([t]) => t === `${set.slice(6)} bits/byte`)) cells.push(show(last_of(run, set, "bits_per_byte"), 5));
    }
    cells.push(whole(last_of(run, "train", "tokens_per_second")), ending(run));
    return cells;
  }));
  node.append(h("p", { class: "muted", style: "margin-top:.5rem" }, "Train loss: the mean of the last fiftieth of the steps. Validation: the last one."));
  const keys = ["cpu", "device", "instruction_set", "compiler", "blas", "flags", "build"].filter((k) => runs.some((r) => started(r)[k]));
  if (!keys.length) return;
  const more = node.appendChild(h("details", {}, h("summary", {}, "Machine and build")));
  table(more, [["run", "name"], ...keys.map((k) => [k.replace("_", " "), ""])], runs.map((run) => [run.name, ...keys.map((k) => started(run)[k] || "\u2013")]));
}

function final_loss(run) {
  const series = run.series.train;
  if (!series || !series.fields.loss) return null;
  const from = series.steps[series.steps.length - 1] * 0.98, mean = series.fields.loss.mean;
  let sum = 0, weight = 0;
  series.steps.forEach((step, i) => {
    if (step < from || mean[i] === null) return;
    const w = i > 0 ? step - series.steps[i - 1] : 1;
    sum += mean[i] * w;
    weight += w;
  });
  return weight ? sum / weight : null;
}

function differences_section() {
  const keys = [...new Set(runs.flatMap((r) => Object.keys(r.config)))];
  if (!keys.length) return;
  const one = runs.length === 1;
  const node = section("configuration", one ? "Configuration" : "Configuration differences",
    one ? "Keys that are not at their defaults." : "Keys that are not the same in all runs; a dash: the run has no such key.");
  const by_group = groups.length < runs.length ? groups : runs.map((r) => ({ ...r.of, name: r.name, runs: [r] }));
  table(node, [["key", "key-path"], ...by_group.map((g) => [g.name, ""])], keys.map((key) => [key, ...by_group.map((g) => {
    const values = [...new Set(g.runs.map((r) => (key in r.config ? r.config[key] : "\u2013")))];
    return values.length > 4 ? `${values.slice(0, 3).join(", ")}, \u2026` : values.join(", ");
  })]));
}

function events_section() {
  const rows = runs.flatMap((run) => run.events.filter((e) => e.event !== "save").map((e) => ({ run, e })));
  if (!rows.length) return;
  const node = section("events", "Events");
  const list = node.appendChild(h("details", { open: rows.length <= 12 }, h("summary", {}, `${rows.length} events, saves left out`)));
  const text = (e) => e.why || e.signal || e.checkpoint || e.init || (e.seq_len_tokens ? `rows of ${e.seq_len_tokens} tokens` : "");
  table(list, [["step", "number"], ["run", "name"], ["event", ""], ["", "text"]],
    rows.map(({ run, e }) => [whole(e.step), run.name, e.event, text(e)]));
}

function problems_section() {
  const all = [...report.sweeps, ...runs].filter((x) => x.problems.length);
  if (!all.length) return;
  const node = section("left-out", "Left out", "What could not be read or is not in this page.");
  node.append(h("ul", { class: "problems" }, all.flatMap((x) => x.problems.map((p) => h("li", {}, `${x.name || x.dir}: ${p}`)))));
}
