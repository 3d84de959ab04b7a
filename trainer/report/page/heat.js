// trainer/report/page/heat.js -- maps of numbers: rows by columns, one hue.

const kRamps = {
  light: [[238, 243, 248], [190, 213, 233], [124, 173, 212], [58, 128, 184], [11, 88, 148], [6, 52, 94]],
  dark: [[27, 35, 43], [29, 58, 84], [33, 92, 137], [58, 138, 194], [122, 187, 230], [214, 236, 251]],
};
function ramp_colour(share) {
  const ramp = kRamps[document.documentElement.dataset.theme] || kRamps.light;
  const at = Math.max(0, Math.min(1, share)) * (ramp.length - 1), i = Math.min(ramp.length - 2, Math.floor(at));
  return `rgb(${ramp[i].map((c, k) => Math.round(c + (ramp[i + 1][k] - c) * (at - i))).join(" ")})`;
}

// map(): {rows: [names], cols: [names], values: [by row][by column] with null for none, row_title, col_title,
// log, ends: [low, high] of the hue, text: a number's text in cells and beside the pointer}
function heat_map(host, title, map) {
  keep_drawn(host, () => draw_heat(host, title, map()));
}

function draw_heat(host, title, m) {
  const all = m.values.flat().filter((v) => v !== null && (!m.log || v > 0));
  const width = Math.max(240, host.clientWidth), rows = m.rows.length, cols = m.cols.length;
  if (!all.length) return host.replaceChildren(h("p", { class: "muted" }, "no finite values"));
  const [low, high] = m.ends || [all.reduce((a, b) => Math.min(a, b)), all.reduce((a, b) => Math.max(a, b))];
  const f = m.log ? Math.log : (v) => v, share = (v) => (high > low ? (f(v) - f(low)) / (f(high) - f(low)) : 0.5);
  const text = m.text || ((v) => brief(v, 3));
  const left = 14 + 7 * Math.max(...m.rows.map((r) => String(r).length)), top = 16;
  const wide = (width - left - 4) / cols, tall = Math.max(9, Math.min(26, 300 / rows));
  const height = top + rows * tall + 34;
  const plot = s("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": title, onpointerleave: hide_tip });
  const every_row = Math.ceil(13 / tall), every_col = Math.ceil((Math.max(...m.cols.map((c) => String(c).length)) * 7 + 12) / wide);
  plot.append(s("text", { x: 0, y: 10 }, m.row_title));
  m.rows.forEach((name, r) => {
    if (r % every_row === 0) plot.append(s("text", { x: left - 7, y: top + (r + 0.5) * tall + 4, "text-anchor": "end" }, name));
    m.cols.forEach((col, c) => {
      const v = m.values[r][c];
      if (v === null || v === undefined) return;
      const at = { x: left + c * wide, y: top + r * tall }, tip_text = `${m.row_title} ${name}, ${m.col_title} ${col}: `;
      plot.append(s("rect", {
        x: at.x.toFixed(2), y: at.y.toFixed(2), width: (wide > 6 ? wide - 1 : wide + 0.3).toFixed(2), height: tall > 6 ? tall - 1 : tall, rx: wide > 14 ? 2 : 0, fill: ramp_colour(share(v)),
        onpointermove: (e) => show_tip(e.pageX, e.pageY, tip_text, h("b", {}, text(v))) }));
      if (wide > 40 && tall > 15) {
        const bright = (share(v) > 0.5) !== (document.documentElement.dataset.theme === "dark");
        plot.append(s("text", { x: at.x + wide / 2, y: at.y + tall / 2 + 4, "text-anchor": "middle", style: `fill:${bright ? "#fff" : "#10151a"};pointer-events:none` }, text(v)));
      }
    });
  });
  m.cols.forEach((name, c) => {
    if (c % every_col === 0) plot.append(s("text", { x: left + (c + 0.5) * wide, y: top + rows * tall + 15, "text-anchor": "middle" }, name));
  });
  plot.append(s("text", { x: width - 4, y: top + rows * tall + 30, "text-anchor": "end" }, m.col_title));
  const stops = [0, 0.2, 0.4, 0.6, 0.8, 1].map(ramp_colour).join(",");
  host.replaceChildren(plot, h("div", { class: "key" }, h("span", {}, text(low), h("span", { class: "ramp", style: `background:linear-gradient(90deg,${stops});margin-left:.4rem` }), text(high), m.log ? " (logarithmic)" : "")));
}
