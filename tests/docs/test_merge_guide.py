"""The guide to merging checkpoints does what it says: its commands run in order, on few images."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
from PIL import Image
from small_clip import ARCHITECTURE, known_architecture, write_models

from flows import cli

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "merge_checkpoints.md").read_text(encoding="utf-8")
FEWER = {  # what is long in the guide
    r"steps=\d+": "steps=2",
    r"(data export .*)": r"\1 --train 44 --test 22",
    "ViT-B-32-quickgelu": ARCHITECTURE,  # whose weights cannot be here
    "openai": "clip.safetensors",
}


pytestmark = pytest.mark.usefixtures("signals")


def commands(text: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line]


def shortened(command: str) -> str:
    for pattern, fewer in FEWER.items():
        command = re.sub(pattern, fewer, command)
    return command


def run(text: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What the commands of a part of the guide print."""
    said = ""
    for command in commands(text):
        program, *arguments = shlex.split(shortened(command))
        assert program == "adamerge"
        code = cli.main(arguments)
        captured = capsys.readouterr()
        said += captured.out
        assert code == 0, f"{command}\n{captured.out}{captured.err}"
    return said


@pytest.mark.slow
def test_the_part_with_shipped_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shown, methods = GUIDE.split("## What a merge writes")
    said = run(shown, capsys) + run(methods.split("## Classifiers")[0], capsys)
    (table,) = re.findall(r"```text\n(.*?)```", GUIDE, re.DOTALL)
    for line in table.splitlines():
        assert re.search(rf"^{re.escape(line.split()[0])} .*$", said, re.MULTILINE)
    written = {path.name for path in (tmp_path / "merged").iterdir()}
    assert written <= set(re.findall(r"^\| `([\w.]+)", methods, re.MULTILINE))
    (block,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    assert len([line for line in block.splitlines() if line.strip()]) <= 10
    exec(block.replace('"steps": 60', '"steps": 2'), {})
    assert (tmp_path / "merged_by_python/README.md").is_file()


@pytest.mark.slow
def test_the_part_on_classifiers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exports = [line for line in commands(GUIDE) if "data export" in line]
    section = GUIDE.split("## Classifiers")[1].split("## CLIP")[0]
    said = run("```sh\n" + "\n".join(exports) + "\n```\n" + section, capsys)
    assert "head: linear, the checkpoint's own" in said
    for folder in ("merged_classifier/timm/signs", "signs_timm"):
        model = timm.create_model(f"local-dir:{folder}", pretrained=True)
        assert model.num_classes == len(list(Path("images/signs/train").iterdir()))


def test_the_part_on_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    with known_architecture():
        write_models(tmp_path)
        for task, own in {"mnist": "colours", "svhn": "sides"}.items():
            shutil.move(f"{own}.safetensors", f"{task}.safetensors")
            for digit in range(10):
                place = Path("images") / task / str(digit)
                place.mkdir(parents=True)
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / "0.png")
        run(GUIDE.split("## CLIP")[1], capsys)
    assert Path("merged_clip/open_clip/open_clip_config.json").is_file()
    assert Path("merged_clip/transformers/config.json").is_file()
    assert Path("svhn_open_clip/open_clip_model.safetensors").is_file()
