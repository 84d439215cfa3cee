"""The commands that need no suite, as a user types them, in a folder that is no project."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from small_classifiers import TIMM, write_classifiers
from small_clip import ARCHITECTURE, CLASSES, written_material

from flows import cli, model_options

PAIRS = [f"{name}={name}.safetensors" for name in CLASSES]
IMAGES = [f"{name}=images/{name}" for name in CLASSES]
MODEL = ["--model", ARCHITECTURE, "--pretrained", "clip.safetensors"]
MERGE = ["merge", *MODEL, "--finetuned", *PAIRS, "--method", "task_arithmetic"]
STEPS = ["steps=2", "images_per_task=2", "batches_per_step=1"]
ADAPT = ["merge", *MODEL, "--finetuned", *PAIRS, "--images", *IMAGES, "--method", "layer_wise"]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with written_material(tmp_path_factory.mktemp("material")) as folder:
        yield folder


@pytest.fixture(autouse=True)
def here(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signals: None) -> Path:
    """A folder with links to the material; the signals of the command are put back."""
    for path in material.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """What a command returns and says."""
    code = cli.main([*arguments])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_merge_then_evaluate(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    code, said = run(capsys, *ADAPT, "--set", *STEPS, "--out", "merged")
    assert code == 0, said
    assert "labels by their folders" in said
    assert "coefficients of colours: 0.3" in said
    (row,) = [line for line in said.splitlines() if line.startswith("merged  ")]
    code, said = run(capsys, "evaluate", "merged", "--images", *IMAGES)
    assert code == 0, said
    (again,) = [line for line in said.splitlines() if line.startswith("checkpoint ")]
    assert again.split()[1:] == row.split()[1:]


def test_a_parameter_of_the_rule_is_set(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = run(capsys, *MERGE, "--set", "scaling=0.4", "--out", "merged")
    assert code == 0, said
    assert "| scaling | 0.4 |" in Path("merged/README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "arguments",
    [
        [*ADAPT, "--set", *STEPS, "--out", "new"],
        ["convert", "colours.safetensors", *MODEL, "--to", "open_clip", "--out", "new"],
        ["finetune", *MODEL, "--images", "images/colours", "--out", "new.safetensors"],
        ["evaluate", "colours.safetensors", *MODEL, "--images", "colours=images/colours"],
        ["inspect", "colours.safetensors", *MODEL],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_dry_run_writes_nothing(
    capsys: pytest.CaptureFixture[str], here: Path, arguments: list[str]
) -> None:
    before = sorted(path.name for path in here.iterdir())
    code, said = run(capsys, *arguments, "--dry-run")
    assert code == 0, said
    assert "colours" in said
    for part in ("writes  ", "memory  ", "time  "):
        assert part in said
    assert sorted(path.name for path in here.iterdir()) == before


def test_finetune_then_inspect(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--images", "images/colours", "--held-out", "0.25", "--set", "steps=3"]
    code, said = run(capsys, "finetune", *MODEL, *options, "--out", "mine.safetensors")
    assert code == 0, said
    assert "top-1 on 3 images held out" in said
    files = ["mine.safetensors", "sides.safetensors"]
    code, said = run(capsys, "inspect", *files, "--pretrained", "clip.safetensors")
    assert code == 0, said
    assert "mine.safetensors: 32 tensors changed, norm" in said
    assert "cosines between them" in said


def test_a_classifier_from_files_to_its_library(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "classifiers"
    folder.mkdir()
    monkeypatch.chdir(folder)
    write_classifiers(TIMM, folder)
    model = ["--model", TIMM, "--pretrained", "pretrained.safetensors"]
    files = ["colours=colours.safetensors", "sides=sides.safetensors"]
    line = ["merge", *model, "--finetuned", *files, "--images", *IMAGES]
    code, said = run(capsys, *line, "--method", "weight_averaging", "--out", "merged", "--dry-run")
    assert code == 0, said
    assert "head: linear, the checkpoint's own, 3 classes" in said
    assert "recipe.json, timm/" in said
    code, said = run(capsys, *line, "--method", "weight_averaging", "--out", "merged")
    assert code == 0, said
    (row,) = [line for line in said.splitlines() if line.startswith("merged  ")]
    code, said = run(capsys, "evaluate", "merged", "--images", *IMAGES)
    assert code == 0, said
    assert said.splitlines()[-1].split()[1:] == row.split()[1:]
    code, said = run(capsys, "inspect", "merged/timm/sides", "sides.safetensors", *model)
    assert code == 0, said
    assert "a head of 2 classes, left, right" in said
    assert "a head of 2 classes, without names" in said
    out = ["--to", "timm", "--out", "folder"]
    code, said = run(capsys, "convert", "sides.safetensors", "--model", TIMM, *out)
    assert code == 0, said
    assert Path("folder/config.json").is_file()


def test_convert_for_transformers(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", ARCHITECTURE, "--to", "transformers", "--out", "folder"]
    code, said = run(capsys, "convert", "sides.safetensors", *options)
    assert code == 0, said
    assert Path("folder/config.json").is_file()


def test_all_faults_of_a_command_line_are_said_at_once(
    capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    (here / "merged").mkdir()
    (here / "merged/mine").write_text("mine")
    code, said = run(
        capsys,
        *["merge", "--model", "magic", "--pretrained", "clip.safetensors"],
        *["--finetuned", "colours", "sides=a", "sides=b", "--images", "moon=x"],
        *["--method", "task_arithmetic", "--set", "scaling", "speed=1"],
        *["--device", "abacus", "--threads", "0", "--out", "merged"],
    )
    assert code == 2
    for part in (
        "--finetuned 'colours': must be TASK=VALUE",
        "--finetuned 'sides=b': task sides stands twice",
        "--set 'scaling': must be NAME=VALUE",
        "--device 'abacus': must be auto, cpu or cuda",
        "--threads 0: must be at least 1",
        "--out = 'merged': something is there already",
        "model.architecture = 'magic': unknown",
        "'moon' is no task of finetuned",
        "speed: is no parameter",
    ):
        assert part in said
    assert "Traceback" not in said
    assert sorted(path.name for path in (here / "merged").iterdir()) == ["mine"]


def test_inspect_says_what_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken.safetensors").write_bytes(b"broken")
    code, said = run(capsys, "inspect", "broken.safetensors", "sides.safetensors", *MODEL)
    assert code == 2
    assert "fault: " in said
    assert "sides.safetensors: 32 tensors changed" in said


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x=0.4", 0.4),
        ("x=1e-3", 0.001),
        ("x=7", 7),
        ("x=true", True),
        ("x=null", None),
        ("x=layer_wise", "layer_wise"),
        ("x=[1, 2]", [1, 2]),
        ("x=a=b", "a=b"),
    ],
)
def test_values_are_read_as_what_they_are(text: str, value: object) -> None:
    faults: list[str] = []
    assert model_options.settings([text], faults) == {"x": value}
    assert faults == []


def test_progress_says_how_long_is_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("flows.model_options.time.monotonic", lambda: clock[0])
    tell = model_options.Progress()
    for step in range(11, 21):  # a run that goes on from its tenth step
        tell(step, 20, "steps, loss 0.5")
        clock[0] += 20
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "12 of 20 steps, loss 0.5, 2:40 left"
    assert lines[-1] == "20 of 20 steps, loss 0.5"


def test_a_miniature_becomes_a_folder_of_images(
    capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    line = ["data", "export", "signs", "signs", "--train", "44", "--test", "22"]
    code, said = run(capsys, *line)
    assert code == 0, said
    assert len(list((here / "signs/train").glob("*/*.png"))) == 44
    assert len(list((here / "signs/test").glob("*/*.png"))) == 22
    code, said = run(capsys, *line)
    assert code == 2
    assert "something is there already" in said
    code, said = run(capsys, "data", "export", "moon", "moon", "--train", "0")
    assert code == 2
    assert "train = 0: must be at least 1" in said
    assert "no miniature is called 'moon'" in said
