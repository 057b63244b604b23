"""A page with some pictures and captions of every source, as one file that needs nothing else."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from string import Template

from PIL import Image

from jobs.data.errors import BadSample
from jobs.data.sample import Sample, Source
from jobs.data.stream import permuted
from jobs.files import written_whole
from orchestrator.data_facts import DataFacts, Read
from orchestrator.report.palette import root_style
from orchestrator.views.data import HEADINGS, cells, sections

PICTURES = 12  # of each source
SIDE = 200  # pixels of a thumbnail's longer side
_TRIES = 60
_CAPTION = 400  # characters
_STYLE = """
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 32px 24px 64px; background: var(--page);
  color: var(--text); font: 15px/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums; }
h1 { font-size: 26px; } h2 { font-size: 18px; margin: 44px 0 4px; }
p { margin: 0 0 12px; color: var(--muted); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; }
th, td { padding: 6px 18px 6px 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th { color: var(--muted); font-weight: 500; white-space: nowrap; }
ul { padding-left: 20px; font-size: 14px; } li { overflow-wrap: anywhere; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(170px, 1fr)); gap: 14px; }
figure { margin: 0; padding: 10px; border-radius: 8px; background: var(--panel); }
figure div { height: 150px; display: flex; align-items: center; justify-content: center; }
img { max-width: 100%; max-height: 150px; }
figcaption { margin-top: 8px; overflow-wrap: anywhere; }
small { display: block; color: var(--muted); font-size: 12px; }
"""
_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>$title</title>
<style>
$style
</style>
</head>
<body>
$body
</body>
</html>
""")


def write_sheet(path: Path, name: str, facts: DataFacts, read: Mapping[str, Read]) -> Path:
    """Write the page; captions and names are text in it, whatever they hold."""
    title = f"Data of {name}"
    parts = [f"<h1>{escape(title)}</h1>", _table(facts)]
    for heading, rows in sections(facts):
        items = "".join(f"<li>{escape(row)}</li>" for row in rows)
        parts.append(f"<h2>{escape(heading.capitalize())}</h2><ul>{items}</ul>")
    for source, one in read.items():
        if one.source is not None:
            parts += _gallery(source, one.source)
    page = _PAGE.substitute(
        title=escape(title), style=f"{root_style()}\n{_STYLE}", body="\n".join(parts)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as part:
        part.write_text(page, encoding="utf-8")
    return path


def _table(facts: DataFacts) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in HEADINGS)
    rows = [cells(source, facts.unit) for source in facts.sources]
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _gallery(name: str, source: Source) -> list[str]:
    cards = [_card(sample) for sample in _some(source)]
    return [
        f"<h2>{escape(name)}</h2>",
        f"<p>{len(cards)} of {len(source):,} samples, drawn at random</p>",
        f'<div class="grid">{"".join(cards)}</div>',
    ]


def _some(source: Source) -> Iterator[Sample]:
    """A few usable samples in a fixed random order."""
    found = 0
    for place in range(min(len(source), _TRIES)):
        if found == PICTURES:
            return
        try:
            sample = source[permuted(place, len(source), 0)]
        except BadSample:
            continue
        found += 1
        yield sample


def _card(sample: Sample) -> str:
    width, height = sample.image.size
    small = sample.image.copy()
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=85)
    data = base64.b64encode(stream.getvalue()).decode()
    text = f"{sample.prompt}{sample.caption}"
    shown = text if len(text) <= _CAPTION else f"{text[:_CAPTION]} …"
    return (
        f'<figure><div><img alt="" src="data:image/jpeg;base64,{data}"></div>'
        f"<figcaption>{escape(shown)}<small>{escape(sample.key)}, {width} x {height}</small>"
        "</figcaption></figure>"
    )
