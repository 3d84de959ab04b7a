// trainer/report/page/chart.js -- lines over steps (or another x), with a cursor that reads values.

// A line: {label, of: group, run, x: [..], mean: [..], least, most}. `smooth`: the slider applies.
// A line may have draw: "dots" or "line", for the one without the other.
// chart: {title, lines(), smooth, height, marks(), dots, rules: [{x, text}], x_title, x_text, steps: x are steps,
// whole_x, log_x, log_y, from_zero}
function line_chart(host, chart) {
  const draw = () => draw_lines(host, chart);
  keep_drawn(host, draw);
}

// Exponential average to both sides: weights fall with the distance in x and each point counts for the x that it
// stands for, so thinned and whole series give the same curve, and no peak moves. null stays a gap.
function smoothed(x, values, span) {
  if (!(span > 0)) return values;
  const count = values.length, width = (i) => (i > 0 ? x[i] - x[i - 1] : 1) || 1;
  const sums = values.map((v, i) => (v === null ? 0 : v * width(i))), weights = values.map((v, i) => (v === null ? 0 : width(i)));
  const total = [...sums], weight = [...weights];
  for (const [first, step] of [[0, 1], [count - 1, -1]]) {
    let sum = 0, w = 0;  // of what lies on this side
    for (let i = first; i >= 0 && i < count; i += step) {
      total[i] += sum;
      weight[i] += w;
      const next = i + step, keep = next >= 0 && next < count ? Math.exp(-Math.abs(x[next] - x[i]) / span) : 0;
      sum = (sum + sums[i]) * keep;
      w = (w + weights[i]) * keep;
    }
  }
  return values.map((v, i) => (v === null ? null : total[i] / weight[i]));
}
// Of the slider's 0..100: none, then from a thousandth to a fifth of the steps.
const span_of = (last) => (state.smoothing === 0 ? 0 : last * 10 ** (-3 + 2.3 * (state.smoothing / 100)));

function extent(lists, positive) {
  let low = Infinity, high = -Infinity;
  for (const list of lists)
    for (const v of list) {
      if (v === null || (positive && !(v > 0))) continue;
      if (v < low) low = v;
      if (v > high) high = v;
    }
  return low <= high ? [low, high] : null;
}

// "M x y L x y": a new piece after each gap.
function path(x, y, values, log) {
  let text = "", pen = false;
  values.forEach((v, i) => {
    const good = v !== null && (!log || v > 0);
    if (good) text += `${pen ? "L" : "M"}${x(i).toFixed(1)} ${y(v).toFixed(1)}`;
    pen = good;
  });
  return text;
}
function band(x, y, least, most, log) {
  const up = [], down = [];
  least.forEach((v, i) => {
    if (v === null || most[i] === null || (log && !(v > 0))) return;
    up.push(`${x(i).toFixed(1)} ${y(most[i]).toFixed(1)}`);
    down.unshift(`${x(i).toFixed(1)} ${y(v).toFixed(1)}`);
  });
  return up.length ? `M${up.join("L")}L${down.join("L")}Z` : "";
}

function draw_axes(plot, x, y, box, x_title) {
  for (const t of y.ticks)
    plot.append(s("line", { class: "grid-line", x1: box.left, x2: box.right, y1: y(t), y2: y(t) }),
      s("text", { x: box.left - 8, y: y(t) + 4, "text-anchor": "end" }, tick_text(t)));
  let free = -Infinity;
  for (const t of x.ticks) {
    const text = tick_text(t), half = text.length * 3.4;
    plot.append(s("line", { class: "axis", x1: x(t), x2: x(t), y1: box.bottom, y2: box.bottom + 4 }));
    if (x(t) - half < free || x(t) + half > box.right + 14) continue;
    plot.append(s("text", { x: x(t), y: box.bottom + 18, "text-anchor": "middle" }, text));
    free = x(t) + half + 10;
  }
  plot.append(s("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }),
    s("text", { x: box.right, y: box.bottom + 33, "text-anchor": "end" }, x_title));
}

const tokens_a_step = (run) => (run.facts && run.facts.batch_tokens) || null;
const x_factor = (chart, line) => (chart.steps && state.unit === "tokens" && tokens_a_step(line.run) ? tokens_a_step(line.run) : 1);

function draw_lines(host, chart) {
  const lines = chart.lines().filter((l) => !l.run || visible(l.run)).map((l) => {
    const factor = x_factor(chart, l);
    const span = chart.smooth ? span_of(l.x[l.x.length - 1] || 0) : 0;
    return { ...l, factor, at: factor === 1 ? l.x : l.x.map((v) => v * factor), shown: smoothed(l.x, l.mean, span), span };
  });
  const log_y_wanted = chart.log_y || (chart.steps && state.log_y), log_x = chart.log_x || (chart.steps && state.log_x);
  const all = lines.flatMap((l) => [l.least || l.mean, l.most || l.mean]);
  const ys = extent(all, log_y_wanted), xs = extent(lines.map((l) => l.at), log_x);
  const width = Math.max(240, host.clientWidth), height = chart.height || 210;
  const plot = s("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, height, tabindex: 0, role: "img", "aria-label": chart.title });
  host.replaceChildren(plot);
  if (!ys || !xs) {
    plot.append(s("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, lines.length ? "no finite values" : "every run is switched off"));
    return;
  }
  const log_y = log_y_wanted && ys[0] > 0;
  let [low, high] = ys;
  if (chart.from_zero && !log_y) low = Math.min(0, low);
  const room = (high - low) * 0.04;
  if (!log_y) [low, high] = [chart.from_zero && low === 0 ? 0 : low - room, high + room];
  const box = { left: 52, right: width - 8, top: 8, bottom: height - 38 };
  const y = scale(low, high, box.bottom, box.top, log_y, Math.max(3, Math.round(height / 60)));
  const x = scale(xs[0], xs[1], box.left, box.right, log_x, Math.max(3, Math.round(width / 110)));
  if (chart.whole_x) x.ticks = x.ticks.filter(Number.isInteger);
  draw_axes(plot, x, y, box, chart.steps ? state.unit : chart.x_title || "");

  const faint = Math.max(0.06, 0.28 / Math.sqrt(lines.length));
  for (const l of lines) {
    const px = (i) => x(log_x && !(l.at[i] > 0) ? xs[0] : l.at[i]), style = { fill: "none", stroke: colour(l.of) };
    if (l.least) plot.append(s("path", { d: band(px, y, l.least, l.most, log_y), fill: colour(l.of), opacity: faint * 0.8 }));
    else if (l.span > 0) plot.append(s("path", { ...style, d: path(px, y, l.mean, log_y), "stroke-width": 1, opacity: faint }));
    if (l.draw !== "dots")
      plot.append(s("path", { ...style, d: path(px, y, l.shown, log_y), "stroke-width": 1.7, "stroke-linejoin": "round", "stroke-dasharray": dash(l.of) }));
    if (l.draw === "dots" || (chart.dots && l.draw !== "line") || l.x.length === 1)
      l.shown.forEach((v, i) => { if (v !== null && (!log_y || v > 0)) plot.append(s("circle", { cx: px(i), cy: y(v), r: 2.6, fill: colour(l.of) })); });
  }
  for (const rule of chart.rules || [])
    if (rule.x >= xs[0] && rule.x <= xs[1])
      plot.append(s("line", { class: "cursor", x1: x(rule.x), x2: x(rule.x), y1: box.top, y2: box.bottom }),
        s("text", { x: x(rule.x) - 6, y: box.top + 10, "text-anchor": "end" }, rule.text));
  if (chart.marks) draw_marks(plot, chart.marks().filter((m) => visible(m.run)), x, box, xs, chart);
  add_cursor(plot, host, lines, x, y, box, chart, log_y);
}

// --- events, along the axis ----------------------------------------------------------------------
const kMarks = {  // what is drawn for an event; what is not here is in the table of events alone
  resume: ["M0 0V-300", "resumed"], stage: ["M0 0V-300", "new stage"],
  spike: ["M-4 0L0 -8L4 0Z", "spike"], skip: ["M-3.5 -7L3.5 0M-3.5 0L3.5 -7", "skipped"],
  save: ["M0 0V-5", "saved"], "save failed": ["M-3 -3a3 3 0 1 0 6 0a3 3 0 1 0 -6 0", "save failed"],
  signal: ["M0 0V-300", "signal"], stop: ["M0 0V-300", "stopped"],
};
function draw_marks(plot, marks, x, box, xs, chart) {
  for (const m of marks) {
    const [shape] = kMarks[m.event], at = m.step * x_factor(chart, m);
    if (at < xs[0] || at > xs[1]) continue;
    const tall = shape.includes("-300");
    plot.append(s("path", {
      d: tall ? `M0 0V${box.top - box.bottom}` : shape, transform: `translate(${x(at).toFixed(1)} ${box.bottom})`,
      stroke: colour(m.run.of), fill: m.event === "spike" ? colour(m.run.of) : "none", "stroke-width": tall ? 1 : 1.4,
      "stroke-dasharray": tall ? "3 4" : null, opacity: m.event === "save" ? 0.55 : 0.85 },
      s("title", {}, `${m.run.name}, step ${m.step}: ${kMarks[m.event][1]}${m.why ? `: ${m.why}` : ""}`)));
  }
}
function marks_key(events) {
  const texts = {};  // by shape
  for (const [event, [shape, text]] of Object.entries(kMarks))
    if (events.some((m) => m.event === event)) (texts[shape] = texts[shape] || []).push(text);
  return h("div", { class: "key" }, Object.entries(texts).map(([shape, names]) => h("span", {},
    s("svg", { class: "mark", viewBox: "-6 -10 12 12" }, s("path", {
      d: shape.replace("-300", "-12"), stroke: "var(--muted)", fill: names[0] === "spike" ? "var(--muted)" : "none",
      "stroke-width": 1.4, "stroke-dasharray": shape.includes("-300") ? "3 2" : null })), names.join(", "))));
}
