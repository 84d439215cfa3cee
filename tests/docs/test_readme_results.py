"""The README's picture and table are those of the results in docs/results."""

import csv
import re
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from adamerge_core.errors import InputError
from dev.readme_results import PICTURE, README, RESULTS, written

ROOT = Path(__file__).parents[2]
_SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files that the command reads."""
    for path in (RESULTS, README, Path("suites/mini.yaml")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    return tmp_path


def change(path: Path, before: str, after: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1
    path.write_text(text.replace(before, after), encoding="utf-8")


def test_picture_and_readme_are_what_the_command_writes() -> None:
    """Else: python -m dev.readme_results."""
    for path, text in written(ROOT).items():
        assert (ROOT / path).read_text(encoding="utf-8") == text, path


def test_every_number_of_the_results_is_in_both(copy: Path) -> None:
    texts = written(copy)
    lines = list(csv.DictReader((copy / RESULTS).read_text(encoding="utf-8").splitlines()))
    drawn = [text.text for text in ElementTree.fromstring(texts[PICTURE]).iter(f"{_SVG}text")]
    shown = [text.removeprefix("★ ") for text in drawn if re.search(r"\d\.\d$", text)]
    wanted = []
    for line in lines:
        if line["protocol"] == "transductive":
            numbers = [f"{float(v):.1f}" for v in list(line.values())[3:]]
            wanted += numbers
            row = re.search(rf"^{line['method']} +(.*)$", texts[README], re.MULTILINE)
            assert row is not None
            assert row[1].replace("*", "").split() == numbers
    assert shown == wanted
    assert "seed 0" in texts[README]


def test_a_changed_result_changes_both(copy: Path) -> None:
    first = written(copy)
    (line,) = re.findall("^ties_merging,transductive,.*$", (copy / RESULTS).read_text(), re.M)
    *start, average = line.split(",")
    change(copy / RESULTS, line, ",".join([*start, "99.90"]))
    second = written(copy)
    assert average != "99.90"
    assert "★ 99.9" in second[PICTURE]
    assert "★ 99.9" not in first[PICTURE]
    assert re.search(r"^ties_merging .*99\.9\*$", second[README], re.MULTILINE)
    assert second[README].count("\n") == first[README].count("\n")


def test_results_of_other_methods_and_a_readme_without_marks_are_refused(copy: Path) -> None:
    text = (copy / RESULTS).read_text(encoding="utf-8")
    (copy / RESULTS).write_text(text.replace("ties_merging,", "tie,"), encoding="utf-8")
    with pytest.raises(InputError, match=r"tie.*python -m dev\.readme_results --from"):
        written(copy)
    (copy / RESULTS).write_text(text, encoding="utf-8")
    change(copy / README, "<!-- end of table -->", "")
    with pytest.raises(InputError, match="end of table"):
        written(copy)
