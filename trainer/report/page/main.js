// trainer/report/page/main.js -- controls, and the sections in their order.

function set_theme(theme) {
  document.documentElement.dataset.theme = theme;
  document.getElementById("theme").textContent = theme === "dark" ? "Light" : "Dark";
  redraw_all();
}
// "#dark" and "#light" in the address choose one, else the system's.
function first_theme() {
  const named = location.hash.slice(1);
  if (named === "dark" || named === "light") return named;
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

function add_controls() {
  const by_id = (id) => document.getElementById(id);
  const smoothed_text = () => {
    const last = Math.max(0, ...runs.map((r) => last_of(r, "train", "step") || 0));
    by_id("smoothed").textContent = state.smoothing === 0 ? "none" : `${si(Math.max(1, span_of(last)))} steps`;
  };
  by_id("smoothing").addEventListener("input", (e) => {
    state.smoothing = Number(e.target.value);
    smoothed_text();
    redraw_all();
  });
  smoothed_text();
  by_id("unit").addEventListener("change", (e) => { state.unit = e.target.value; redraw_all(); });
  for (const id of ["log_x", "log_y"]) by_id(id).addEventListener("change", (e) => { state[id] = e.target.checked; redraw_all(); });
  by_id("theme").addEventListener("click", () => set_theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => set_theme(first_theme()));
  for (const group of groups) {
    const several = group.runs.length > 1 ? h("span", { class: "muted" }, `\u00d7${group.runs.length}`) : null;
    by_id("legend").append(h("button", {
      class: "chip", type: "button", "aria-pressed": "true", title: group.runs.map((r) => r.dir).join("\n"),
      onclick: (e) => {
        const on = state.hidden.delete(group.name);
        if (!on) state.hidden.add(group.name);
        e.currentTarget.setAttribute("aria-pressed", on);
        redraw_all();
      } }, swatch(group), group.name, several));
  }
  if (!runs.length) by_id("controls").hidden = true;
}

function add_title() {
  const names = [...report.sweeps.map((w) => w.content.name || w.dir), ...(report.sweeps.length ? [] : groups.map((g) => g.name))];
  const title = names.length > 3 ? `${names.slice(0, 2).join(", ")} and ${names.length - 2} more` : names.join(", ");
  document.getElementById("title").textContent = title;
  document.title = `${title} \u2013 Sluice report`;
  const parts = [];
  const steps = runs.reduce((sum, r) => sum + (last_of(r, "train", "step") || 0), 0);
  const tokens = runs.reduce((sum, r) => sum + (last_of(r, "train", "step") || 0) * (tokens_a_step(r) || 0), 0);
  if (report.sweeps.length) parts.push(`${report.sweeps.length} ${report.sweeps.length > 1 ? "sweeps" : "sweep"}`);
  parts.push(`${runs.length} ${runs.length === 1 ? "run" : "runs"}`, `${whole(steps)} steps`);
  if (tokens) parts.push(`${si(tokens)} tokens`);
  document.getElementById("subtitle").textContent = parts.join(" \u00b7 ");
}

document.documentElement.dataset.theme = first_theme();
add_title();
add_controls();
for (const add of [sweep_sections, runs_section, loss_section, validation_section, training_section, experts_section, layers_section,
  evaluations_section, differences_section, events_section, problems_section]) add();
set_theme(first_theme());
