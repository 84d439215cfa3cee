"""Registered models, loaded and asked: real ones, their predictions those of the evaluation."""

import base64
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from PIL import Image
from registered_suite import register_suite, weights

from adamerge_core import checkpoints
from adamerge_core.errors import InputError
from adamerge_core.evaluation import correct
from adamerge_core.vision.archive import open_archive
from flows import cli
from tasks.graph import paths
from tasks.running.hashes import object_folder
from tasks.shared.encoders import load_weights, open_encoder, open_heads, open_split
from tasks.suite.schema import load_params
from tasks.tracking import ingest
from tasks.tracking.database import relocate

CHAMPION = "models:/mini-merged@champion"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Path]:
    """The project of the suite `mini`, the current folder; its model is registered."""
    root = tmp_path_factory.mktemp("registered") / "tiny project"
    root.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        shutil.copy(empty_database, root)
        register_suite(root)
        signs = np.asarray(open_split(["signs"], "32", "test")["signs"].images)
        Image.fromarray(signs[0]).save("sign.png")
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
        mlflow.set_tracking_uri(None)
        yield root


@pytest.fixture(scope="module")
def model(registered: Path) -> Any:
    return mlflow.pyfunc.load_model(CHAMPION)


def hits(task: str) -> np.ndarray:
    """Which test images the pipeline's evaluation gets right: [N] bool."""
    suite, device = load_params(), torch.device("cpu")
    encoder = open_encoder(suite.raw["model"], device)
    load_weights(encoder, weights())
    head = open_heads("tiny", [task], device)[task]
    test = open_split([task], "32", "test")[task]
    return correct(encoder, head, test.images, test.labels)


def labels(found: Any, task: str) -> np.ndarray:
    """Predicted classes as the numbers that labels have."""
    names = json.loads(paths.classes(task).read_text())["classes"]
    return np.array([names.index(name) for name in found["class"]])


@pytest.mark.parametrize("task", ["stripes", "signs"])
def test_predictions_are_those_of_the_evaluation_image_by_image(model: Any, task: str) -> None:
    test = open_split([task], "32", "test")[task]
    frame = pd.DataFrame({"image": list(np.asarray(test.images))})
    found = model.predict(frame, params={"task": task})
    agreed = labels(found, task) == test.labels
    np.testing.assert_array_equal(agreed, hits(task))
    held_out = json.loads(paths.averages("mini", "layer_wise", 0).read_text())["held_out"]
    assert 0 <= held_out <= 100
    assert len(found) == len(test.labels) == 20


@pytest.mark.parametrize("task", ["stripes", "signs"])
def test_encoded_originals_are_decoded_as_the_pipeline_does(model: Any, task: str) -> None:
    with open_archive(paths.raw(task)) as archive:
        originals = [archive.read(each) for each in archive.entries() if each.split == "test"]
    prepared = list(np.asarray(open_split([task], "32", "test")[task].images))
    texts = [base64.b64encode(each).decode() for each in originals]
    expected = model.predict(pd.DataFrame({"image": prepared, "task": task}))
    for given in (originals, texts):
        found = model.predict(pd.DataFrame({"image": given, "task": task}))
        pd.testing.assert_frame_equal(found, expected)


def test_a_users_files_are_classified_by_their_paths(model: Any, registered: Path) -> None:
    files = sorted((registered / "photos/test").glob("*/*"))
    frame = pd.DataFrame({"image": [*map(str, files), *files], "task": "stripes"})
    found = model.predict(frame)
    by_bytes = model.predict(
        pd.DataFrame({"image": [file.read_bytes() for file in files], "task": "stripes"})
    )
    twice = pd.concat([by_bytes, by_bytes], ignore_index=True)
    pd.testing.assert_frame_equal(found, twice)


def test_probabilities_are_in_the_order_of_the_classes(model: Any) -> None:
    image = np.asarray(open_split(["signs"], "32", "test")["signs"].images)[3]
    found = model.predict(pd.DataFrame({"image": [image]}), params={"task": "signs"}).iloc[0]
    module = model.get_raw_model()
    logits = module(torch.from_numpy(image[None].copy()), "signs")[0].double()
    probabilities = torch.softmax(logits, dim=0)
    np.testing.assert_allclose(found["probabilities"], probabilities.detach().numpy(), rtol=1e-9)
    classes = model.metadata.metadata["classes"]["signs"]
    assert classes == json.loads(paths.classes("signs").read_text())["classes"]
    assert found["class"] == classes[int(probabilities.argmax())]
    assert found["probability"] == pytest.approx(max(found["probabilities"]))
    entropy = -sum(p * np.log(p) for p in found["probabilities"])
    assert found["entropy"] == pytest.approx(entropy, rel=1e-6)


def test_the_faults_of_all_rows_are_said_at_once(model: Any) -> None:
    good = np.zeros((32, 32, 3), np.uint8)
    images = [good, "nowhere.png", b"no image", good, good.astype(np.float32), 3]
    tasks = ["stripes", "stripes", "signs", "other", "signs", None]
    with pytest.raises(InputError) as caught:
        model.predict(pd.DataFrame({"image": images, "task": tasks}))
    said = str(caught.value)
    for line in (
        "6 faults",
        "image 2 (nowhere.png): text 'nowhere.png': names no file, and is no base64",
        "image 3: is no whole image of PNG",
        "image 4: task 'other': must be one of stripes, signs",
        "image 5: is an array float32 [32, 32, 3]: must be uint8 [H, W, 3], RGB",
        "image 6: is int: give an array",
        "image 6: no task is given: must be one of stripes, signs",
    ):
        assert line in said, line


def test_signature_and_example_are_those_of_predict(model: Any) -> None:
    inputs, outputs = model.metadata.signature.inputs, model.metadata.signature.outputs
    assert inputs.input_names() == ["image", "task"]
    assert outputs.input_names() == ["class", "probability", "probabilities", "entropy"]
    found = model.predict(model.input_example)
    assert list(found.columns) == outputs.input_names()
    assert (
        model.metadata.flavors["python_function"]["loader_module"]
        == "tasks.tracking.registry.loader"
    )


def test_the_torch_module_is_the_merged_model(model: Any) -> None:
    module = model.get_raw_model()
    for name, tensor in checkpoints.load(weights()).items():
        assert torch.equal(module.encoder.state_dict()[name], tensor), name
    assert not module.training


def test_weights_come_from_dvcs_cache_and_else_are_said(
    registered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = json.loads((folder() / "merged_model.json").read_text())
    digest = record["encoder"]["md5"]
    file, away = weights(), Path("away.safetensors")
    file.rename(away)
    try:
        with pytest.raises(InputError) as caught:
            mlflow.pyfunc.load_model(CHAMPION)
        assert f"`dvc pull {file.as_posix()}` fetches it" in str(caught.value)
        file.write_bytes(b"another run's")
        Path(".dvc/config.local").write_text("[cache]\n    dir = ../shared cache\n")
        assert object_folder() == Path(".dvc/../shared cache/files/md5")
        place = Path("shared cache/files/md5", digest[:2], digest[2:])
        place.parent.mkdir(parents=True)
        shutil.copy(away, place)
        monkeypatch.chdir("/")
        assert mlflow.pyfunc.load_model(CHAMPION).get_raw_model().tasks == ("stripes", "signs")
    finally:
        monkeypatch.chdir(registered)
        Path(".dvc/config.local").unlink(missing_ok=True)
        away.rename(file)


def folder() -> Path:
    from tasks.tracking.registry.addresses import model_folder

    return model_folder(CHAMPION)


def test_a_moved_project_loads(
    registered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = Path(shutil.copytree(registered, tmp_path / "elsewhere", symlinks=True))
    monkeypatch.chdir(moved)
    relocate(moved / "mlflow.db")  # as the first command there does
    assert folder().is_relative_to(moved)
    with closing(sqlite3.connect("mlflow.db")) as connection:
        (location,) = connection.execute("SELECT storage_location FROM model_versions").fetchone()
    assert str(moved) in location
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{moved / 'mlflow.db'}")
    registered_away = registered.rename(registered.with_name("away"))
    try:
        loaded = mlflow.pyfunc.load_model(CHAMPION)
        assert loaded.get_raw_model().tasks == ("stripes", "signs")
    finally:
        registered_away.rename(registered)


def test_a_version_more_is_kilobytes_more(registered: Path) -> None:
    def size() -> int:
        return sum(p.stat().st_size for p in Path("mlartifacts/models").rglob("*") if p.is_file())

    before, heaviest = size(), weights().stat().st_size
    assert 1_000 < before < 20_000
    assert heaviest > 1_000_000
    assert [p.name for p in Path("mlartifacts").rglob("*.safetensors")] == []
    ingest.ingest()
    assert size() == before


# the command


def test_the_command_predicts(
    registered: Path, capsys: pytest.CaptureFixture[str], signals: None, model: Any
) -> None:
    file = registered / "photos/test/rows/0.png"
    asked = ["predict", "--task", "stripes", str(file)]
    assert cli.main([*asked, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    expected = model.predict(pd.DataFrame({"image": [file], "task": "stripes"})).iloc[0]
    assert row["class"] == expected["class"]
    assert list(row["probabilities"].values()) == pytest.approx(expected["probabilities"])
    assert cli.main([*asked, "--model", "models:/mini-merged/1"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["image", "class", "probability", "entropy"]
    assert shown[1].split()[-3] == expected["class"]
    assert cli.main([*asked, "--csv"]) == 0
    assert capsys.readouterr().out.startswith("image,class,probability,entropy\n")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "models:/mini-merged@other", "--task", "stripes"], "no version has this"),
        (["--model", "models:/mini-merged/9", "--task", "stripes"], "the versions are 1"),
        (["--model", "models:/mini", "--task", "stripes"], "must be models:/SUITE-merged@ALIAS"),
        (["--model", "nothing", "--task", "stripes"], "is no folder that `adamerge merge` wrote"),
        (["--task", "birds"], "--task: task 'birds': must be one of stripes, signs"),
        ([], "--task: no task is given: must be one of stripes, signs"),
        (["--task", "stripes"], "nowhere.png: no such file"),
    ],
)
def test_the_command_says_what_is_wrong(
    registered: Path,
    capsys: pytest.CaptureFixture[str],
    signals: None,
    options: list[str],
    said: str,
) -> None:
    assert cli.main(["predict", *options, "nowhere.png"]) == 2
    assert said in capsys.readouterr().err


def test_the_command_lists_shows_and_decides(
    registered: Path, capsys: pytest.CaptureFixture[str], signals: None
) -> None:
    assert cli.main(["models"]) == 0
    printed = capsys.readouterr().out
    assert "candidate, champion  layer_wise  0 " in printed
    assert "  became champion: there was no champion before" in printed
    assert "small-run" in printed
    assert cli.main(["models", "--json"]) == 0
    (version,) = json.loads(capsys.readouterr().out)
    assert version["path"] == weights().as_posix()
    assert set(version["held_out"]) == {"stripes", "signs", "average"}
    assert cli.main(["models", "show", "1"]) == 0
    assert "**Became champion**: there was no champion before." in capsys.readouterr().out
    assert cli.main(["models", "promote", "1", "--why", "it is good"]) == 2
    assert "is the champion already" in capsys.readouterr().err
    assert cli.main(["models", "roll-back", "--why", "it is bad"]) == 2
    assert "no version was champion before" in capsys.readouterr().err
    assert cli.main(["models", "promote", "1", "--why", " "]) == 2
    assert "must be 1 to 300 characters" in capsys.readouterr().err
    assert cli.main(["models", "--suite", "other"]) == 0
    assert "other-merged has no version yet" in capsys.readouterr().out


# as docs/registry.md says it


def blocks(language: str) -> list[str]:
    page = (ROOT / "docs/registry.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def test_the_python_of_the_page_runs(registered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = blocks("python")
    names: dict[str, Any] = {}
    exec(block, names)
    mlflow.set_tracking_uri(None)
    assert list(names["found"].columns) == ["class", "probability", "probabilities", "entropy"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_model_is_served_and_asked_as_the_page_says(registered: Path, model: Any) -> None:
    """`mlflow models serve` and `curl`, as they are printed, without a network."""
    _, serve, ask = blocks("sh")
    environment = os.environ | {"http_proxy": "http://127.0.0.1:9", "https_proxy": ""}
    environment |= {"no_proxy": "127.0.0.1"}
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 5001)) == 0:
            pytest.skip("port 5001 is in use")
    server = subprocess.Popen(["bash", "-c", serve], env=environment, start_new_session=True)
    try:
        answer = _asked(ask, server)
        row = json.loads(answer)["predictions"][0]
        expected = model.predict(pd.DataFrame({"image": ["sign.png"], "task": "signs"})).iloc[0]
        assert row["class"] == expected["class"]
        assert row["probabilities"] == pytest.approx(expected["probabilities"])
        refused = ask.replace("\"$(base64 < sign.png | tr -d '\\n')\"", '"sign.png"')
        assert refused != ask
        assert "paths are not read here" in _asked(refused, server)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=60)


def _asked(line: str, server: "subprocess.Popen[bytes]") -> str:
    """What the server answers to a line of the page, once it is there."""
    until = time.monotonic() + 300
    while server.poll() is None and time.monotonic() < until:
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
        if done.returncode == 0:
            return done.stdout
        time.sleep(1)
    raise AssertionError("the server did not answer")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_projects_server_gives_models_away(
    registered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its secret; from another folder."""
    mlflow_port, prefect_port = free_port(), free_port()
    ports = ["--mlflow-port", str(mlflow_port), "--prefect-port", str(prefect_port)]
    command = [sys.executable, "-m", "flows.cli", "ui", *ports]
    process = subprocess.Popen(command, cwd=registered, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "127.0.0.1" in process.stdout.readline()
        assert "127.0.0.1" in process.stdout.readline()
        secret = (registered / ".adamerge/secret").read_text().strip()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{mlflow_port}")
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", secret)
        monkeypatch.chdir("/")
        loaded = mlflow.pyfunc.load_model(CHAMPION)
        assert loaded.get_raw_model().tasks == ("stripes", "signs")
        if BROWSER:
            _look_at_the_page(f"http://127.0.0.1:{mlflow_port}", secret)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def _look_at_the_page(server: str, secret: str) -> None:
    """A version's page has its inputs and outputs, measures and reason."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        login = {"username": "me", "password": secret}
        page = browser.new_page(http_credentials=login)
        page.goto(f"{server}/#/models/mini-merged/versions/1")
        for shown in ("Inputs (2)", "Outputs (4)", "Became champion", "held-out protocol"):
            page.get_by_text(shown).first.wait_for(timeout=60_000, state="attached")
        browser.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
