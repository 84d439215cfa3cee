"""The files around the code say what is so: hooks, citation, changelog, troubleshooting."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_hooks_are_local_and_run_what_the_checks_run() -> None:
    repositories = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert [each["repo"] for each in repositories] == ["local"]
    hooks = repositories[0]["hooks"]
    assert {hook["language"] for hook in hooks} == {"system"}
    entries = {hook["entry"] for hook in hooks}
    for target in ("lint", "types", "contract"):
        (recipe,) = re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", read("Makefile"), re.MULTILINE)
        assert set(re.findall(r"@\$\(BIN\)/(.*)", recipe)) <= entries


def test_the_hook_for_the_graph_accepts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    hooks = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"][0]["hooks"]
    (entry,) = [hook["entry"] for hook in hooks if hook["id"] == "dvc-yaml-fits"]
    monkeypatch.chdir(ROOT)
    exec(re.findall(r'"(.*)"', entry)[0], {})


def test_the_paper_is_cited() -> None:
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["authors"] == [{"name": "The adamerge authors"}]
    paper = citation["preferred-citation"]
    assert paper["title"] in read("README.md")
    for author in paper["authors"]:
        assert f"{author['family-names']}, {author['given-names']}" in read("README.md")


def test_versions_of_the_changelog_have_known_headings() -> None:
    text = read("CHANGELOG.md")
    assert re.findall(r"^## \[([\d.]+)\]", text, re.MULTILINE) == ["0.2.0", "0.1.0"]
    known = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= known


def messages() -> list[str]:
    """The messages of adamerge's own that the page on troubles names."""
    found = re.findall(r"\*\*`+(.*?)`+\*\*", read("docs/troubleshooting.md"))
    foreign = ("ERROR:", "WARNING:", "'./", "Body()", "dvc ")
    return [each for each in found if not each.startswith(foreign) and len(each.split()) > 2]


@pytest.fixture(scope="module")
def source() -> str:
    """All strings of the code, those over several lines joined."""
    files = [*ROOT.glob("flows/**/*.py"), *ROOT.glob("tasks/**/*.py"), ROOT / "Makefile"]
    files += ROOT.glob("adamerge_core/**/*.py")
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    return re.sub(r'"\s*\n\s*f?"', "", text)


@pytest.mark.parametrize("message", messages())
def test_a_message_of_the_page_on_troubles_is_one_of_the_program(message: str, source: str) -> None:
    """Word by word, but for names, numbers and paths."""
    parts = re.split(r"\S*[./'`<(\d]\S*", message)
    said = [part.strip(" ,:;`)") for part in parts if len(part.split()) > 2]
    assert [part for part in said if part not in source] == []
