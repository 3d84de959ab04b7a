// trainer/report/page/cursor.js -- reads a chart's lines at the pointer, or by the arrow keys.

function nearest(list, value) {
  let low = 0, high = list.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low > 0 && value - list[low - 1] < list[low] - value ? low - 1 : low;
}

function add_cursor(plot, host, lines, x, y, box, chart, log_y) {
  const rule = s("line", { class: "cursor", y1: box.top, y2: box.bottom, visibility: "hidden" });
  const dots = s("g", { visibility: "hidden" });
  plot.append(rule, dots);
  const longest = lines.reduce((a, b) => (b.at.length > a.at.length ? b : a), lines[0]);
  let index = -1;

  const hide = () => {
    rule.setAttribute("visibility", "hidden");
    dots.setAttribute("visibility", "hidden");
    hide_tip();
  };
  const read_at = (value) => {
    index = nearest(longest.at, value);
    const at = longest.at[index], rect = plot.getBoundingClientRect(), wide = rect.width / plot.viewBox.baseVal.width;
    const read = [];
    for (const l of lines) {
      const i = nearest(l.at, at), off = Math.abs(x(l.at[i]) - x(at));
      if (l.shown[i] !== null && off < 12) read.push({ l, i, value: l.shown[i] });
    }
    rule.setAttribute("x1", x(at));
    rule.setAttribute("x2", x(at));
    rule.setAttribute("visibility", "visible");
    dots.setAttribute("visibility", "visible");
    dots.replaceChildren(...read.filter((r) => !log_y || r.value > 0).map((r) =>
      s("circle", { cx: x(r.l.at[r.i]), cy: y(r.value), r: 3.2, fill: colour(r.l.of), stroke: "var(--panel)", "stroke-width": 1.5 })));
    read.sort((a, b) => b.value - a.value);
    const rows = read.slice(0, 14).map(({ l, i, value }) => h("tr", {},
      h("td", {}, swatch(l.of), l.label), h("td", { class: "number" }, h("b", {}, brief(value))),
      l.least && l.least[i] !== null && l.least[i] !== l.most[i]
        ? h("td", { class: "number muted" }, `${brief(l.least[i])} to ${brief(l.most[i])}`)
        : h("td", {})));
    const unit = chart.steps ? state.unit.replace(/s$/, "") : chart.x_title || "";
    show_tip(scrollX + rect.left + x(at) * wide, scrollY + rect.top + rect.height / 2,
      h("div", { class: "muted" }, `${unit} ${chart.x_text ? chart.x_text(at) : whole(at)}`), h("table", {}, rows),
      read.length > 14 ? h("div", { class: "muted" }, `and ${read.length - 14} more`) : "");
  };

  plot.addEventListener("pointermove", (e) => {
    const rect = plot.getBoundingClientRect();
    read_at(x.back(((e.clientX - rect.left) / rect.width) * plot.viewBox.baseVal.width));
  });
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", (e) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageDown: 20, PageUp: -20 }[e.key];
    if (e.key === "Escape") hide();
    if (!step) return;
    e.preventDefault();
    index = Math.max(0, Math.min(longest.at.length - 1, index + step));
    read_at(longest.at[index]);
  });
}
