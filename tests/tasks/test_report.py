"""The report: what its pages read, show and find; equal metrics give equal bytes."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from experiment_inputs import experiments
from PIL import Image
from report_inputs import LAYERS, SEEDS, SUITES, TASKS, lines_of, small_suite, write_inputs

from adamerge_core.errors import InputError
from adamerge_core.layers import network_order
from tasks.graph import paths
from tasks.graph.paths import PROTOCOLS
from tasks.report import measurements, reads, results
from tasks.report.__main__ import write
from tasks.report.catalogue import PUBLISHED, looks, published
from tasks.report.figures.charts import picture
from tasks.report.pages.coefficients import LayerCoefficients, panels
from tasks.report.rows import Row
from tasks.report.summaries import Summary, best_by_column, lead, summarise
from tasks.shared.long_tables import MEASURED, read_long, write_long
from tasks.suite.fields import REFERENCES
from tasks.suite.methods import parse_methods
from tasks.suite.schema import Suite
from tasks.wiring import stages

METHODS = (*REFERENCES, *yaml.safe_load((SUITES / "mini.yaml").read_text())["methods"])
"""Of the suite mini, in the order of its file."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Suite, Path]:
    """A suite and a project's root in which its report has been written."""
    suite, root = small_suite(experiments=experiments()), tmp_path_factory.mktemp("project")
    write_inputs(suite, root)
    write(suite, root)
    return suite, root


@pytest.fixture
def pages(project: tuple[Suite, Path]) -> Path:
    suite, root = project
    return root / paths.report(suite.name)


def written(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


# --- tables in long form ------------------------------------------------------------------------


def test_a_table_in_long_form_gives_the_same_floats_back(tmp_path: Path) -> None:
    values = [100 / 3, 0.1 + 0.2, 5e-324, 1e300, *np.random.default_rng(0).uniform(0, 100, 50)]
    rows = [
        {**dict.fromkeys(MEASURED, "a, b"), "seed": 3, "value": float(value)} for value in values
    ]
    write_long(tmp_path / "long.csv", MEASURED, rows)
    assert read_long(tmp_path / "long.csv", MEASURED) == rows


def test_a_table_of_another_form_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    path.write_text("method,seed\nties_merging,0\n")
    with pytest.raises(InputError, match=r"columns are method, seed.*dvc repro"):
        read_long(path, MEASURED)
    path.write_text(f"{','.join(MEASURED)}\na,b,0,c,d,much\n")
    with pytest.raises(InputError, match=r"line 2.*much"):
        read_long(path, MEASURED)


# --- what is written ----------------------------------------------------------------------------


def test_results_csv_has_a_row_per_method_protocol_and_seed(
    project: tuple[Suite, Path], pages: Path
) -> None:
    suite, root = project
    lines = lines_of(pages / "results.csv")
    assert list(lines[0]) == ["method", "protocol", "seed", *TASKS, "average"]
    keys = [(line["method"], line["protocol"], int(line["seed"])) for line in lines]
    assert keys == [(m, p, s) for m in METHODS for p in PROTOCOLS for s in SEEDS]
    for line in lines:
        file = root / paths.evaluation(suite.name, line["method"], int(line["seed"]))
        measured = {
            row["task"]: row["value"]
            for row in read_long(file, MEASURED)
            if row["protocol"] == line["protocol"]
        }
        assert {t: line[t] for t in TASKS} == {t: f"{v:.2f}" for t, v in measured.items()}
        assert line["average"] == f"{sum(measured.values()) / len(measured):.2f}"


def test_corrupted_csv_names_corruption_and_severity(
    project: tuple[Suite, Path], pages: Path
) -> None:
    lines = lines_of(pages / "corrupted.csv")
    assert list(lines[0]) == ["corruption", "severity", "method", "seed", *TASKS[:2], "average"]
    assert {(line["corruption"], line["severity"]) for line in lines} == {
        ("clean", "0"),
        ("motion_blur", str(project[0].robustness.severity)),
    }
    assert len(lines) == 2 * 2 * len(SEEDS)
    assert all(re.fullmatch(r"\d+\.\d\d", line["average"]) for line in lines)


def test_what_is_written_is_what_is_declared(project: tuple[Suite, Path], pages: Path) -> None:
    suite, _ = project
    assert written(pages) == sorted(reads.outputs(suite))
    assert {
        path.relative_to(paths.report(suite.name)).as_posix() for path in reads.figures(suite)
    } == {name for name in written(pages) if name.endswith(".png")}


def test_two_runs_write_the_same_bytes(
    project: tuple[Suite, Path], pages: Path, tmp_path: Path
) -> None:
    suite, root = project
    shutil.copytree(root, tmp_path / "copy")
    again = tmp_path / "copy" / paths.report(suite.name)
    shutil.rmtree(again)
    write(suite, tmp_path / "copy")
    assert written(again) == written(pages)
    assert [p for p in written(pages) if (pages / p).read_bytes() != (again / p).read_bytes()] == []


@pytest.mark.parametrize("name", [n for page in reads.PAGES.values() for n in page.FIGURES])
def test_every_figure_is_a_picture_of_a_page_s_width(pages: Path, name: str) -> None:
    with Image.open(pages / "figures" / f"{name}.png") as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.width == 1500
        assert 400 <= picture.height <= 3000
        assert "Software" not in picture.info
        assert len(np.unique(np.asarray(picture.convert("L")))) > 20


def test_static_files_are_all_declared() -> None:
    package = Path(reads.__file__).parent
    found = {p for p in package.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")}
    assert found == {package.parents[1] / path for path in reads.STATIC}


# --- what is read -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", reads.PAGES)
def test_a_page_reads_what_it_declares(
    project: tuple[Suite, Path], tmp_path: Path, name: str
) -> None:
    """With these files alone it can be made; without any one of them it cannot."""
    suite, root = project
    page = reads.PAGES[name]
    files = [tmp_path / path for path in page.reads(suite)]
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / path.relative_to(tmp_path), path)
    shown = page.show(suite, tmp_path)
    assert tuple(figure.name for figure in shown.figures) == page.FIGURES
    assert tuple(shown.files) == page.FILES
    for path in files:
        path.rename(tmp_path / "away")
        with pytest.raises((FileNotFoundError, InputError), match=re.escape(path.name)):
            page.show(suite, tmp_path)
        (tmp_path / "away").rename(path)


def test_the_stage_depends_on_all_that_the_report_reads_and_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(SUITES.parent)
    suite = small_suite()
    stage = stages(suite)["report@mini"]
    package = Path("tasks/report")
    code = {p.as_posix() for p in package.rglob("*.py") if p.name != "__init__.py"}
    files = {path.as_posix() for path in (*reads.reads(suite), *reads.STATIC)}
    assert code | files <= set(stage.deps)
    folder = paths.report(suite.name)
    assert set(stage.outs) == {(folder / name).as_posix() for name in reads.outputs(suite)}


def test_missing_files_are_listed_at_once(project: tuple[Suite, Path], tmp_path: Path) -> None:
    suite, root = project
    shutil.copytree(root / "data", tmp_path / "data")
    missing = [
        tmp_path / paths.evaluation(suite.name, "ties_merging", 1),
        tmp_path / paths.choice(suite.name, "task_arithmetic_best", 0),
        tmp_path / paths.corrupted("signs", suite.size, "motion_blur"),
    ]
    for path in missing:
        path.unlink()
    with pytest.raises(InputError, match="dvc repro") as error:
        write(suite, tmp_path)
    assert [str(path) in str(error.value) for path in missing] == [True] * 3
    assert str(error.value).count("does not exist") == 3


def test_metrics_of_other_tasks_are_listed_at_once(tmp_path: Path) -> None:
    files = {("pretrained", seed): tmp_path / f"{seed}.csv" for seed in SEEDS}
    for path in files.values():
        row = dict(
            zip(MEASURED, ("pretrained", "held_out", 0, "mnist", "accuracy", 5.0), strict=True)
        )
        write_long(path, MEASURED, [row])
    with pytest.raises(InputError, match="dvc repro") as error:
        measurements.evaluations(files, ["mnist", "signs"])
    assert str(error.value).count("no accuracy of signs") == 4
    assert str(error.value).count("no accuracy of mnist, protocol transductive") == 2


def test_asking_what_is_read_imports_neither_torch_nor_matplotlib() -> None:
    heavy = {"torch", "pandas", "matplotlib", "jinja2"}
    code = f"import sys, tasks.report.reads; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- the pages ----------------------------------------------------------------------------------


def test_every_page_is_self_contained(project: tuple[Suite, Path], pages: Path) -> None:
    names = {path.name for path in pages.glob("*.html")}
    assert names == {"index.html", *(f"{name}.html" for name in reads.pages(project[0]))}
    for name in names:
        page = (pages / name).read_text(encoding="utf-8")
        assert re.findall(r"https?://|<link|@import|url\(|<[^>]* on\w+=", page) == []
        drawn = bool(re.search('<script type="application/json">', page))
        scripts = [each for each in re.findall("<script[^>]*>", page) if "json" not in each]
        assert scripts == (['<script defer src="plotly.min.js">', "<script>"] if drawn else [])
        pictures = re.findall(r'src="([^"]{22})', page)
        assert set(pictures) <= {"data:image/png;base64,"}
        anchors = re.findall(r'(?:href="#|aria-labelledby=")([^"]+)"', page)
        assert set(anchors) <= set(re.findall(r'id="([^"]+)"', page))
        assert set(re.findall(r'href="(\w+\.html)', page)) == names
        assert page.count('aria-current="page"') == 1


def test_index_and_markdown_show_every_average(pages: Path) -> None:
    page = (pages / "index.html").read_text(encoding="utf-8")
    text = (pages / "report.md").read_text(encoding="utf-8")
    facts = json.loads((pages / "methods.json").read_text())
    rows = [
        Row(r["method"], r["protocol"], int(r["seed"]), {"average": float(r["average"])})
        for r in lines_of(pages / "results.csv")
    ]
    for protocol in PROTOCOLS:
        for method, summary in summarise(rows, protocol).items():
            assert summary.deviation is not None
            mean, deviation = summary.mean["average"], summary.deviation["average"]
            assert f"{mean:.1f}<small>±{deviation:.1f}</small>" in page
            label = re.escape(facts[method]["label"])
            row = rf"^\| \*?{label}\*? \|.* (\*\*)?{mean:.1f} ±{deviation:.1f}"
            assert re.search(row, text, re.MULTILINE)
    assert "adamerge lineage data/suites/mini/report/results.csv" in page


def test_a_page_names_the_commands_that_make_it(project: tuple[Suite, Path], pages: Path) -> None:
    page = (pages / "coefficients.html").read_text(encoding="utf-8")
    seeds = " ".join(map(str, project[0].seeds))
    assert f"adamerge suite use mini --seeds {seeds} &amp;&amp; adamerge run\n" in page
    assert "adamerge lineage data/suites/mini/report/coefficients.html" in page


def test_markdown_is_whole(project: tuple[Suite, Path], pages: Path) -> None:
    text = (pages / "report.md").read_text(encoding="utf-8")
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    shown = [path.read_text(encoding="utf-8") for path in pages.glob("*.html")]
    assert len(tables) == sum(page.count("<table") for page in shown if "<h1>Merging" not in page)
    assert len(tables) > 14
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1
        assert len(table.splitlines()) > 2
    linked = re.findall(r"!\[.*\]\((.*)\)", text)
    assert linked == [
        p.relative_to(paths.report("mini")).as_posix() for p in reads.figures(project[0])
    ]


def test_pages_with_nothing_to_show_are_left_out(tmp_path: Path) -> None:
    suite = small_suite(
        methods={"plain": {"rule": "task_arithmetic", "scaling": 0.3}},
        seeds=[7],
    )
    assert list(reads.pages(suite)) == ["results", "task_vectors", "robustness", "samples"]
    write_inputs(suite, tmp_path)
    write(suite, tmp_path)
    pages = tmp_path / paths.report(suite.name)
    assert written(pages) == sorted(reads.outputs(suite))
    assert len(lines_of(pages / "results.csv")) == 4 * len(PROTOCOLS)
    page = (pages / "index.html").read_text(encoding="utf-8")
    assert "seed 7" in page
    assert "how much the numbers vary over seeds is not known" in page


def test_a_suite_of_many_methods_has_a_report(tmp_path: Path) -> None:
    suite = small_suite("mini_methods", seeds=[0])
    write_inputs(suite, tmp_path)
    write(suite, tmp_path)
    pages = tmp_path / paths.report(suite.name)
    methods = [*REFERENCES, *suite.merging]
    assert len(methods) > 25
    lines = lines_of(pages / "results.csv")
    assert [line["method"] for line in lines] == [m for m in methods for _ in PROTOCOLS]
    facts = json.loads((pages / "methods.json").read_text())
    assert list(facts) == methods
    assert len({fact["label"] for fact in facts.values()}) == len(methods)
    assert facts["layer_wise_supervised"]["reference"]
    page = (pages / "results.html").read_text(encoding="utf-8")
    assert "those below it learned from the true labels of the test images" in page
    assert page.count('<tr class="reference last">') == 2 + 1  # the line below the three
    assert page.count('<tr class="reference ">') == 2 * 3 + 2


def test_names_are_escaped(project: tuple[Suite, Path]) -> None:
    from tasks.report.content import Content, Line, Table
    from tasks.report.render import web_pages

    suite, root = project
    table = Table("t", "a<b>&", "", ("a<b>&",), (), [Line(("a<b>&",), [])])
    page = web_pages(suite, {"results": Content([table], findings=["a<b>&"])}, root)["results.html"]
    assert "a<b>" not in page
    assert page.count("a&lt;b&gt;&amp;") == 4


# --- findings -----------------------------------------------------------------------------------


def findings(suite: Suite, root: Path, levels: dict[str, float]) -> str:
    write_inputs(suite, root, levels)
    return "\n".join(reads.PAGES["results"].show(suite, root).findings)


def test_findings_change_with_the_numbers(tmp_path: Path) -> None:
    suite = small_suite()
    base = {**dict.fromkeys(METHODS, 60.0), "pretrained": 50.0, "individual": 95.0}
    first = findings(suite, tmp_path, base | {"layer_wise_adamerging": 80.0})
    assert "Layer-wise AdaMerging is the best merged model: 80." in first
    assert re.search(r"(19|20)\.\d points above Task arithmetic \(60\.\d ± 0\.\d %\)", first)
    assert "Layer-wise AdaMerging is below the zero-shot model on no task." in first
    second = findings(suite, tmp_path, base | {"ties_merging": 70.0, "task_arithmetic": 40.0})
    assert "Ties-Merging is the best merged model: 70." in second
    assert re.search(r"(29|30)\.\d points above Task arithmetic", second)
    assert re.search(
        r"Task arithmetic is below the zero-shot model on signs \(40\.\d against", second
    )
    for said, above in ((first, 3), (second, 4)):  # of one adaptation; of all from one baseline
        of_the_best, _, counted = said.partition("\nOf 12 differences")
        assert "not shown" not in of_the_best
        assert f"{above} are shown to be above 0" in counted
    third = findings(suite, tmp_path, base | {"ties_merging": 70.0, "layer_wise_adamerging": 70.0})
    assert re.search(
        r"not shown \(95 % interval of the difference -?0\.\d to \d\.\d\), the next", third
    )


def test_what_a_page_finds_stands_on_it(pages: Path) -> None:
    """Every number of a finding is in a table or a figure's text of the same page."""
    for path in pages.glob("*.html"):
        if path.stem in ("index", "results"):  # their findings have differences of the numbers
            continue
        page = path.read_text(encoding="utf-8")
        found = "".join(re.findall(r'<ul class="findings">.*?</ul>', page, re.DOTALL))
        rest = page.replace(found, "")
        rest = re.sub(r"base64,[^\"]+", "", rest).split("<main", 1)[1]
        rest = re.sub("<script.*?</script>", "", rest, flags=re.DOTALL)
        for sentence in re.findall("<li>(.*?)</li>", found, re.DOTALL):
            numbers = set(re.findall(r"(?<![\w.])\d+\.\d+", sentence))
            apart = re.findall(r"([\d.]+) (?:points|nats) (?:above|below)", sentence)
            assert set(apart) <= differences(numbers), sentence
            stated = numbers - set(apart)
            assert {n for n in stated if not re.search(rf"(?<![\d.]){n}(?!\d)", rest)} == set()


def differences(numbers: set[str]) -> set[str]:
    """How far any two numbers are apart, written with as many decimals."""
    return {
        f"{abs(float(one) - float(other)):.{len(other.partition('.')[2])}f}"
        for one in numbers
        for other in numbers
    }


def test_a_difference_within_the_spread_is_not_shown() -> None:
    def summary(mean: float, deviation: float | None) -> Summary:
        spread = None if deviation is None else {"average": deviation}
        return Summary({"average": mean}, spread)

    assert (
        lead(summary(72.04, 0.1), summary(70.0, 0.1), "it") == "2.0 points above it (70.0 ± 0.1 %)"
    )
    assert lead(summary(68.0, None), summary(70.0, None), "it") == "2.0 points below it (70.0 %)"
    assert lead(summary(70.04, 0.0), summary(70.0, 0.0), "it").startswith("level with it")
    close = lead(summary(72.0, 2.0), summary(70.0, 1.0), "it")
    assert close.endswith("not shown: the spread over seeds is as large")


def test_mean_and_sample_deviation_over_seeds() -> None:
    values = np.random.default_rng(3).uniform(0, 100, (4, 2))
    rows = [
        Row("ties_merging", "held_out", seed, {"mnist": mnist, "average": average})
        for seed, (mnist, average) in enumerate(values)
    ]
    summary = summarise(rows, "held_out")["ties_merging"]
    assert list(summary.mean.values()) == pytest.approx(values.mean(axis=0))
    assert summary.deviation is not None
    assert list(summary.deviation.values()) == pytest.approx(values.std(axis=0, ddof=1))
    assert summarise(rows[:1], "held_out")["ties_merging"].deviation is None
    assert summarise(rows, "transductive") == {}


def test_the_best_of_a_column_is_a_merged_model_and_may_be_several() -> None:
    summaries = {
        name: Summary({"mnist": value}, None)
        for name, value in (
            ("individual", 99.0),
            ("task_arithmetic", 9.97),
            ("ties_merging", 70.02),
            ("layer_wise_adamerging", 70.04),
        )
    }
    best = best_by_column(summaries, REFERENCES)
    assert best == {"mnist": {"ties_merging", "layer_wise_adamerging"}}


# --- the terminal, the best model ---------------------------------------------------------------


def test_text_table_shows_all_methods_in_aligned_columns(
    project: tuple[Suite, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    suite, root = project
    monkeypatch.chdir(root)
    text = results.text_table(results.read(suite.name), results.references(suite.name))
    for table, protocol in zip(text.split("\n\n"), PROTOCOLS, strict=True):
        title, _, head, _, *lines, _, _ = table.splitlines()
        assert title.startswith(protocol)
        assert [line.split()[0] for line in lines] == list(METHODS)
        ends = [match.end() for match in re.finditer(r"\S+", head)][1:]
        for line in lines:
            assert [match.end() for match in re.finditer(r"±\d+\.\d", line)] == ends
        assert [line.split()[0] for line in lines if "*" in line] != []
        assert not any("*" in line for line in lines if line.split()[0] in REFERENCES)
    assert results.text_table([], REFERENCES) == ""


def test_what_learns_from_true_labels_is_a_reference_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert results.references("some") == {*REFERENCES}  # nothing has run yet
    folder = paths.report("some")
    folder.mkdir(parents=True)
    facts = {"taught": {"reference": True}, "merged": {"reference": False}}
    (folder / "methods.json").write_text(json.dumps(facts))
    references = results.references("some")
    assert references == {*REFERENCES, "taught"}
    levels = {**dict.fromkeys(REFERENCES, 60.0), "taught": 99.0, "other": 70.0, "merged": 71.0}
    rows = [
        Row(method, protocol, 0, {"mnist": level, "average": level})
        for method, level in levels.items()
        for protocol in PROTOCOLS
    ]
    starred = re.findall(r"^(\w+) .*\d\*", results.text_table(rows, references), re.MULTILINE)
    assert starred == ["merged"] * len(PROTOCOLS)
    best = results.best_merged(rows, references)
    assert best is not None
    assert (best.method, best.protocol) == ("merged", "held_out")
    assert results.best_merged([row for row in rows if row.protocol != "held_out"], set()) is None


def test_the_best_method_is_that_of_all_seeds_and_its_model_of_the_first() -> None:
    """The seed that is best on the test images would be chosen by them."""
    averages = {("steady", 0): 70.0, ("steady", 1): 71.0, ("lucky", 0): 60.0, ("lucky", 1): 80.0}
    rows = [
        Row(method, "held_out", seed, {"mnist": value, "average": value})
        for (method, seed), value in averages.items()
    ]
    best = results.best_merged(rows, REFERENCES)
    assert best is not None
    assert (best.method, best.seed) == ("steady", 0)


# --- how methods are shown ----------------------------------------------------------------------


def label(entry: dict[str, Any]) -> str:
    return looks(parse_methods({"free_name": entry}))["free_name"].label


def test_labels_come_from_parts() -> None:
    assert label({"rule": "tsv_m"}) == "TSV-M"
    scalings = {"scaling": [0.1, 0.2]}
    chosen = {"rule": "task_arithmetic", "choose": {**scalings, "by": "accuracy"}}
    assert label(chosen) == "Task arithmetic, best scaling"
    chosen["choose"] = {**scalings, "by": "entropy"}
    assert label(chosen) == "Task arithmetic, scaling chosen by entropy"
    assert label({"adapt": "layer_wise"}) == "Layer-wise AdaMerging"
    assert label({"adapt": "task_wise", "before": "trim_and_elect"}) == "Task-wise AdaMerging++"
    tsv = {"adapt": "layer_wise", "before": "tsv_decorrelate", "clamp": "none"}
    assert label(tsv) == "Layer-wise over TSV"
    taught = {"adapt": "layer_wise", "objective": "cross_entropy"}
    assert label(taught) == "Layer-wise, true labels"
    assert label(tsv | {"preset": "fast"}) == "Layer-wise over TSV, self-labelling"
    assert label({"adapt": "singular_components", "clamp": "none"}) == "AdaRank"


def test_equal_parts_are_told_apart_by_name_and_colour() -> None:
    shown = looks(
        parse_methods(
            {
                "ties_02": {"rule": "ties_merging", "keep": 0.2},
                "ties_05": {"rule": "ties_merging", "keep": 0.5},
                "short": {"adapt": "layer_wise", "steps": 10},
                "long": {"adapt": "layer_wise", "steps": 500},
            }
        )
    )
    assert shown["ties_02"].label == "Ties-Merging (ties_02)"
    assert shown["ties_05"].label == "Ties-Merging (ties_05)"
    assert shown["long"].label == "Layer-wise AdaMerging (long)"
    assert None not in (shown["short"].colour, shown["long"].colour)
    assert shown["short"].colour != shown["long"].colour


def test_methods_say_what_they_used() -> None:
    shown = looks(
        parse_methods(
            {
                "plain": {"rule": "task_arithmetic", "scaling": 0.3},
                "chosen": {
                    "rule": "task_arithmetic",
                    "choose": {"scaling": [0.1], "by": "accuracy"},
                },
                "unlabeled": {"adapt": "layer_wise"},
                "taught": {"adapt": "layer_wise", "objective": "cross_entropy"},
            }
        )
    )
    assert shown["plain"].data == shown["pretrained"].data == "none"
    assert shown["chosen"].data.startswith("labels")
    assert shown["unlabeled"].data == "unlabeled images"
    assert shown["taught"].data.startswith("labels")
    references = [name for name, look in shown.items() if look.reference]
    assert references == [*REFERENCES, "taught"]


# --- figures ------------------------------------------------------------------------------------


def test_layers_are_ordered_from_shallow_to_deep() -> None:
    order, blocks = network_order(LAYERS)
    assert [LAYERS[index] for index in order] == [
        "trunk.conv_stem.weight",
        "trunk.blocks.2.0.conv.weight",
        "trunk.blocks.10.0.conv.weight",
        "head.proj.weight",
        "trunk.bn2.weight",
    ]
    assert {name: len(rows) for name, rows in blocks.items()} == {
        "stem": 1,
        "blocks.2": 1,
        "blocks.10": 1,
        "head": 2,
    }
    vit = ["ln_post.weight", "transformer.resblocks.11.ln_1.bias", "class_embedding", "proj"]
    assert list(network_order(vit)[1]) == ["stem", "resblocks.11", "head"]


def test_coefficients_above_one_are_not_drawn_as_one() -> None:
    """As where an adaptation does not clamp."""
    import io

    names, high = ["blocks.0.weight", "blocks.1.weight"], np.array([[0.5, 1.0], [0.2, 2.0]])
    shown = looks(parse_methods({"it": {"adapt": "layer_wise"}}))

    def drawn(values: np.ndarray) -> bytes:
        found = LayerCoefficients(values, names, ["a", "b"])
        return picture(panels({"it": found}, [0.3], shown))

    assert drawn(high) == drawn(high.copy())
    first, second = (np.asarray(Image.open(io.BytesIO(drawn(v)))) for v in (high, high.clip(0, 1)))
    assert first.shape == second.shape
    assert not np.array_equal(first[:, : first.shape[1] // 3], second[:, : second.shape[1] // 3])


def test_published_figures_stand_beside_those_of_their_own_line_alone() -> None:
    """Trap 9 of real checkpoints: the three lines differ by points on the same tasks."""
    individual = {
        line: published(line, "ViT-B-32-quickgelu", 8).averages["individual"]
        for line in ("task_vectors", "tall", "fusionbench")
    }
    assert individual == {"task_vectors": 90.5, "tall": 92.83, "fusionbench": 90.38}
    paper = published(None, "efficientnet_lite0_clip", 20)
    assert (paper.line, paper.model, paper.tasks) == ("task_vectors", "ViT-B-32", 8)
    assert paper.averages["layer_wise_adamerging_pp"] == 81.1
    assert published("tall", "ViT-L-14-quickgelu", 20).averages["tsv_m"] == 87.71
    assert published("mine", "ViT-B-32", 8).averages == {}


def test_every_published_figure_has_a_source() -> None:
    rows = list(csv.DictReader(PUBLISHED.read_text(encoding="utf-8").splitlines()))
    assert all(row["source"] and 0 < float(row["average"]) < 100 for row in rows)
    keys = [(row["line"], row["tasks"], row["model"], row["method"]) for row in rows]
    assert len(set(keys)) == len(keys) > 100
