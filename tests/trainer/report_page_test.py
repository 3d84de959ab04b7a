"""What a browser makes of a report: every section is drawn, no script fails, no coordinate is NaN.

usage: report_page_test.py SLUICE CHROMIUM
"""
import html.parser
import json
import pathlib
import re
import subprocess
import sys
import tempfile


def write_run(folder, variant):
    """20 steps with a spike, a gap and a damaged line; validation, layers, two evaluations."""
    (folder / "eval").mkdir(parents=True)
    lines = [{"event": "start", "step": 0}]
    for step in range(1, 21):
        loss = "nan" if step == 7 else 3 + variant + 1 / step
        lines.append({"event": "train", "step": step, "loss": loss, "lr": 0.1, "grad_norm": 1.0, "expert_load_worst": 2.0,
                      "something_new": step})
        if step == 9:
            lines.append({"event": "spike", "step": 9, "why": "large"})
        if step % 10 == 0:
            lines.append({"event": "valid.text", "step": step, "loss": 3.5, "bits_per_byte": 1.5})
            lines.append({"event": "layers", "step": step, "layers.0.decay_half_life_p10": 1.0,
                          "layers.0.decay_half_life_p50": 20.0, "layers.0.decay_half_life_p90": "inf",
                          "layers.1.max_attention_logit": 5.0, "layers.1.own": -1.0})
    lines.append({"event": "resume", "step": 20, "cpu": "<b>x</b>"})
    text = "\n".join(map(json.dumps, lines)) + '\n{"event":"tr'
    (folder / "metrics.jsonl").write_text(text)
    needle = {"kind": "needle", "lengths": [64, 128], "depths": [0, 0.5, 1], "accuracy": [[1, 1, 0.5], [0, 0.2, 0.4]]}
    position = {"kind": "by_position", "bucket_tokens": 64, "train_seq_len_tokens": 64,
                "buckets": [{"begin": 0, "end": 64, "loss": 3.0, "tokens": 9}, {"begin": 64, "end": 128, "loss": 2.0, "tokens": 9}]}
    choice = {"kind": "multiple_choice", "checkpoint_step": 20, "accuracy": 0.25}
    for name, content in {"needle": needle, "position": position, "choice": choice}.items():
        (folder / "eval" / f"{name}.json").write_text(json.dumps(content))


def write_sweep(folder):
    write_run(folder / "a-1", 0)
    write_run(folder / "b-1", 1)
    value = {"mean": 30.0, "spread": 0.5, "n": 3, "ns": True}
    rows = [{"variant": "a", "runs": ["a-1"], "values": {"ppl": value}},
            {"variant": "b </script>", "runs": ["b-1"], "values": {"ppl": {"mean": 31.0, "spread": None, "n": 1, "ns": False}}}]
    sweep = {"name": "sweep", "label": "a label", "columns": [{"key": "ppl", "title": "PPL", "better": "lower", "digits": 2}],
             "rows": rows, "failed": [{"run": "c-1", "why": "no reason"}],
             "fits": [{"name": "a", "a": 2.0, "b": 0.1, "points": [[1e15, 3.0], [1e16, 2.5]]}],
             "config_differences": {"a": {"model.linear": "kda"}, "b </script>": {"model.linear": "gdn"}}}
    (folder / "sweep.json").write_text(json.dumps(sweep))


class Page(html.parser.HTMLParser):
    """Sections with their figures and marks, bad attributes, and the text outside of scripts."""

    def __init__(self, dom):
        super().__init__()
        self.sections, self.bad, self.text, self.hidden = {}, [], "", False
        self.feed(dom)

    def handle_starttag(self, tag, attributes):
        self.hidden = tag in ("script", "style")
        values = dict(attributes)
        if tag == "section":
            self.now = self.sections.setdefault(values["id"], {"svg": 0, "path": 0, "rect": 0, "circle": 0, "td": 0})
        elif self.sections and tag in self.now:
            self.now[tag] += tag != "path" or bool(values.get("d"))
        self.bad += [f"{tag} {k}={v}" for k, v in attributes if re.search("NaN|undefined|Infinity", v or "")]

    def handle_endtag(self, tag):
        self.hidden = False

    def handle_data(self, data):
        self.text += "" if self.hidden else data


def check(sluice, chromium):
    with tempfile.TemporaryDirectory() as folder:
        sweep = pathlib.Path(folder) / "sweep"
        write_sweep(sweep)
        out = pathlib.Path(folder) / "report.html"
        said = subprocess.run([sluice, "report", str(sweep), "--out", str(out)], check=True, capture_output=True, text=True).stdout
        browser = subprocess.run(
            [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--user-data-dir={folder}/browser",
             "--window-size=1200,900", "--virtual-time-budget=3000", "--dump-dom", f"file://{out}#dark"],
            check=True, capture_output=True, text=True, timeout=100)
    page = Page(browser.stdout)
    errors = [line for line in browser.stderr.splitlines() if "CONSOLE" in line]
    errors += page.bad
    want = {"sweep-0": "svg path circle td", "runs": "td", "loss": "svg path", "validation": "svg path circle", "training": "svg path",
            "experts": "svg path", "layers": "svg path rect", "evaluations": "svg path rect td", "events": "td", "left-out": ""}
    for section, kinds in want.items():
        if section not in page.sections:
            errors.append(f"no section {section}")
            continue
        errors += [f"{section} has no {kind}" for kind in kinds.split() if page.sections[section][kind] == 0]
    for text in ("something_new", "b </script>", "<b>x</b>", "a label", "no reason", "n.s.", "2 values not finite", "1 of 28 lines are no records"):
        if text not in page.text and text not in said:
            errors.append(f"the page does not say {text!r}")
    return errors


if __name__ == "__main__":
    found = check(*sys.argv[1:])
    print("\n".join(found) or "report_page: ok")
    sys.exit(bool(found))
