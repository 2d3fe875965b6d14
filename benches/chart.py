"""The results of `run.py` as a table and as a chart, and their place in the README.

Only Python's standard library. Nothing here measures.
"""

from xml.sax.saxutils import escape

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
HEAD = ["case", "on", "beside", "Plainfold", "the other", "result", "to reach", ""]


def table(rows, server):
    """The lines of a Markdown table."""
    cells = [
        [row["case"], row["place"], row["peer"], row["ours"], row["theirs"], f"**{row['value']}**", row["goal"], "yes" if row["met"] else "no"]
        for row in rows
    ]
    cells = [[cell.replace("|", "\\|") for cell in line] for line in cells]
    lines = ["| " + " | ".join(line) + " |" for line in [HEAD, ["---"] * len(HEAD), *cells]]
    return [*lines, "", f"The server: {server}."] if server else lines


def speedup(row):
    """How many times as fast as the other, or None where there is no other."""
    number = lambda text: float(text.removesuffix("/s").replace(",", "")) if text.endswith("/s") else None
    ours, theirs = number(row["ours"]), number(row["theirs"])
    return ours / theirs if ours and theirs else None


def svg(rows):
    """A bar for each comparison, on a logarithmic scale: how many times as fast as the other."""
    import math

    bars = [(f"{row['case']}, {row['place']}: beside {row['peer']}", speedup(row)) for row in rows if speedup(row)]
    left, right, line, top = 430, 60, 24, 34
    most = max(10.0, *(value for _, value in bars))
    scale = (960 - left - right) / (math.log10(most) - math.log10(0.5))
    at = lambda value: left + (math.log10(max(value, 0.5)) - math.log10(0.5)) * scale
    height = top + line * len(bars) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="960" height="{height}" font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{left}" y="18">times as fast as the other (logarithmic; the line is 1)</text>',
    ]
    for index, (name, value) in enumerate(bars):
        y = top + index * line
        begin, end = sorted((at(1.0), at(value)))
        color = "#2c7fb8" if value >= 1 else "#fdae61"
        parts.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect x="{begin:.1f}" y="{y}" width="{max(end - begin, 1):.1f}" height="16" fill="{color}"/>')
        parts.append(f'<text x="{end + 5:.1f}" y="{y + 13}">{value:.2f}</text>')
    parts.append(f'<line x1="{at(1):.1f}" y1="{top - 6}" x2="{at(1):.1f}" y2="{height - 8}" stroke="#444"/>')
    return "\n".join([*parts, "</svg>", ""])


def write(directory, lines, rows):
    """Puts both into their places."""
    readme = directory / "README.md"
    text = readme.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    body = "\n".join([BEGIN, "", *lines, "", "![How many times as fast as its peers](results.svg)", "", END])
    readme.write_text(before + body + after)
    (directory / "results.svg").write_text(svg(rows))
