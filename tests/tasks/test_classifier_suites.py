"""Suites of plain classifiers: every stage, heads made here and heads imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from PIL import Image
from small_classifiers import finetuned
from stage_runs import rows_of, run_all, run_one, use

from adamerge_core import checkpoints
from adamerge_core.errors import InputError
from adamerge_core.vision.class_lists import ClassList
from adamerge_core.vision.classifier_architectures import create_classifier
from adamerge_core.vision.classifier_exports import save_classifier
from adamerge_core.vision.classifiers import split_state
from adamerge_core.vision.task_heads import TaskHead
from flows.model_downloads import HubModel, suite_models
from tasks import wiring
from tasks.graph import paths
from tasks.suite.schema import checked

ARCHITECTURE = "timm:test_resnet"
STEPS = {"steps": 2, "images_per_task": 4, "batches_per_step": 1}


def parameters() -> dict[str, Any]:
    """The suite mini_classifiers cut down to seconds, on a tiny network of a file."""
    path = ROOT / "suites/mini_classifiers.yaml"
    raw: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    raw["suite"] = "tiny"
    raw["compute"]["micro_batch"] = 8
    raw["tasks"] = ["landuse", "mnist"]
    few = {"source": "miniature", "seed": 0, "train": 40, "val": 10, "test": 12}
    raw["datasets"] = dict.fromkeys(raw["tasks"], few)
    raw["prepare"]["image_size"] = 32
    raw["corrupt"] |= {"tasks": ["landuse"], "corruptions": ["contrast"], "images": 8}
    raw["model"] = {
        "name": "tiny",
        "architecture": ARCHITECTURE,
        "weights": {"file": "pretrained.safetensors"},
    }
    raw["finetune"] |= {"steps": 4, "batch_size": 8, "warmup_steps": 1}
    raw["traditional_mtl"]["steps"] = 2
    raw["statistics"] = {"images": 4, "split": "val", "fisher_probes": 2}
    raw["methods"] = {
        "weight_averaging": {"rule": "weight_averaging"},
        "best": {"rule": "task_arithmetic", "choose": {"scaling": [0.1, 0.3], "by": "entropy"}},
        "fisher": {"rule": "fisher_merging"},
        "regmean": {"rule": "regmean"},
        "tsv": {"rule": "tsv_m"},
        "layer_wise_pp": {"adapt": "layer_wise", "before": {"name": "trim_and_elect"}, **STEPS},
        "adarank": {"adapt": "singular_components", "clamp": "none", **STEPS},
        "fast": {"adapt": "layer_wise", "preset": "fast", **STEPS},
    }
    raw["evaluate"] |= {"trajectory_images": 4, "trajectory_points": 2}
    merged = {"layer_wise": {"adapt": "layer_wise", **STEPS}}
    raw["robustness"] = {"corruptions": ["clean", "contrast"], "severity": 3, "methods": merged}
    return raw


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder, the current one, with a pretrained classifier."""
    for name in ("tasks", "adamerge_core"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    model = create_classifier(ARCHITECTURE)
    checkpoints.save(tmp_path / "pretrained.safetensors", model.state_dict())
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_every_stage_of_a_suite_that_makes_its_heads() -> None:
    suite = checked(parameters(), "tiny suite")
    use(suite)
    run_all(suite)
    encoder, _ = split_state(create_classifier(ARCHITECTURE).state_dict(), "fc")
    pretrained = checkpoints.load(paths.pretrained("tiny"))
    assert pretrained.keys() == encoder.keys()
    head = checkpoints.load(paths.head("tiny", "mnist"))
    assert head["weight"].shape[0] == 10
    assert head["bias"].shape == (10,)
    tuned = checkpoints.load(paths.finetuned("tiny", "mnist", 0))
    for name, tensor in tuned.items():  # batch norms keep their statistics
        assert torch.equal(tensor, pretrained[name]) or "running" not in name
    rows = rows_of(paths.report("tiny") / "results.csv")
    assert [row["method"] for row in rows[::2]] == [*suite.references, *suite.methods]
    page = (paths.report("tiny") / "report.md").read_text(encoding="utf-8")
    assert "Pretrained encoder, the tasks' heads" in page
    assert "fine-tuned from one classifier" in page
    assert "zero-shot" not in page.lower()


def import_models(raw: dict[str, Any], classes: dict[str, int]) -> dict[str, Any]:
    """Write fine-tuned classifiers, and have the suite import them."""
    model = create_classifier(ARCHITECTURE)
    torch.manual_seed(0)
    for task, count in classes.items():
        torch.save({"state_dict": finetuned(model, count)}, f"{task}.pt")
    named = {task: {"file": f"{task}.pt"} for task in classes}
    raw["checkpoints"] = {"line": "own", "finetuned": named, "heads": {}}
    if set(classes) == set(raw["tasks"]):
        del raw["finetune"], raw["traditional_mtl"]
    raw["methods"] = {"task_arithmetic": {"rule": "task_arithmetic"}}
    del raw["statistics"]
    raw["robustness"]["methods"] = raw["methods"]
    return raw


@pytest.mark.usefixtures("folder")
def test_a_suite_that_imports_its_models_and_their_heads() -> None:
    raw = import_models(parameters(), {"landuse": 10, "mnist": 10})
    suite = checked(raw, "tiny suite")
    assert not {"probe_heads", "finetune"} & {name.split("@")[0] for name in wiring.stages(suite)}
    use(suite)
    run_all(suite)
    for task in suite.tasks:
        encoder, head = split_state(checkpoints.load(f"{task}.pt"), "fc")
        made = checkpoints.load(paths.head("tiny", task))
        assert torch.equal(made["weight"], head["weight"])
        assert torch.equal(made["bias"], head["bias"])
        tuned = checkpoints.load(paths.finetuned("tiny", task, 0))
        assert all(torch.equal(tuned[name], tensor) for name, tensor in encoder.items())
    merged = checkpoints.load(paths.merged("tiny", "task_arithmetic", 0))
    states = [checkpoints.load(f"{task}.pt") for task in suite.tasks]
    for name in merged:
        if "running" in name:
            mean = torch.stack([state[name] for state in states]).mean(dim=0)
            assert torch.allclose(merged[name], mean, atol=1e-6)


@pytest.mark.usefixtures("folder")
def test_a_head_of_another_number_of_classes_is_refused() -> None:
    suite = checked(import_models(parameters(), {"landuse": 10, "mnist": 7}), "tiny suite")
    use(suite)
    with pytest.raises(InputError, match="its head has 7 classes, and the data set mnist 10"):
        run_all(suite)


@pytest.mark.usefixtures("folder")
def test_a_checkpoint_that_names_other_classes_is_refused() -> None:
    raw = import_models(parameters(), {"landuse": 10, "mnist": 10})
    names = (*(f"digit {digit}" for digit in range(9)), "ten")
    encoder, head = split_state(checkpoints.load("mnist.pt"), "fc")
    stated = TaskHead(head["weight"], head["bias"], ClassList(names, names), "test")
    save_classifier(Path("mnist.safetensors"), ARCHITECTURE, encoder, stated, {})
    raw["checkpoints"]["finetuned"]["mnist"]["file"] = "mnist.safetensors"
    suite = checked(raw, "tiny suite")
    use(suite)
    with pytest.raises(InputError, match="class 9 is 'digit 9' in mnist and 'ten' in the checkp"):
        run_all(suite)


@pytest.mark.usefixtures("folder")
def test_weights_of_the_hub_are_among_what_is_downloaded() -> None:
    raw = parameters()
    raw["model"]["weights"] = {"hub": "timm/test_resnet.r160_in1k", "revision": "main"}
    suite = checked(raw, "tiny suite")
    use(suite)
    name = "timm/test_resnet.r160_in1k"
    assert suite_models() == {name: HubModel(name, "main")}
    stage = wiring.stages(suite)["import_classifier@tiny"]
    assert "pins/models/timm--test_resnet.r160_in1k.json" in stage.deps
    with pytest.raises(InputError, match="adamerge data download"):
        run_one(stage)


def domains(raw: dict[str, Any]) -> dict[str, Any]:
    """The suite on two data sets of the same digits, whose tasks share a head."""
    few = raw["datasets"]["mnist"]
    raw["tasks"] = ["mnist", "mnist_too"]
    make_digits(Path("digits"))
    folder = {"source": "image_folder", "path": "digits", "templates": ["a digit {}."]}
    raw["datasets"] = {"mnist": few, "mnist_too": folder}
    raw["corrupt"]["tasks"] = ["mnist"]
    raw["head"] = "shared"
    return raw


def make_digits(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for digit in range(10):
            place = folder / split / f"digit {digit}"
            place.mkdir(parents=True)
            for index in range(3):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{index}.png")


@pytest.mark.usefixtures("folder")
def test_domains_of_one_label_set_share_a_head() -> None:
    suite = checked(domains(parameters()), "tiny suite")
    use(suite)
    run_all(suite)
    one, other = (checkpoints.load(paths.head("tiny", task)) for task in suite.tasks)
    assert torch.equal(one["weight"], other["weight"])
    assert torch.equal(one["bias"], other["bias"])


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("head", ["shared", "average"])
def test_imported_heads_are_shared_or_averaged(head: str) -> None:
    raw = import_models(domains(parameters()), {"mnist": 10, "mnist_too": 10})
    raw["head"] = head
    states = {task: checkpoints.load(f"{task}.pt") for task in raw["tasks"]}
    suite = checked(raw, "tiny suite")
    use(suite)
    if head == "shared":
        with pytest.raises(InputError, match="mnist_too: its head is not that of mnist; give one"):
            run_all(suite)
        states["mnist_too"] |= {n: states["mnist"][n] for n in ("fc.weight", "fc.bias")}
        torch.save(states["mnist_too"], "mnist_too.pt")
    run_all(suite)
    mean = torch.stack([state["fc.weight"] for state in states.values()]).mean(dim=0)
    for task in suite.tasks:
        assert torch.equal(checkpoints.load(paths.head("tiny", task))["weight"], mean)


@pytest.mark.usefixtures("folder")
def test_a_shared_head_needs_the_same_classes_in_the_same_order() -> None:
    raw = domains(parameters())
    for split in ("train", "test"):
        Path(f"digits/{split}/digit 3").rename(f"digits/{split}/digit 33")
    use(suite := checked(raw, "tiny suite"))
    with pytest.raises(InputError, match="class 3 is 'digit 3' in mnist and 'digit 33' in"):
        run_all(suite)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            lambda raw: raw.update(pretrain=yaml.safe_load("{datasets: [mnist]}")),
            "pretrain: timm:test_resnet is a classifier, which has no text tower; remove it",
        ),
        (
            lambda raw: raw["model"].update(weights={"tag": "openai"}),
            "model.weights = {'tag': 'openai'}: must be {package: imagenet}, {file: PATH} or {hub",
        ),
        (
            lambda raw: raw["model"].update(weights={"package": "imagenet"}),
            "no package ships them for 'timm:test_resnet'; give a file or a model of the hub",
        ),
        (
            lambda raw: raw["model"].update(architecture="timm:test_resnett"),
            "unknown to timm; known are timm:test_resnet",
        ),
        (
            lambda raw: raw["model"].update(architecture="transformers:org/vit"),
            "must be a CLIP, or a classifier of timm or torchvision, in a suite",
        ),
        (
            lambda raw: raw["model"].update(architecture="timm:test_vit"),
            "prepare.image_size = 32: timm:test_vit takes images of 160 pixels",
        ),
        (
            lambda raw: raw.update(
                checkpoints={
                    "line": "own",
                    "finetuned": {"mnist": {"file": "mnist.pt"}},
                    "heads": {"mnist": {"file": "head.pt"}},
                }
            ),
            "checkpoints.heads: a classifier's checkpoint brings its own head; give {}",
        ),
        (
            lambda raw: raw.update(head="average"),
            "head = 'average': is the mean of the heads of imported classifiers, and none is",
        ),
    ],
)
def test_contradictions_are_told(change: Any, fault: str) -> None:
    raw = parameters()
    change(raw)
    with pytest.raises(InputError) as caught:
        checked(raw, "tiny suite")
    assert fault in str(caught.value)
