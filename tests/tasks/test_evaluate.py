"""What evaluation measures of which weights, and the geometry of task vectors."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from adamerge_core import checkpoints
from adamerge_core.task_vectors import TaskVectors
from tasks import geometry
from tasks.evaluate import weights
from tasks.graph import paths
from tasks.graph.paths import PROTOCOLS
from tasks.running.work import Work
from tasks.shared.protocols import adapted_rows, measured_rows


def work(method: str, *deps: Path) -> Work:
    options = {"suite": "s", "model": "m", "size": "64", "method": method, "seed": "3"}
    params = {"tasks": ["mnist", "svhn"]}
    return Work(f"evaluate@{method}", options, params, tuple(path.as_posix() for path in deps))


def test_references_use_the_weights_that_training_made() -> None:
    assert weights(work("pretrained"), "held_out", "mnist") == paths.pretrained("m")
    assert weights(work("individual"), "held_out", "mnist") == paths.finetuned("m", "mnist", 3)
    joint = paths.traditional_mtl("m", paths.tasks_together(["mnist", "svhn"]), 3)
    assert weights(work("traditional_mtl"), "held_out", "mnist") == joint


def test_a_method_that_adapts_has_weights_by_protocol() -> None:
    plain = paths.merged("s", "it", 3)
    adapted = {protocol: paths.merged("s", "it", 3, protocol) for protocol in PROTOCOLS}
    for protocol in PROTOCOLS:
        assert weights(work("it", plain), protocol, "mnist") == plain
        found = weights(work("it", *adapted.values()), protocol, "mnist")
        assert found == adapted[protocol]


def test_held_out_measures_what_adaptation_has_not_seen() -> None:
    images = list(range(10))
    assert images[adapted_rows(10, "transductive", 0.3)] == images
    assert images[measured_rows(10, "transductive", 0.3)] == images
    assert images[adapted_rows(10, "held_out", 0.3)] == images[:7]
    assert images[measured_rows(10, "held_out", 0.3)] == images[7:]


def test_geometry_is_of_the_suite_s_task_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    pretrained = {"a.weight": torch.randn(3, 2), "b.weight": torch.randn(4)}
    tasks = ["first", "second", "third"]
    finetuned = {
        task: {name: tensor + torch.randn_like(tensor) for name, tensor in pretrained.items()}
        for task in tasks
    }
    checkpoints.save(paths.pretrained("m"), pretrained)
    vectors = TaskVectors.from_checkpoints(pretrained, finetuned)
    vectors.save({task: paths.task_vector("m", task, 3) for task in tasks})
    params = {"tasks": tasks, "compute": {"threads": torch.get_num_threads()}}
    geometry.run(Work("geometry", {"suite": "s", "model": "m", "seed": "3"}, params))
    found = json.loads(paths.geometry("s", 3).read_text())
    flat = np.array(
        [
            torch.cat([(finetuned[t][n] - pretrained[n]).flatten() for n in pretrained]).numpy()
            for t in tasks
        ]
    )
    norms = np.linalg.norm(flat, axis=1)
    assert (found["tasks"], found["layers"]) == (tasks, 2)
    assert found["l2_norm"] == pytest.approx(norms, rel=1e-5)
    np.testing.assert_allclose(found["cosine"], flat @ flat.T / np.outer(norms, norms), atol=1e-5)
    distances = [[np.linalg.norm(one - other) for other in flat] for one in flat]
    np.testing.assert_allclose(found["l2_distance"], distances, rtol=1e-5, atol=1e-5)
    by_block = np.array(list(found["l2_norm_by_block"].values()))
    np.testing.assert_allclose(np.linalg.norm(by_block, axis=0), norms, rtol=1e-5)
    conflicts = found["sign_conflicts"]
    opposite = [[100 * np.mean(one * other < 0) for other in flat] for one in flat]
    np.testing.assert_allclose(conflicts["pairs"], opposite)
    assert conflicts["any"]["plain"] >= conflicts["any"]["trimmed"] >= conflicts["any"]["elected"]
    assert conflicts["any"]["elected"] == 0
    assert all(0 <= share <= 100 for share in conflicts["dropped"])
