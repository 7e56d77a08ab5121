#!/usr/bin/env python3
"""Draws the dashboard of the chart as SVG: its panels and queries, answered by a Prometheus. For the manual; Grafana itself draws
them in more detail.

  dashboard.py URL SECONDS >PICTURE   the last SECONDS that the Prometheus at URL knows
  dashboard.py digest                 of what a picture shows of the dashboard: a picture names that which it was drawn by
"""

import hashlib
import html
import json
import pathlib
import sys
import time
import urllib.parse
import urllib.request

DASHBOARD = pathlib.Path(__file__).resolve().parent.parent / "charts/tokensource-operator/files/dashboard.json"
COLUMN, ROW, GAP = 50, 30, 8
COLOURS = ["#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#b877d9", "#5794f2", "#fade2a"]
VARIABLES = {"$namespace": ".*", "$host": ".*", "$__rate_interval": "30s"}
STEPS = 120
# Of a character of a legend, which is smaller than other text: wider than most.
LETTER = 6.5


def panels():
    return json.loads(DASHBOARD.read_text())["panels"]


def unit_of(panel):
    return panel.get("fieldConfig", {}).get("defaults", {}).get("unit")


def digest():
    """Of panels in their places, units, queries and legends."""
    shown = [
        [panel["type"], panel["title"], panel["gridPos"], unit_of(panel), panel.get("options", {}).get("textMode"),
         [[target["expr"], target.get("legendFormat")] for target in panel.get("targets", [])]]
        for panel in panels()
    ]
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()


def ask(url, path, **parameters):
    with urllib.request.urlopen(f"{url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=30) as answer:
        return json.load(answer)["data"]["result"]


def query(target):
    text = target["expr"]
    for name, value in VARIABLES.items():
        text = text.replace(name, value)
    return text


def legend(target, labels):
    text = target.get("legendFormat", "")
    if text == "__auto":
        return " ".join(value for name, value in sorted(labels.items()) if name in ("source_namespace", "name"))
    for name in ("namespace", *labels, "pod"):
        text = text.replace("{{" + name + "}}", labels.get(name, ""))
    return text.strip()


def shown(value, unit):
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "bytes":
        return f"{value / 2**20:.3g} MiB"
    if unit == "s":
        return f"{value * 1000:.3g} ms" if abs(value) < 1 else f"{value:.0f} s"
    return f"{value:.2g}" + ("/s" if unit == "reqps" else "")


def text(x, y, content, size=12, fill="#ccccdc", anchor="start"):
    return f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{fill}" text-anchor="{anchor}">{html.escape(content)}</text>'


def fitting(content, width):
    """What fits into this width, by whole words."""
    if len(content) * LETTER <= width:
        return content
    whole = content[: int(width / LETTER)].rsplit(" ", 1)[0]
    return f"{whole} …"


def series(panel, url, begin, end):
    """The lines of a panel: legend and points."""
    for target in panel["targets"]:
        step = max((end - begin) / STEPS, 1)
        for found in ask(url, "query_range", query=query(target), start=begin, end=end, step=step):
            points = [(at, float(value)) for at, value in found["values"] if value not in ("NaN", "+Inf", "-Inf")]
            if points:
                yield legend(target, found["metric"]), points


def timeseries(panel, url, begin, end, width, height):
    unit = unit_of(panel)
    lines = sorted(series(panel, url, begin, end), key=lambda line: -max(value for _, value in line[1]))
    if not lines:
        yield text(width / 2, height / 2, "No data", 13, "#8e8e99", "middle")
        return
    left, top, right, names = 62, 34, 12, min(len(lines), 3)
    bottom = 12 + 15 * names
    highest = max(max(value for _, value in points) for _, points in lines) or 1
    for part in (0, 0.5, 1):
        y = top + (height - top - bottom) * (1 - part)
        yield f'<line x1="{left}" x2="{width - right}" y1="{y:.0f}" y2="{y:.0f}" stroke="#2c2f36"/>'
        yield text(left - 6, y + 4, shown(highest * part, unit), 10, "#8e8e99", "end")
    for number, (name, points) in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        path, last = "", None
        for at, value in points:
            x = left + (width - left - right) * (at - begin) / (end - begin)
            y = top + (height - top - bottom) * (1 - max(value, 0) / highest)
            gap = last is None or at - last > 3 * (end - begin) / STEPS
            path, last = f"{path}{'M' if gap else 'L'}{x:.1f} {y:.1f}", at
        yield f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        if number < names:
            y = height - 15 * (names - number) + 5
            yield f'<rect x="{right}" y="{y - 5:.0f}" width="12" height="3" fill="{colour}"/>'
            yield text(right + 18, y, fitting(name or panel["title"], width - 2 * right - 18), 11)
    if names < len(lines):
        yield text(width - right, 20, f"and {len(lines) - names} more", 11, "#8e8e99", "end")


def stat(panel, url, end, width, height):
    found = ask(url, "query", query=query(panel["targets"][0]), time=end)
    shows_name = panel.get("options", {}).get("textMode") == "name"
    first = found[0] if found else {"metric": {}, "value": [0, "0"]}
    name = legend(panel["targets"][0], first["metric"]) if shows_name else ""
    value = name or shown(float(first["value"][1]), unit_of(panel))
    yield text(width / 2, height / 2 + 22, value, 40 if len(value) < 6 else 15, "#73bf69", "middle")


def table(panel, url, end, width, height):
    found = ask(url, "query", query=query(panel["targets"][0]), time=end)
    rows = sorted(((float(one["value"][1]), one["metric"]) for one in found), key=lambda row: row[0])
    for number, (value, labels) in enumerate(rows[: int((height - 44) / 20)]):
        y = 54 + 20 * number
        yield text(12, y, f"{labels.get('source_namespace', '')}/{labels.get('name', '')}")
        yield text(width * 0.62, y, labels.get("reason", labels.get("host", "")), fill="#8e8e99")
        yield text(width - 12, y, shown(value, "s"), anchor="end")


def main(url, seconds):
    end = time.time()
    begin = end - float(seconds)
    size = max(it["gridPos"]["y"] + it["gridPos"]["h"] for it in panels()) * ROW + GAP
    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {24 * COLUMN + GAP} {size}" width="{24 * COLUMN + GAP}" '
          f'role="img" aria-label="The dashboard" data-dashboard="{digest()}"><rect width="100%" height="100%" fill="#111217"/>'
          '<g font-family="Inter, Helvetica, Arial, \'DejaVu Sans\', sans-serif">')
    for panel in panels():
        at = panel["gridPos"]
        x, y = at["x"] * COLUMN + GAP, at["y"] * ROW + GAP
        width, height = at["w"] * COLUMN - GAP, at["h"] * ROW - GAP
        if panel["type"] == "row":
            print(text(x + 2, y + 16, panel["title"], 15, "#ffffff"))
            continue
        print(f'<g transform="translate({x} {y})"><rect width="{width}" height="{height}" rx="3" fill="#181b1f" stroke="#2c2f36"/>')
        print(text(10, 20, panel["title"], 13, "#ffffff"))
        draw = {"stat": stat, "table": table}.get(panel["type"])
        parts = draw(panel, url, end, width, height) if draw else timeseries(panel, url, begin, end, width, height)
        print("\n".join(parts))
        print("</g>")
    print("</g></svg>")


if __name__ == "__main__":
    if sys.argv[1:] == ["digest"]:
        print(digest())
    elif len(sys.argv) == 3:
        main(*sys.argv[1:])
    else:
        sys.exit(__doc__)
