"""Charts as the pages' script takes them: their numbers, what the pointer shows, no markup."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from report_inputs import lines_of, small_suite, write_inputs

from tasks.graph import paths
from tasks.report.charts import BarChart, Bars, HeatMap, Level, LineChart, Mark, Series
from tasks.report.content import Content
from tasks.report.experiments.wording import charted
from tasks.report.figures.interactive import library, plots
from tasks.report.pages import choice
from tasks.report.render import web_pages

HOSTILE = "</script><script>alert(1)</script>'\"&<b>%{y}\u2028\u202e"


def only(chart: LineChart | BarChart | HeatMap) -> dict[str, Any]:
    (plot,) = plots({"": chart})
    json.dumps(plot, allow_nan=False)
    return plot


def line_chart(label: str = "a rule", **changes: Any) -> LineChart:
    series = Series(label, [0, 0.5, 1], [40.25, 60.0, math.nan], [1.0, 2.0, 0.5])
    return LineChart(
        **{"x_title": "scaling", "y_title": "accuracy (%)", "series": [series]} | changes
    )


def test_a_line_has_its_points_spread_and_words() -> None:
    plot = only(
        line_chart(levels=[Level("adapted", 70.0)], marks=[Mark("best", "circle", [(0.5, 60)])])
    )
    line, level, mark = plot["data"]
    assert (line["x"], line["y"]) == ([0, 0.5, 1], [40.25, 60, None])
    assert line["error_y"]["array"] == [1, 2, 0.5]
    assert line["meta"] == ["a rule", "scaling", "accuracy (%)"]
    assert line["customdata"][:2] == [["0", "40.2 ± 1.00"], ["0.5", "60.0 ± 2.00"]]
    assert all(f"%{{{part}}}" in line["hovertemplate"] for part in ("meta[0]", "customdata[1]"))
    assert (level["x"], level["y"]) == ([0, 0.5, 1], [70, 70, 70])
    assert level["line"]["dash"] == "dash"
    assert (mark["x"], mark["y"], mark["marker"]["symbol"]) == ([0.5], [60], "circle-open")
    assert [trace["name"] for trace in plot["data"]] == ["a rule", "adapted", "best"]


def test_lines_differ_in_marker_and_dash_as_in_the_picture() -> None:
    series = [Series(str(n), [0], [n], line="solid" if n % 2 else "dashed") for n in range(9)]
    found = only(line_chart(series=series))["data"]
    assert len({(each["marker"]["symbol"], each["line"]["color"]) for each in found}) == 9
    assert [each["line"]["dash"] for each in found[:2]] == ["dash", "solid"]
    names = only(
        line_chart(series=[Series("it", [0, 1, 2], [1, 2, 3])], names=("few", "some", "all"))
    )
    assert names["layout"]["xaxis"]["ticktext"] == ["few", "some", "all"]
    assert names["data"][0]["customdata"][2][0] == "all"
    assert names["layout"]["xaxis"]["type"] == "linear"
    assert only(line_chart(x_scale="log"))["layout"]["xaxis"]["type"] == "log"


def test_bars_have_groups_and_numbers_where_these_are_few() -> None:
    chart = BarChart("points", ["one", "two"], [Bars("it", [3.0, 44.44])])
    plot = only(chart)
    (bars,) = plot["data"]
    assert (bars["type"], bars["y"], bars["text"]) == ("bar", [3, 44.44], ["3.00", "44.4"])
    assert plot["layout"]["xaxis"]["ticktext"] == ["one", "two"]
    many = BarChart("points", ["g"] * 25, [Bars("it", [1.0] * 25, [0.1] * 25)])
    (bars,) = only(many)["data"]
    assert "text" not in bars
    assert bars["error_y"]["array"] == [0.1] * 25


def test_a_heat_map_names_groups_of_rows_and_says_each_cell() -> None:
    chart = HeatMap(
        rows=["conv", "norm", "proj"],
        columns=["mnist", "signs"],
        values=[[0.1, 0.2], [0.3, math.nan], [0.5, 12.0]],
        scale_title="coefficient",
        limits=(0, 1),
        groups={"stem": 2, "head": 1},
    )
    plot = only(chart)
    (cells,) = plot["data"]
    assert cells["z"] == [[0.1, 0.2], [0.3, None], [0.5, 12]]
    assert (cells["zmin"], cells["zmax"]) == (0, 1)
    assert cells["hovertext"][2] == ["proj<br>mnist: 0.50", "proj<br>signs: 12.0"]
    rows = plot["layout"]["yaxis"]
    assert (rows["ticktext"], rows["tickvals"]) == (["stem", "head"], [0.5, 2.0])
    assert rows["autorange"] == "reversed"  # the first row is at the top
    assert [line["y0"] for line in plot["layout"]["shapes"]] == [1.5]


def test_without_groups_every_row_has_its_name() -> None:
    plot = only(HeatMap(["a", "b"], ["c"], [[1.0], [2.0]], "points"))
    assert plot["layout"]["yaxis"]["ticktext"] == ["a", "b"]
    assert plot["layout"]["shapes"] == []


@pytest.mark.parametrize(
    "chart",
    [
        line_chart(HOSTILE, x_title=HOSTILE, y_title=HOSTILE, names=[HOSTILE] * 3),
        line_chart(levels=[Level(HOSTILE, 1.0)], marks=[Mark(HOSTILE, "square", [(0, 1)])]),
        BarChart(HOSTILE, [HOSTILE], [Bars(HOSTILE, [1.0])]),
        HeatMap([HOSTILE], [HOSTILE], [[1.0]], HOSTILE, y_title=HOSTILE, groups={HOSTILE: 1}),
    ],
)
def test_names_are_shown_and_never_act(chart: Any, tmp_path: Path) -> None:
    """Neither as HTML, in the page, nor as what plotly takes for tags, in the chart."""
    suite = small_suite()
    write_inputs(suite, tmp_path)
    figure = charted("f", "title", "text", "alt", {HOSTILE: chart})
    page = web_pages(suite, {"results": Content(figures=[figure])}, tmp_path)["results.html"]
    assert "alert(1)</script>" not in page
    assert "\u202e" not in page
    assert "\\u202e" in page
    (block,) = re.findall('<script type="application/json">(.*?)</script>', page, re.DOTALL)
    assert re.findall("[<>&']", block) == []
    (plot,) = json.loads(block)
    assert plot["title"].startswith(HOSTILE[:30])  # text of the page, not of plotly
    seen = [
        plot["layout"]["xaxis"],
        plot["layout"]["yaxis"],
        *(
            {k: v for k, v in trace.items() if k not in ("name", "hovertemplate")}
            for trace in plot["data"]
        ),
    ]
    assert re.findall("<(?!br>)", json.dumps(seen)) == []


def test_the_library_is_whole_and_says_its_licence() -> None:
    text = library().decode()
    assert text.startswith("/**\n* plotly.js v")
    assert "Licensed under the MIT license" in text[:300]
    assert "newPlot" in text


def test_what_a_criterion_gave_is_shown_as_its_file_has_it(tmp_path: Path) -> None:
    """In percent, where it is a share."""
    suite = small_suite()
    write_inputs(suite, tmp_path)
    (figure,) = choice.show(suite, tmp_path).figures
    (first, *_) = plots(figure.panels)
    *tasks, average, mark = first["data"]
    file = tmp_path / paths.choice(suite.name, "task_arithmetic_best", suite.seeds[0])
    columns = list(zip(*(line.values() for line in lines_of(file)), strict=True))
    assert [list(map(float, c)) for c in columns[2:]] == [
        *(each["y"] for each in tasks),
        pytest.approx(average["y"], abs=1e-3),
    ]
    assert mark["y"] == [max(average["y"])]
    assert first["title"].endswith(f": {mark['x'][0]:g} chosen")
