"""`adamerge data`: what it says, and fetching as a process that is killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hub_server import REVISION, Hub, digest, serving, toy, write_entry

from adamerge_core.vision.datasets.hub_files import (
    HubCache,
    model_pin_path,
    pin_path,
    read_pin,
)
from flows import data
from tasks.running import environment

# the command, on a catalogue of the test's own
COMMAND = """\
import sys
from pathlib import Path
from adamerge_core.vision.datasets import published
published.CATALOGUE = Path("catalogue").absolute()
from flows.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_says_what_a_data_set_takes_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert data.list_all() == 0
    assert "pcam                 2 classes  262,144 + 32,768 images  about 6.87 GB" in (
        capsys.readouterr().out
    )
    assert data.show("eurosat") == 0
    shown = capsys.readouterr().out
    assert "download   about 94.3 MB" in shown
    assert "prepared 3.66 GB at 224 pixels" in shown
    assert "doubtful   21,600 training images: second-hand" in shown
    assert data.show("emnist_digits") == 0
    assert "is not read from the hub" in capsys.readouterr().out


def test_the_hub_is_reached_only_where_the_user_does_not_forbid_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(environment, "_set_here", set())
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # the user's
    environment.configure()
    environment.permit_hub()
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    monkeypatch.delenv("HF_HUB_OFFLINE")
    environment.configure()
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    environment.permit_hub()
    assert os.environ["HF_HUB_OFFLINE"] == "0"


def started(place: Path, hub: Hub, *arguments: str) -> subprocess.Popen[str]:
    settings = {
        "HF_ENDPOINT": hub.address,
        "HF_HUB_CACHE": str(place / "cache"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    offline = ("HF_HUB_OFFLINE", "HF_TOKEN")
    given = {key: value for key, value in os.environ.items() if key not in offline}
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "data", *arguments],
        cwd=place,
        env=given | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_killed_ten_times_ends_with_the_right_files_and_fetches_none_twice(tmp_path: Path) -> None:
    write_entry(tmp_path / "catalogue", 20, 10)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")  # which makes it a project
    moments = random.Random(0)
    with serving(toy(padding=100_000)) as hub:
        total = sum(len(d) for n, d in hub.files.items() if n.startswith(("data/t",)))
        hub.pace = 20 / (total / 4096)  # 20 seconds in all
        kills = 0
        while kills < 10:
            sent = sum(hub.sent.values())
            process = started(tmp_path, hub, "download", "toy")
            while process.poll() is None and sum(hub.sent.values()) == sent:
                time.sleep(0.02)  # it is starting
            time.sleep(moments.uniform(0, 0.5))
            assert process.poll() is None, process.communicate()[0]
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
        hub.pace = 0
        process = started(tmp_path, hub, "download", "toy")
        said = process.communicate()[0]
        assert process.returncode == 0, said
        assert "toy: 30 images of 2 classes: right" in said
        pin = read_pin(tmp_path / pin_path("toy"))
        cache = HubCache.of(pin, tmp_path / "cache")
        assert not cache.faults(pin.all_files())
        # of each kill at most what was on its way to a process that was no longer there
        for name, count in hub.sent.items():
            assert count <= len(hub.files[name]) + 10 * 2**20
        assert sorted(hub.sent) == sorted(file.path for file in pin.all_files())
        sent = dict(hub.sent)
        process = started(tmp_path, hub, "download", "toy")
        assert "toy: 0 files fetched" in process.communicate()[0]
        assert hub.sent == sent
        asked = len(hub.asked)
        process = started(tmp_path, hub, "verify", "toy")
        assert "right" in process.communicate()[0]
        assert len(hub.asked) == asked


@pytest.mark.slow
def test_the_models_of_the_suite_are_fetched_too(tmp_path: Path) -> None:
    """One that is not there is named, after the others are fetched."""
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    entries = "".join(
        f"    {task}: {{hub: {model}, revision: {REVISION}}}\n"
        for task, model in (("a", "org/none"), ("b", "org/name"))
    )
    (tmp_path / "params.yaml").write_text(f"checkpoints:\n  finetuned:\n{entries}")
    files = {"config.json": b"{}", "model.safetensors": b"weights", "tf_model.h5": b"others"}
    with serving(Hub("org/name", files, kind="models")) as hub:
        process = started(tmp_path, hub, "download")
        said = process.communicate()[0]
        assert process.returncode == 2
        assert "adamerge: org/none@" in said
        assert f"model 2/2: org/name@{REVISION}" in said
        (folder,) = (tmp_path / "cache").glob("models--org--name/snapshots/*")
        assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
        sent = dict(hub.sent)
        started(tmp_path, hub, "download").communicate()
        assert hub.sent == sent


def told(place: Path, hub: Hub, *arguments: str, code: int = 0) -> str:
    """Run the command to its end, of this code, and give what it prints."""
    process = started(place, hub, *arguments)
    said = process.communicate()[0]
    assert process.returncode == code, said
    return said


@pytest.mark.slow
def test_the_models_of_the_suite_are_pinned_at_the_first_download(tmp_path: Path) -> None:
    """`main` is resolved once; another commit than the pin's is an error with the fix."""
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    params = "checkpoints:\n  finetuned:\n    a: {hub: org/name, revision: main}\n"
    (tmp_path / "params.yaml").write_text(params)
    files = {"config.json": b"{}", "model.safetensors": b"weights", "README.md": b"# a model"}
    path = tmp_path / model_pin_path("org/name")
    with serving(Hub("org/name", files, kind="models")) as hub:
        told(tmp_path, hub, "download")
        content = json.loads(path.read_text())
        assert (content["model"], content["hub_id"]) == ("org/name", "org/name")
        assert content["revision"] == REVISION
        listed = {each["path"]: each["digest"] for each in content["files"]["model"]}
        assert listed == {
            name: digest(files[name]) for name in ("config.json", "model.safetensors")
        }

        other = REVISION[::-1]
        (tmp_path / "params.yaml").write_text(params.replace("main", other))
        said = told(tmp_path, hub, "download", code=2)
        assert f"is of commit {REVISION}, but the suite asks for {other}" in said
        assert f"adamerge data pin org/name --revision {other}" in said

        (tmp_path / "params.yaml").write_text(params)
        hub.files["model.safetensors"] = b"others!"  # the commit's files are others than they were
        (tmp_path / "cache").rename(tmp_path / "emptied")
        said = told(tmp_path, hub, "download", code=2)
        assert "has something else" in said
        assert json.loads(path.read_text()) == content
        before = hub.sent.copy()
        told(tmp_path, hub, "pin")  # of all that the suite reads
        assert json.loads(path.read_text()) != content
        assert hub.sent == before
        told(tmp_path, hub, "download")
        path.unlink()
        said = told(tmp_path, hub, "pin", "org/name", "--revision", REVISION)
        assert f"org/name: commit {REVISION}, 2 files" in said
