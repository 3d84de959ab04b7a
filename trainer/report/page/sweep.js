// trainer/report/page/sweep.js -- a sweep's table, its values with their errors, its fits.

// The colour that the variant's runs have, or the next one.
const group_of = (name, index) => groups.find((g) => g.name === name) || { name, index: groups.length + index };
const value_of = (row, column) => (row.values || {})[column.key];
const fixed = (x, digits) => (!finite(x) ? "\u2013" : digits === undefined || digits === null ? show(x) : Math.abs(x) >= 1e7 ? si(x) : minus(digits === 0 ? grouped(Math.round(x)) : x.toFixed(digits)));

const with_error = (x, error) => h("span", {}, show(x), finite(error) ? h("span", { class: "spread" }, ` \u00b1 ${show(error, 2)}`) : "");

function sweep_sections() {
  report.sweeps.forEach((sweep, i) => {
    const c = sweep.content, id = `sweep-${i}`;
    const node = section(id, report.sweeps.length > 1 ? `Sweep ${c.name || sweep.dir}` : "Sweep");
    if (c.label) node.append(h("p", {}, h("span", { class: "label" }, c.label)));
    sweep_table(node, c);
    sweep_values(node, c);
    sweep_fits(node, c);
    if ((c.failed || []).length) {
      node.append(h("h3", { style: "margin-top:1.2rem" }, "Failed runs"));
      node.append(h("ul", { class: "problems" }, c.failed.map((f) => h("li", {}, `${f.run}: ${f.why}`))));
    }
    sweep_differences(node, c);
  });
}

// Of each group: rows of other sizes or other data are not compared.
function best_rows(c, column) {
  if (column.better !== "lower" && column.better !== "higher") return [];
  const sign = column.better === "lower" ? 1 : -1;
  const score = (r) => (value_of(r, column) ? sign * value_of(r, column).mean : NaN);
  const best = {};
  for (const r of c.rows) {
    const group = r.group || "";
    if (finite(score(r)) && !(best[group] <= score(r))) best[group] = score(r);
  }
  return c.rows.filter((r) => score(r) === best[r.group || ""]);
}

function sweep_table(node, c) {
  const head = [["variant", "name"], ...c.columns.map((col) => [col.title, "number"])];
  table(node, head, c.rows.map((row, i) => [h("td", { class: "name" }, swatch(group_of(row.variant, i)), row.variant), ...c.columns.map((col) => {
    const v = value_of(row, col);
    if (!v) return "\u2013";
    return h("td", { class: `number${best_rows(c, col).includes(row) ? " best" : ""}` }, fixed(v.mean, col.digits),
      finite(v.spread) ? h("span", { class: "spread" }, ` \u00b1 ${fixed(v.spread, col.digits)}`) : null,
      v.ns ? h("span", { class: "spread" }, " n.s.") : null);
  })]));
  const seeds = [...new Set(c.rows.map((r) => (r.runs || []).length))].filter((n) => n > 0).sort((a, b) => a - b);
  const runs_text = seeds.length ? `${seeds.length > 1 ? `${seeds[0]} to ${seeds[seeds.length - 1]}` : seeds[0]} ${seeds[seeds.length - 1] === 1 ? "seed" : "seeds"} a variant. ` : "";
  const ns = c.rows.some((r) => Object.values(r.values || {}).some((v) => v.ns));
  const tuned = c.rows.filter((r) => r.tuned).map((r) => `${r.variant}: ${r.tuned}`);
  if (tuned.length || (c.notes || []).length)
    node.append(h("ul", { class: "problems" }, [...tuned, ...(c.notes || [])].map((text) => h("li", {}, text))));
  node.append(h("p", { style: "margin-top:.5rem" }, `${runs_text}\u00b1 is the standard error of the mean${ns ? "; n.s.: not significantly different" : ""}.`));
}

// A figure a column that is a result: one of which less or more is better.
function sweep_values(node, c) {
  const charts = grid(node);
  for (const column of c.columns.filter((col) => col.better)) {
    const rows = c.rows.map((row, i) => ({ row, of: group_of(row.variant, i), v: value_of(row, column) })).filter((r) => r.v && finite(r.v.mean));
    if (rows.length < 2 || rows.every((r) => r.v.mean === rows[0].v.mean)) continue;
    const body = figure(charts, column.title, `${column.better} is better`);
    keep_drawn(body, () => draw_values(body, column, rows));
  }
}

// A bar a variant from the left edge to its mean, with its error: the edge is no zero, so the mean is a dot.
function draw_values(host, column, rows) {
  const width = Math.max(240, host.clientWidth), tall = 27, height = rows.length * tall + 34;
  const left = Math.min(width * 0.4, 16 + 7.2 * Math.max(...rows.map((r) => r.row.variant.length)));
  const reach = (r, sign) => r.v.mean + sign * (finite(r.v.spread) ? r.v.spread : 0);
  let low = Math.min(...rows.map((r) => reach(r, -1))), high = Math.max(...rows.map((r) => reach(r, 1)));
  const room = (high - low) * 0.08;
  [low, high] = [low > 0 && low < 0.25 * high ? 0 : low - room, high + room];
  const x = scale(low, high, left, width - 76, false, 4);
  const plot = s("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": column.title, onpointerleave: hide_tip });
  for (const t of x.ticks)
    plot.append(s("line", { class: "grid-line", x1: x(t), x2: x(t), y1: 0, y2: height - 28 }), s("text", { x: x(t), y: height - 12, "text-anchor": "middle" }, tick_text(t)));
  rows.forEach((r, i) => {
    const y = (i + 0.5) * tall, c = colour(r.of), most = Math.floor(left / 7);
    const name = r.row.variant.length > most ? `${r.row.variant.slice(0, most - 1)}\u2026` : r.row.variant;
    plot.append(s("text", { x: left - 12, y: y + 4, "text-anchor": "end", class: "strong" }, s("title", {}, r.row.variant), name),
      s("line", { x1: left, x2: x(r.v.mean), y1: y, y2: y, stroke: c, "stroke-width": 9, opacity: 0.2 }));
    if (finite(r.v.spread) && r.v.spread > 0)
      plot.append(s("path", { d: `M${x(reach(r, -1))} ${y - 5}v10m0 -5H${x(reach(r, 1))}m0 -5v10`, stroke: c, "stroke-width": 1.5, fill: "none" }));
    plot.append(s("circle", { cx: x(r.v.mean), cy: y, r: 4, fill: c }),
      s("text", { x: width, y: y + 4, "text-anchor": "end" }, `${fixed(r.v.mean, column.digits)}${r.v.ns ? " n.s." : ""}`),
      s("rect", { x: 0, y: y - tall / 2, width, height: tall, fill: "transparent", onpointermove: (e) => show_tip(e.pageX, e.pageY,
        h("b", {}, r.row.variant), h("div", {}, `${fixed(r.v.mean, column.digits)}${finite(r.v.spread) ? ` \u00b1 ${fixed(r.v.spread, column.digits)}` : ""}, ${r.v.n} ${r.v.n === 1 ? "seed" : "seeds"}`)) }));
  });
  host.replaceChildren(plot);
}

// L = a C^-b through the points of each variant.
function sweep_fits(node, c) {
  const fits = (c.fits || []).filter((f) => (f.points || []).length);
  if (!fits.length) return;
  const lines = fits.flatMap((fit, i) => {
    const of = group_of(fit.name, i), points = [...fit.points].sort((p, q) => p[0] - q[0]);
    const x0 = points[0][0] / 1.3, x1 = points[points.length - 1][0] * 1.3, n = 40;
    const x = Array.from({ length: n }, (_, k) => x0 * (x1 / x0) ** (k / (n - 1)));
    return [
      { label: fit.name, of, x: points.map((p) => p[0]), mean: points.map((p) => p[1]), draw: "dots" },
      ...(finite(fit.a) && finite(fit.b) ? [{ label: "fit", of, x, mean: x.map((v) => fit.a * v ** -fit.b), draw: "line" }] : []),
    ];
  });
  const body = figure(node, "Power laws", "L = a C\u207b\u1d47", "both axes are logarithmic", true);
  line_chart(body, { title: "Power laws", lines: () => lines, height: 340, log_x: true, log_y: true, x_title: `compute C${fits[0].unit ? `, ${fits[0].unit}` : ""}`, x_text: (v) => v.toPrecision(3).replace("e+", "e") });
  table(node, [["variant", "name"], ["a", "number"], ["b", "number"], ["points", "number"]],
    fits.map((f, i) => [h("td", { class: "name" }, swatch(group_of(f.name, i)), f.name), with_error(f.a, f.a_error), with_error(f.b, f.b_error), String(f.points.length)]));
}

function sweep_differences(node, c) {
  const by = c.config_differences || {}, names = Object.keys(by), keys = [...new Set(names.flatMap((n) => Object.keys(by[n])))];
  if (!keys.length) return;
  const list = node.appendChild(h("details", {}, h("summary", {}, "What the variants change")));
  table(list, [["key", "key-path"], ...names.map((n) => [n, ""])], keys.map((k) => [k, ...names.map((n) => {
    const v = by[n][k];
    return v === undefined ? "\u2013" : typeof v === "string" ? v : JSON.stringify(v);
  })]));
}
