"""`python -m dev.readme_results` writes the README's picture and table from docs/results/mini.csv.

`--from data/suites/mini/report` first copies the results of that report there. How methods are
called and coloured is from suites/mini.yaml. Equal files give equal bytes.
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from adamerge_core.atomic import atomic_write
from adamerge_core.errors import InputError
from tasks.graph.paths import PROTOCOLS
from tasks.report.catalogue import Look, looks
from tasks.report.content import Cell
from tasks.report.results import RESULTS_CSV, read_rows, text_table
from tasks.report.rows import Row
from tasks.report.summaries import best_by_column, cells, summarise
from tasks.suite.fields import REFERENCES
from tasks.suite.schema import checked
from tasks.suite.yaml_files import load_yaml

ROOT = Path(__file__).parent.parent
RESULTS = Path("docs/results/mini.csv")
PICTURE = Path("docs/images/mini_results.svg")
README = Path("README.md")

_CAPTION = """\
![Accuracy of {methods} methods on the {tasks} tasks of the mini suite]({picture})

*The embedded `mini` suite, {seeds}: {tasks} small tasks, one image encoder for all of them. It is a
miniature; its numbers are not the paper's.*
"""

# of the picture, in pixels; characters are as wide as in the widest fonts, those in bold too
_ROW, _CHARACTER, _BOLD, _GAP, _SWATCH = 34, 7.7, 9.2, 18, 16
_STYLE = """\
svg { --page: #ffffff; --text: #1c1f24; --rule: #d5d9df; --strong: #5d6570; --shade: #0072b2; }
@media (prefers-color-scheme: dark) {
  svg { --page: #15181c; --text: #e6e8eb; --rule: #363c45; --strong: #a2aab5; --shade: #56b4e9; }
}
text { fill: var(--text); font: 14px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
.number { text-anchor: end; font-variant-numeric: tabular-nums; }
.bold { font-weight: 700; }
.italic { font-style: italic; }"""


def written(root: Path) -> dict[Path, str]:
    """Make the texts of the picture and of the README, by path, from the results below `root`.

    Raises InputError where results, suite and README do not fit together.
    """
    suite = checked(load_yaml(root / "suites/mini.yaml"), "suites/mini.yaml")
    rows = [row for row in read_rows(root / RESULTS) if row.protocol == PROTOCOLS[0]]
    of_suite = looks(suite.merging)
    shown_as = {name: of_suite[name] for name in (*suite.references, *suite.merging)}
    found = list(dict.fromkeys(row.method for row in rows))
    if found != list(shown_as):
        raise InputError(
            f"{RESULTS} has the methods {', '.join(found)}: suites/mini.yaml has "
            f"{', '.join(shown_as)}; run the suite, then: python -m dev.readme_results --from "
            "data/suites/mini/report"
        )
    seeds = list(dict.fromkeys(row.seed for row in rows))
    caption = _CAPTION.format(
        methods=len(found),
        tasks=len(suite.tasks),
        picture=PICTURE.as_posix(),
        seeds=f"seed {seeds[0]}"
        if len(seeds) == 1
        else f"mean over the seeds {', '.join(map(str, seeds))}",
    )
    references = {name for name, look in shown_as.items() if look.reference}
    table = f"```text\n{text_table(rows, references)}\n```\n"
    readme = (root / README).read_text(encoding="utf-8")
    for name, text in (("picture", caption), ("table", table)):
        readme = _replaced(readme, name, text)
    return {PICTURE: _picture(rows, shown_as, references), README: readme}


def _replaced(readme: str, name: str, text: str) -> str:
    """Put a text between the marks that a name has in the README."""
    start, end = f"<!-- {name}: python -m dev.readme_results -->\n", f"<!-- end of {name} -->"
    pattern = re.compile(f"(?<={re.escape(start)}).*?(?={re.escape(end)})", re.DOTALL)
    if len(pattern.findall(readme)) != 1:
        raise InputError(f"README.md must have once, in this order: {start.strip()} and {end}")
    return pattern.sub(lambda _: text, readme)


def _picture(rows: Sequence[Row], shown_as: Mapping[str, Look], references: set[str]) -> str:
    """Draw the table as SVG, in light and dark."""
    summaries = summarise(rows, PROTOCOLS[0])
    best = best_by_column(summaries, references)
    columns = list(best)
    names = [("method", "data used"), *((look.label, look.data) for look in shown_as.values())]
    widths = [_GAP + _CHARACTER * max(map(len, texts)) for texts in zip(*names, strict=True)]
    widths[0] += _SWATCH
    widths += [_GAP + _BOLD * max(len(column), 6) for column in columns]
    rights = [sum(widths[: count + 1]) for count in range(len(widths))]
    lines = [_heading(columns, rights)]
    for number, (name, summary) in enumerate(summaries.items(), 1):
        starred = {column for column in columns if name in best[column]}
        found = cells(summary, summaries.values(), starred)
        last = name == REFERENCES[-1]
        lines.append(_line(number, shown_as[name], found, rights, last))
    width, height = round(rights[-1]), _ROW * len(lines)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}">',
            f"<style>\n{_STYLE}\n</style>",
            f'<rect width="{width}" height="{height}" fill="var(--page)"/>',
            *lines,
            "</svg>\n",
        ]
    )


def _heading(columns: Sequence[str], rights: Sequence[float]) -> str:
    left = [_text(8, 0, "method", "bold"), _text(rights[0] + 8, 0, "data used", "bold")]
    numbers = [
        _text(right - 8, 0, column, "number bold")
        for column, right in zip(columns, rights[2:], strict=True)
    ]
    return "\n".join([*left, *numbers, _rule(0, rights[-1])])


def _line(
    number: int, look: Look, found: Sequence[Cell], rights: Sequence[float], last: bool
) -> str:
    parts = []
    for cell, left, right in zip(found, rights[1:], rights[2:], strict=False):
        parts.append(
            f'<rect x="{left:.1f}" y="{number * _ROW}" width="{right - left:.1f}" '
            f'height="{_ROW}" fill="var(--shade)" opacity="{0.38 * float(cell.shade or 0):.2f}"/>'
        )
        text = f"★ {cell.text}" if cell.best else cell.text
        parts.append(_text(right - 8, number, text, "number bold" if cell.best else "number"))
    if look.colour:
        parts.append(
            f'<rect x="8" y="{number * _ROW + 12}" width="10" height="10" rx="2" '
            f'fill="{look.colour}"/>'
        )
    parts.append(_text(8 + _SWATCH, number, look.label, "italic" if look.reference else ""))
    parts.append(_text(rights[0] + 8, number, look.data))
    return "\n".join([*parts, _rule(number, rights[-1], last)])


def _text(x: float, row: int, text: str, look: str = "") -> str:
    of_class = f' class="{look}"' if look else ""
    return f'<text x="{x:.1f}" y="{row * _ROW + 22}"{of_class}>{escape(text)}</text>'


def _rule(row: int, width: float, strong: bool = False) -> str:
    y, look = (row + 1) * _ROW - 0.5, "strong" if strong else "rule"
    return f'<path d="M0 {y}H{width:.1f}" stroke="var(--{look})"/>'


def main() -> None:
    """Write what follows from the results; with --from, bring the results first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--from", dest="report", type=Path, help="folder of a report of mini")
    report = parser.parse_args().report
    if report:
        with atomic_write(ROOT / RESULTS) as temporary:
            temporary.write_bytes((report / RESULTS_CSV).read_bytes())
    for path, text in written(ROOT).items():
        with atomic_write(ROOT / path) as temporary:
            temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
