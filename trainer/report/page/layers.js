// trainer/report/page/layers.js -- what validation has measured in each layer: the event "layers".

// Fields are layers.N.QUANTITY; a quantity that is not here is shown under its own name.
const kQuantities = {
  decay_half_life_p50: ["Half-life of the state's decay", "tokens, median of the channels", { log: true, from: "decay_half_life_p10", to: "decay_half_life_p90" }],
  beta_mean: ["Write strength", "mean of beta", {}],
  state_norm: ["Final state", "root mean square", {}],
  max_attention_logit: ["Largest attention logit", "", {}],
  expert_load: ["Expert load", "largest / mean", {}],
};
const kShownInside = ["decay_half_life_p10", "decay_half_life_p90"];  // ends of another one's band

function quantities() {
  const found = new Map();  // quantity: its layers
  for (const field of fields_of("layers")) {
    const [, layer, name] = /^layers\.(\d+)\.(.+)$/.exec(field) || [];
    if (!name || kShownInside.includes(name)) continue;
    if (!found.has(name)) found.set(name, new Set());
    found.get(name).add(Number(layer));
  }
  const known = Object.keys(kQuantities), place = (n) => (known.includes(n) ? known.indexOf(n) : known.length);
  return [...found].map(([name, layers]) => ({ name, layers: [...layers].sort((a, b) => a - b) })).sort((a, b) => place(a.name) - place(b.name));
}

function layers_section() {
  const all = quantities(), measured = runs.filter((r) => r.series.layers);
  if (!all.length) return;
  const node = section("layers", "Layers", "Measured in the first rows of validation. Curves: each layer at the end of the run. Maps: one run over its steps.");
  const charts = grid(node);
  for (const q of all) profile(charts, q, measured);

  let chosen = measured[0];
  const maps_title = node.appendChild(h("h3", { style: "margin-top:1.4rem" }, "Over the steps of "));
  if (measured.length > 1)
    maps_title.append(h("select", { "aria-label": "Run of the maps", onchange: (e) => { chosen = measured[e.target.selectedIndex]; redraw_all(); } },
      measured.map((r) => h("option", {}, r.name))));
  else maps_title.append(chosen.name);
  const maps = grid(node);
  for (const q of all) {
    const [title, unit, how] = kQuantities[q.name] || [q.name, "", {}];
    heat_map(figure(maps, title, unit), title, () => {
      const { steps, fields } = chosen.series.layers;
      const layers = q.layers.filter((l) => fields[`layers.${l}.${q.name}`]);
      return { rows: layers, cols: steps.map((x) => whole(x)), row_title: "layer", col_title: "step", log: how.log, values: layers.map((l) => fields[`layers.${l}.${q.name}`].mean) };
    });
  }
}

// The last value of each layer, a line a run.
function profile(parent, q, measured) {
  const [title, unit, how] = kQuantities[q.name] || [q.name, "", {}];
  const last = (run, layer, name) => (finite((run.last.layers || {})[`layers.${layer}.${name}`]) ? run.last.layers[`layers.${layer}.${name}`] : null);
  const lines = measured.map((run) => {
    const layers = q.layers.filter((l) => last(run, l, q.name) !== null), list = (name) => layers.map((l) => last(run, l, name));
    const shade = how.from && layers.length > 0;
    return { label: run.name, of: run.of, run, x: layers, mean: list(q.name), least: shade ? list(how.from) : undefined, most: shade ? list(how.to) : undefined };
  }).filter((l) => l.x.length);
  if (!lines.length) return;
  const body = figure(parent, title, unit, how.from ? "shade: 10th to 90th percentile" : null);
  line_chart(body, { title, lines: () => lines, dots: true, log_y: how.log, x_title: "layer", whole_x: true });
}
