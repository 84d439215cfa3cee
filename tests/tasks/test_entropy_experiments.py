"""The stages of the experiments on entropy and loss, on labels and on cost, on tiny models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from scipy.stats import spearmanr
from stage_runs import run_all, use, work_of
from test_experiments import NOT_NEEDED, assert_measured, table
from test_stages import STEPS, make_photos, tiny_parameters
from torch import nn

from adamerge_core import checkpoints
from adamerge_core.checkpoints import StateDict
from adamerge_core.operations import operations
from adamerge_core.vision.images import LabeledImages
from adamerge_core.vision.training import finetune
from tasks import wiring
from tasks.experiments import surrogate
from tasks.graph import paths
from tasks.running.work import PlainReporter
from tasks.shared.device import set_up
from tasks.shared.encoders import open_encoder, open_heads, open_split
from tasks.shared.long_tables import ACCURACY, MEASURED_IN_EXPERIMENT, read_long
from tasks.shared.training import finetune_settings
from tasks.suite.experiments.sections import experiment_faults
from tasks.suite.schema import Suite, checked

LEARNED = {"adapt": "layer_wise", **STEPS, "steps": 12}
BY_LABELS = {
    name: {"adapt": "layer_wise", **STEPS, "steps": 12, "objective": objective}
    for name, objective in (
        ("entropy", "entropy"),
        ("experts", "self_labelling"),
        ("labels", "cross_entropy"),
    )
}
METHODS = {
    "task_arithmetic": {"rule": "task_arithmetic"},
    "best": {"rule": "task_arithmetic", "choose": {"scaling": [0.3, 1.0], "by": "agreement"}},
    "learned": LEARNED,
    "experts": {"adapt": "task_wise", **STEPS, "objective": "self_labelling"},
}
IMAGES = slice(15)


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    """A tiny suite that has run, its folder the current one."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("tasks", "adamerge_core"):
        (folder / name).symlink_to(ROOT / name)
    experiments = {
        "surrogate": {
            "images": 15,
            "finetuning": [50],
            "adapting": [10, 90],
            "methods": {"learned": LEARNED},
        },
        "labels": {"methods": BY_LABELS},
        "cost": {"timed_steps": 3},
    }
    made = checked(
        tiny_parameters("cpu") | {"methods": METHODS, "experiments": experiments}, "tiny suite"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_photos(Path("photos"))
        use(made)
        run_all(made, without=NOT_NEEDED)
        yield made


# --- surrogate ------------------------------------------------------------------------------------


def encoder_of(suite: Suite) -> nn.Module:
    return open_encoder(suite.raw["model"], set_up(suite.raw["compute"]))


def test_images(suite: Suite, task: str) -> LabeledImages:
    part = open_split([task], suite.size, "test")[task]
    return LabeledImages(part.images[IMAGES], part.labels[IMAGES])


test_images.__test__ = False  # type: ignore[attr-defined]


def entropies_and_losses(
    suite: Suite, encoder: nn.Module, task: str
) -> tuple[np.ndarray, np.ndarray]:
    """Image by image, from the softmax as it is written."""
    data = test_images(suite, task)
    head = open_heads("tiny", suite.tasks, torch.device("cpu"))[task]
    with torch.inference_mode():
        logits = head(encoder.eval()(torch.from_numpy(np.array(data.images)))).double()
    shares = torch.exp(logits) / torch.exp(logits).sum(dim=1, keepdim=True)
    losses = [-float(torch.log(row[label])) for row, label in zip(shares, data.labels, strict=True)]
    entropies = [-float((row * torch.log(row)).sum()) for row in shares]
    return np.array(entropies), np.array(losses)


def assert_correlated(
    rows: list[dict[str, Any]], found: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    values = {(row["task"], row["metric"]): row["value"] for row in rows}
    for task, (entropy, loss) in found.items():
        assert values[task, "spearman"] == pytest.approx(spearmanr(entropy, loss).statistic)
        assert values[task, "entropy"] == pytest.approx(entropy.mean(), rel=1e-4)
        assert values[task, "loss"] == pytest.approx(loss.mean(), rel=1e-4)
        order = np.argsort(entropy)
        assert values[task, "loss_1"] == pytest.approx(loss[order[:1]].mean(), rel=1e-4)
        assert values[task, "loss_2"] == pytest.approx(loss[order[1:3]].mean(), rel=1e-4)
        assert values[task, "entropy_10"] == pytest.approx(entropy[order[13:]].mean(), rel=1e-4)
    pooled = [np.concatenate(each) for each in zip(*found.values(), strict=True)]
    assert values["all tasks", "spearman"] == pytest.approx(spearmanr(*pooled).statistic)


def test_correlations_along_finetuning(suite: Suite) -> None:
    """Of the pretrained model, of one trained half of the steps, and of the suite's own."""
    rows = table("surrogate_finetuning", "moments")
    moments = list(dict.fromkeys(row["setting"] for row in rows))
    assert moments == ["pretrained", "finetuning_50", "finetuned"]
    found: dict[str, dict[str, Any]] = {moment: {} for moment in moments}
    settings = finetune_settings(suite.finetune)  # type: ignore[arg-type]
    for task in suite.tasks:
        encoder = encoder_of(suite)
        encoder.load_state_dict(checkpoints.load(paths.pretrained("tiny")))
        found["pretrained"][task] = entropies_and_losses(suite, encoder, task)
        heads = open_heads("tiny", [task], torch.device("cpu"))
        train = open_split([task], suite.size, "train")
        list(islice(finetune(encoder, heads, train, settings, 0), 3))
        found["finetuning_50"][task] = entropies_and_losses(suite, encoder, task)
        encoder.load_state_dict(checkpoints.load(paths.finetuned("tiny", task, 0)))
        found["finetuned"][task] = entropies_and_losses(suite, encoder, task)
    for moment, each in found.items():
        assert_correlated([row for row in rows if row["setting"] == moment], each)


def merged_at(scaling: float, tasks: tuple[str, ...]) -> StateDict:
    merged = checkpoints.load(paths.pretrained("tiny"))
    tuned = [checkpoints.load(paths.finetuned("tiny", task, 0)) for task in tasks]
    for name, weight in merged.items():
        if weight.is_floating_point():
            merged[name] = weight + scaling * sum(each[name] - weight for each in tuned)
    return merged


def test_correlations_along_an_adaptation(suite: Suite) -> None:
    """From the merge that it starts with to the model that the suite's own adaptation ends with."""
    rows = table("surrogate", "learned")
    moments = list(dict.fromkeys(row["setting"] for row in rows))
    assert moments == ["start", "adapting_10", "adapting_90", "adapted"]
    models = {
        "start": merged_at(0.3, suite.tasks),
        "adapted": checkpoints.load(paths.merged("tiny", "learned", 0, "transductive")),
    }
    for moment, model in models.items():
        encoder = encoder_of(suite)
        encoder.load_state_dict(model)
        found = {task: entropies_and_losses(suite, encoder, task) for task in suite.tasks}
        assert_correlated([row for row in rows if row["setting"] == moment], found)
    losses = {row["value"] for row in rows if (row["task"], row["metric"]) == ("stripes", "loss")}
    assert len(losses) == len(moments)


class Killing(PlainReporter):
    """Ends the stage where it tells of its progress for the n-th time."""

    def __init__(self, scratch: Path, after: int) -> None:
        super().__init__(scratch)
        self._left = after

    def progress(self, done: int, total: int, text: str = "") -> None:
        self._left -= 1
        if not self._left:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("stage", "place", "kills"),
    [
        ("surrogate_learned", ("surrogate", "learned"), (4, 11, 1)),
        ("surrogate", ("surrogate_finetuning", "moments"), (2, 5)),
    ],
)
def test_after_kills_the_table_is_the_same(
    suite: Suite, tmp_path: Path, stage: str, place: tuple[str, str], kills: tuple[int, ...]
) -> None:
    file = paths.experiment("tiny", *place, 0)
    before = file.read_bytes()
    file.unlink()
    work = work_of(wiring.stages(suite)[f"{stage}@tiny-0"])
    for after in kills:
        with pytest.raises(KeyboardInterrupt):
            surrogate.run(replace(work, report=Killing(tmp_path, after)))
    surrogate.run(replace(work, report=PlainReporter(tmp_path)))
    assert file.read_bytes() == before


def test_surrogate_takes_adaptations_of_a_known_number_of_steps() -> None:
    methods = {
        "sum": {"rule": "task_arithmetic"},
        "stopped": {"adapt": "layer_wise", "held_out_share": 0.2},
    }
    settings = {"images": 5, "finetuning": [10, 10], "adapting": [50], "methods": methods}
    where = "experiments.surrogate"
    assert experiment_faults({"surrogate": settings}) == [
        f"{where}.finetuning = (10, 10): each must stand once",
        f"{where}.methods.sum: is a rule, which takes no steps; remove it",
        f"{where}.methods.stopped.held_out_share = 0.2: must be 0, for early stopping leaves the "
        "number of steps open",
    ]
    beyond = settings | {"finetuning": [0, 100], "adapting": [], "images": 0}
    faults = experiment_faults({"surrogate": beyond})
    assert [line.split(" = ")[0] for line in faults] == [
        f"{where}.{key}" for key in ("images", "finetuning.0", "finetuning.1")
    ]


# --- labels ---------------------------------------------------------------------------------------


def test_labels(suite: Suite) -> None:
    """Each starts with the merge; by entropy it is what the suite's own adaptation learns."""
    held_out = slice(10, 20)
    for name in BY_LABELS:
        rows = table("labels", name)
        assert [row["setting"] for row in rows[:: 2 * len(suite.tasks)]] == ["start", "learned"]
        start = [row for row in rows if row["setting"] == "start"]
        assert_measured(start, suite, merged_at(0.3, suite.tasks), held_out)
    learned = {
        name: [r for r in table("labels", name) if r["setting"] == "learned"] for name in BY_LABELS
    }
    own = checkpoints.load(paths.merged("tiny", "learned", 0, "held_out"))
    assert_measured(learned["entropy"], suite, own, held_out)
    entropies = {
        tuple(row["value"] for row in rows if row["metric"] != ACCURACY)
        for rows in learned.values()
    }
    assert len(entropies) == len(BY_LABELS)


def test_labels_compares_adaptations_that_differ_in_their_objective_alone() -> None:
    methods = {
        "sum": {"rule": "task_arithmetic"},
        "entropy": {"adapt": "layer_wise"},
        "labels": {"adapt": "layer_wise", "objective": "cross_entropy"},
        "longer": {"adapt": "layer_wise", "objective": "cross_entropy", "steps": 7},
        "other": {"adapt": "task_wise", "objective": "cross_entropy"},
    }
    where = "experiments.labels.methods"
    assert experiment_faults({"labels": {"methods": methods}}) == [
        f"{where}.sum: is a rule, which has no objective; remove it",
        *(
            f"{where}.{name}: no other method differs from it in its objective alone, one of the "
            "two entropy; give one, or remove it"
            for name in ("longer", "other")
        ),
    ]


# --- cost -----------------------------------------------------------------------------------------


def cost_of(method: str) -> dict[str, float]:
    rows = read_long(paths.experiment("tiny", "cost", method, 0), MEASURED_IN_EXPERIMENT)
    assert {row["task"] for row in rows} == {"all tasks"}
    assert all(row["setting"].endswith(", 1 thread") for row in rows)
    return {row["metric"]: row["value"] for row in rows}


def test_cost_counts_parameters_and_passes(suite: Suite) -> None:
    rule, chosen, learned = (cost_of(name) for name in ("task_arithmetic", "best", "learned"))
    counted = ("parameters", "forward_images", "backward_images", "operations")
    assert [rule[key] for key in counted] == [0, 0, 0, 0]
    validation = open_split(suite.tasks, suite.size, "val").values()
    images = sum(len(part.labels) for part in validation)
    assert [chosen[key] for key in counted[:3]] == [0, (2 + 1) * images, 0]  # values, and experts
    layers = len(list(encoder_of(suite).parameters()))
    assert learned["parameters"] == 2 * layers
    assert learned["forward_images"] == learned["backward_images"] == 12 * 4 * 2
    experts = cost_of("experts")
    assert [experts[key] for key in counted[:3]] == [2, 2 * 4 * 2 + 2 * 20, 2 * 4 * 2]
    for each in (rule, chosen, learned, experts):
        assert each["seconds"] > 0
        assert 0.05 < each["peak_gib"] < 64
    # passes forward alone cost as much an image in both; backward ones cost more
    forward = chosen["operations"] / chosen["forward_images"]
    backward = learned["operations"] / learned["backward_images"] - forward
    assert experts["operations"] == pytest.approx(56 * forward + 16 * backward)
    assert 1 < backward / forward < 3


def test_operations_are_those_of_the_products() -> None:
    """Two a multiplication and addition; backward once for weights, once for what comes before."""
    encoder = nn.Sequential(nn.Linear(5, 7, bias=False), nn.ReLU(), nn.Linear(7, 3, bias=False))
    head = nn.Linear(3, 4, bias=False).requires_grad_(False)
    forward, backward = operations(encoder, head, torch.randn(2, 5))
    assert forward == 2 * 2 * (5 * 7 + 7 * 3 + 3 * 4)
    assert backward == 2 * 2 * (5 * 7 + 2 * 7 * 3 + 3 * 4)


def test_operations_of_a_depthwise_convolution_are_those_of_its_groups() -> None:
    """Six channels of 4 x 4 places, 3 x 3 weights each; then 5 channels of one place each."""
    depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False)
    pointwise = nn.Conv2d(6, 5, 4, bias=False)
    encoder = nn.Sequential(depthwise, pointwise, nn.Flatten())
    head = nn.Identity()
    forward, backward = operations(encoder, head, torch.randn(2, 6, 4, 4))
    first, second = 2 * 2 * 6 * 16 * 9, 2 * 2 * 5 * 6 * 16
    assert forward == first + second
    assert backward == first + 2 * second
