// trainer/report/page/base.js -- data, elements, numbers, axes, and what the controls have set.

const report = JSON.parse(document.getElementById("data").textContent);
const runs = report.runs;

// --- elements ------------------------------------------------------------------------------------
function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((c) => c !== null && c !== undefined));
  return element;
}
const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg_space = document.getElementById("svg").namespaceURI;
const s = (tag, attributes, ...children) => fill(document.createElementNS(svg_space, tag), attributes, children);

// --- numbers -------------------------------------------------------------------------------------
const finite = (x) => typeof x === "number" && Number.isFinite(x);
const minus = (text) => text.replace("-", "\u2212");

// About `digits` significant ones, zeros at the end too, so that columns align: 3.7177, 0.002130, 1.2e-5, 15 526.
function show(x, digits = 4) {
  if (!finite(x)) return "\u2013";
  const size = Math.abs(x);
  if (x === 0) return "0";
  if (size >= 10 ** digits) return size < 1e7 ? minus(grouped(Math.round(x))) : minus(si(x));
  if (size < 1e-4) return minus(x.toExponential(Math.max(0, digits - 3)));
  const places = Math.max(0, Math.min(8, digits - 1 - Math.floor(Math.log10(size))));
  return minus(x.toFixed(places));
}
// The same without zeros at the end: 12, 0.5.
const brief = (x, digits) => show(x, digits).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");
const grouped = (x) => String(x).replace(/\B(?=(\d{3})+(?!\d))/g, "\u202f");
function si(x, digits = 3) {
  if (!finite(x)) return "\u2013";
  if (Math.abs(x) >= 1e15) return x.toExponential(2);
  for (const [scale, letter] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]])
    if (Math.abs(x) >= scale * 0.9995) return `${Number((x / scale).toPrecision(digits))}${letter}`;
  return String(Number(x.toPrecision(digits)));
}
const whole = (x) => (finite(x) ? grouped(Math.round(x)) : "\u2013");

// --- axes ----------------------------------------------------------------------------------------
function linear_ticks(low, high, count) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((m) => m >= raw * 0.999);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; ++i) ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}
function log_ticks(low, high, count) {
  const ticks = [], decades = Math.log10(high / low);
  const digits = decades < 1.2 ? null : decades * 3 <= count + 2 ? [1, 2, 5] : [1];
  if (!digits) return linear_ticks(low, high, count);
  const every = Math.max(1, Math.ceil(decades / count));
  for (let e = Math.floor(Math.log10(low)); e <= Math.log10(high); ++e)
    if (digits.length > 1 || e % every === 0)
      for (const d of digits) if (d * 10 ** e >= low * 0.999 && d * 10 ** e <= high * 1.001) ticks.push(d * 10 ** e);
  return ticks;
}
// A map from values to pixels, with ticks. `log` needs positive ends.
function scale(low, high, from, to, log, count) {
  if (!(high > low)) [low, high] = low > 0 ? [low * 0.9, low * 1.1] : [low - 1, low + 1];
  const f = log ? Math.log : (x) => x, a = f(low), b = f(high);
  const map = (x) => from + ((f(x) - a) / (b - a)) * (to - from);
  map.back = (p) => { const v = a + ((p - from) / (to - from)) * (b - a); return log ? Math.exp(v) : v; };
  map.ticks = (log ? log_ticks : linear_ticks)(low, high, count);
  return map;
}
function tick_text(x) {
  const size = Math.abs(x);
  if (size >= 1e15 || (x !== 0 && size < 1e-4)) return minus(x.toExponential().replace("e+", "e"));
  return minus(size >= 1e4 ? si(x, 6) : String(Number(x.toPrecision(6))));
}

// --- groups: what shares a colour (the seeds of a sweep's variant) ----------------------------------
const groups = [];
for (const run of runs) {
  let group = groups.find((g) => g.name === run.group);
  if (!group) groups.push((group = { name: run.group, runs: [], index: groups.length }));
  group.runs.push(run);
  run.of = group;
}
const colour = (group) => `var(--c${group.index % 7})`;
const dash = (group) => [null, "5 3", "1.5 2.5", "8 3 2 3"][Math.floor(group.index / 7) % 4];
const swatch = (group) => h("span", { class: "swatch", style: `border-color:${colour(group)};border-top-style:${dash(group) ? "dashed" : "solid"}` });

// --- what the controls have set ------------------------------------------------------------------------
const state = { smoothing: 30, log_x: false, log_y: false, unit: "steps", hidden: new Set() };
const redraws = [];  // of figures that depend on it
const visible = (run) => !state.hidden.has(run.of.name);
const redraw_all = () => redraws.forEach((draw) => draw());

// Every figure is drawn again when its width changes.
function keep_drawn(host, draw) {
  let width = 0;
  new ResizeObserver(() => {
    if (Math.abs(host.clientWidth - width) < 1) return;
    width = host.clientWidth;
    draw();
  }).observe(host);
  redraws.push(draw);
}

// --- a text beside the pointer ---------------------------------------------------------------------------
const tip = document.getElementById("tip");
function show_tip(x, y, ...content) {
  tip.replaceChildren(...content);
  tip.hidden = false;
  const right = x + 16 + tip.offsetWidth > document.documentElement.clientWidth + scrollX;
  tip.style.left = `${Math.max(scrollX + 4, right ? x - 16 - tip.offsetWidth : x + 16)}px`;
  tip.style.top = `${Math.max(scrollY + 4, y - tip.offsetHeight / 2)}px`;
}
const hide_tip = () => { tip.hidden = true; };

// --- the page's parts ----------------------------------------------------------------------------------------
function section(id, title, text) {
  const node = h("section", { id, "aria-label": title }, h("h2", {}, title), text ? h("p", {}, text) : null);
  document.getElementById("main").append(node);
  document.getElementById("contents").append(h("a", { href: `#${id}` }, title));
  return node;
}
function figure(parent, title, unit, note, wide) {
  const body = h("div", {});
  parent.append(h("figure", { class: wide ? "wide" : null },
    h("figcaption", {}, h("h3", {}, title, unit ? h("span", { class: "unit" }, `  ${unit}`) : null),
      note ? h("span", { class: "muted" }, note) : null), body));
  return body;
}
const grid = (parent) => parent.appendChild(h("div", { class: "grid" }));
