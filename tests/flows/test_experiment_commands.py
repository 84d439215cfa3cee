"""`adamerge experiment`: settings put into params.yaml, what is said before a run, what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, Project, commit
from small_suite import copy_code, small_suite

from adamerge_core.errors import InputError
from flows import cli, commands, experiments
from flows.run_parameters import RunParameters
from tasks.graph import dvc_yaml
from tasks.suite.experiments.sections import EXPERIMENTS, settings_for
from tasks.suite.yaml_files import load_yaml

pytestmark = pytest.mark.usefixtures("project_folder")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = copy_code(tmp_path_factory.mktemp("project") / "small")
    project.write("suites/small.yaml", f"# mine\n{small_suite()}")
    commit(project.root)
    return project


@pytest.fixture
def project_folder(small: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose active suite is the small one, without experiments."""
    monkeypatch.chdir(small.root)
    assert cli.main(["suite", "use", "small", "--force"]) == 0
    return small.root


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[RunParameters]:
    """What would have been run."""
    found: list[RunParameters] = []

    def run(parameters: RunParameters, notify_with: str | None) -> int:
        found.append(parameters)
        return 0

    monkeypatch.setattr(commands, "run", run)
    return found


def params() -> dict[str, Any]:
    return dict(yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8")))


def run(*arguments: str) -> int:
    return experiments.run(["sensitivity"], None, None, None, arguments)


def test_the_list_has_the_questions_and_marks_what_the_suite_has(
    capsys: pytest.CaptureFixture[str], ran: list[RunParameters]
) -> None:
    assert cli.main(["experiment", "list"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in EXPERIMENTS)
    assert "what would a choice without labels have taken?" in shown
    assert run() == 0
    experiments.list_all()
    assert "* sensitivity" in capsys.readouterr().out


def test_show_has_question_settings_with_comments_and_stages(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["experiment", "show", "sensitivity"]) == 0
    shown = capsys.readouterr().out
    assert (ROOT / "experiments/sensitivity.yaml").read_text(encoding="utf-8") in shown
    assert "9 stages on the active suite, small" in shown  # eight rules, one adaptation
    assert "experiments" not in params()


def test_run_puts_the_settings_beside_the_suite_whose_comments_stay(
    ran: list[RunParameters],
) -> None:
    before = Path("params.yaml").read_text(encoding="utf-8")
    assert run() == 0
    text = Path("params.yaml").read_text(encoding="utf-8")
    assert text.startswith(before.rstrip())
    assert params()["experiments"] == {
        "sensitivity": settings_for("small", load_yaml(ROOT / "experiments/sensitivity.yaml"))
    }
    assert "sensitivity_ties_merging@small-0" in dvc_yaml.read()
    assert [each.reason for each in ran] == ["experiment sensitivity"]
    assert all(each.suite is None and not each.force for each in ran)
    assert run() == 0
    assert Path("params.yaml").read_text(encoding="utf-8") == text


def test_settings_are_changed_by_set_and_stay_when_it_is_run_again(
    ran: list[RunParameters], capsys: pytest.CaptureFixture[str]
) -> None:
    run("images=7", "sensitivity.scalings=[0.1, 1.0e-3]", "methods.ties_merging.keep=0.5")
    assert run() == 0
    assert (
        "settings of sensitivity: params.yaml, experiments.sensitivity" in capsys.readouterr().out
    )
    found = params()["experiments"]["sensitivity"]
    assert (found["images"], found["scalings"]) == (7, [0.1, 0.001])
    assert found["methods"]["ties_merging"] == {"rule": "ties_merging", "keep": 0.5}


def test_what_cannot_be_set_is_listed_and_nothing_is_written(ran: list[RunParameters]) -> None:
    before = Path("params.yaml").read_text(encoding="utf-8")
    with pytest.raises(InputError) as caught:
        run("images", "pictures.count=3")
    assert "'images': must be KEY=VALUE" in str(caught.value)
    assert "'pictures.count=3': sensitivity has no setting pictures" in str(caught.value)
    with pytest.raises(InputError, match=r"experiments.sensitivity.pictures: is no parameter"):
        run("pictures=3")
    with pytest.raises(InputError, match=r"'sensitive': is none; known are sensitivity"):
        experiments.run(["sensitive"], None, None, None, [])
    assert Path("params.yaml").read_text(encoding="utf-8") == before
    assert ran == []


def test_another_suite_and_seeds(ran: list[RunParameters]) -> None:
    assert experiments.run(["sensitivity"], "mini", [0, 2], None, ["images=9"]) == 0
    assert (params()["suite"], params()["seeds"]) == ("mini", [0, 2])
    assert experiments.run(["sensitivity"], "mini", None, None, []) == 0  # what is there stays
    assert params()["seeds"] == [0, 2]
    assert params()["experiments"]["sensitivity"]["images"] == 9
    assert cli.main(["suite", "use", "small"]) == 0  # experiments are no changes of the user's
    assert "experiments" not in params()
    text = Path("params.yaml").read_text(encoding="utf-8")
    Path("params.yaml").write_text(text.replace("captions_per_step: 16", "captions_per_step: 17"))
    with pytest.raises(InputError, match="changes of yours"):
        experiments.run(["sensitivity"], "mini", None, None, [])


def test_severities_are_those_of_corruptions_and_some_that_the_suite_makes(
    ran: list[RunParameters],
) -> None:
    def run(*arguments: str) -> int:
        return cli.main(["experiment", "run", "corruptions", "cost", *arguments])

    assert run("--severity", "3", "1") == 0
    assert params()["experiments"]["corruptions"]["severities"] == [3, 1]
    assert "severities" not in params()["experiments"]["cost"]
    assert run() == 0
    assert params()["experiments"]["corruptions"]["severities"] == [3, 1]
    with pytest.raises(InputError, match="--severity 3: is of corruptions alone"):
        experiments.run(["cost"], None, None, [3], [])
    rule = r"experiments.corruptions.severities: 7 must be one of corrupt.severities: 1, 2, 3"
    with pytest.raises(InputError, match=rule):
        experiments.run(["corruptions"], None, None, [7], [])
    with pytest.raises(InputError, match=r"severities = \[3, 3\]: each must stand once"):
        experiments.run(["corruptions"], None, None, [3, 3], [])


def test_sections_behind_the_experiments_stay(ran: list[RunParameters]) -> None:
    run()
    moved = params()
    del moved["suite"]
    text = yaml.safe_dump(moved, sort_keys=False) + "\n# the name\nsuite: small\n"
    Path("params.yaml").write_text(text, encoding="utf-8")
    assert run("images=5") == 0
    assert params() == {
        **moved,
        "experiments": {"sensitivity": moved["experiments"]["sensitivity"] | {"images": 5}},
        "suite": "small",
    }
    assert "\n# the name\nsuite: small\n" in Path("params.yaml").read_text(encoding="utf-8")


def test_before_it_runs_it_says_how_many_stages_are_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "run", lambda parameters, notify_with: 0)
    assert cli.main(["experiment", "run", "sensitivity"]) == 0
    assert "stages of the experiments: sensitivity 9\n" in capsys.readouterr().out
