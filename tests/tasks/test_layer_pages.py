"""The pages on learned coefficients and on task vectors: what they average, compare and find."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import torch
from report_inputs import LAYERS, TASKS, geometry, small_suite, table, write_inputs

from adamerge_core.coefficient_files import LearnedCoefficients
from adamerge_core.layers import layer_kind
from tasks.graph import paths
from tasks.report.pages import coefficients, task_vectors
from tasks.report.pages.coefficients import LayerCoefficients, agreement
from tasks.shared.tables import write_json
from tasks.suite.schema import Suite

METHOD = "layer_wise_adamerging"


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    found = small_suite()
    write_inputs(found, tmp_path)
    return found


def learn(suite: Suite, root: Path, seed: int, values: np.ndarray) -> None:
    file = root / paths.coefficients(suite.name, METHOD, seed, "transductive")
    LearnedCoefficients(torch.from_numpy(values), LAYERS, TASKS).save(file)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("trunk.blocks.2.0.conv_pw.weight", "conv_pw.weight"),
        ("visual.transformer.resblocks.11.attn.in_proj_weight", "attn.in_proj_weight"),
        ("trunk.conv_stem.weight", "conv_stem.weight"),
        ("visual.proj", "visual.proj"),
        ("proj", "proj"),
    ],
)
def test_the_kind_of_a_layer_is_its_name_within_its_block(name: str, kind: str) -> None:
    assert layer_kind(name) == kind


def test_seeds_agree_as_numpy_says() -> None:
    rng = np.random.default_rng(0)
    seeds = [LayerCoefficients(rng.uniform(0, 1, (5, 3)), LAYERS, TASKS) for _ in range(3)]
    flat = np.array([each.values.ravel() for each in seeds])
    pairs = [(0, 1), (0, 2), (1, 2)]
    correlation, difference = agreement(seeds) or (0.0, 0.0)
    wanted = np.corrcoef(flat)
    assert correlation == pytest.approx(fmean(wanted[pair] for pair in pairs))
    assert difference == pytest.approx(fmean(np.abs(flat[i] - flat[j]).mean() for i, j in pairs))
    assert agreement(seeds[:1]) is None
    same = LayerCoefficients(np.full((5, 3), 0.3), LAYERS, TASKS)
    assert agreement([same, same]) == (0.0, 0.0)


def test_coefficients_are_averaged_by_block_and_by_kind_over_seeds(
    suite: Suite, tmp_path: Path
) -> None:
    values = np.array([[0.9] * 3, [0.8] * 3, [0.4] * 3, [0.2] * 3, [0.1] * 3])
    learn(suite, tmp_path, 0, values)
    learn(suite, tmp_path, 1, values + 0.1)
    content = coefficients.show(suite, tmp_path)
    column = table(content, "by_block").columns.index("Layer-wise AdaMerging")
    blocks = {line.names[0]: line.cells[column] for line in table(content, "by_block").lines}
    # of LAYERS the last is the stem, the third block 2, the second block 10, the others the head
    assert {name: cell.text for name, cell in blocks.items()} == {
        "stem": "0.15",
        "blocks.2": "0.45",
        "blocks.10": "0.85",
        "head": "0.60",
    }
    assert blocks["stem"].spread == "0.07"
    kinds = {line.names[0]: line.cells[column].text for line in table(content, "by_kind").lines}
    assert kinds["conv.weight"] == "0.65"
    (found,) = [line for line in content.findings if line.startswith("Layer-wise AdaMerging: the")]
    assert found.endswith(
        "is highest in blocks.10 (0.85) and lowest in stem (0.15), a shallower block."
    )
    (agreeing,) = [
        line for line in content.findings if line.startswith("Layer-wise AdaMerging: coefficients")
    ]
    assert agreeing.endswith("two seeds correlate by 1.00 and differ by 0.100 on average.")
    learn(suite, tmp_path, 1, values[::-1].copy())
    changed = coefficients.show(suite, tmp_path).findings
    assert any(
        "Layer-wise AdaMerging: coefficients of two seeds correlate by -0.9" in line
        for line in changed
    )


def test_one_seed_agrees_with_none(tmp_path: Path) -> None:
    suite = small_suite(seeds=[0])
    write_inputs(suite, tmp_path)
    content = coefficients.show(suite, tmp_path)
    assert [each.name for each in content.tables] == ["by_block", "by_kind"]
    assert not [line for line in content.findings if "two seeds" in line]


def test_the_evolution_is_of_every_task(suite: Suite, tmp_path: Path) -> None:
    _, learned = coefficients.show(suite, tmp_path).figures
    chart = learned.panels["Layer-wise AdaMerging"]
    assert [series.label for series in chart.series] == list(TASKS)  # type: ignore[union-attr]


def test_what_is_said_of_task_vectors_follows_their_geometry(suite: Suite, tmp_path: Path) -> None:
    content = task_vectors.show(suite, tmp_path)
    assert [each.name for each in content.tables] == [
        "cosines",
        "distances",
        "by_depth",
        "conflicting_weights",
        "conflicts",
    ]
    assert content.findings[-2:] == [
        "At 98.0 ± 0.0 % of the weights some of the task vectors pull in opposite directions; of "
        "the largest 20 % of each at 20.0 ± 0.0 %, and after the election of signs at 0.0 ± 0.0 %.",
        "For that the election drops 32.0 ± 0.0 % of what trimming leaves of mnist, the most, and "
        "30.0 ± 0.0 % of signs, the least.",
    ]
    for seed, (trimmed, dropped) in enumerate(((7.0, [40.0, 9.0, 20.0]), (8.0, [42.0, 9.0, 20.0]))):
        found = geometry(TASKS, np.eye(3))
        found["sign_conflicts"]["any"]["trimmed"] = trimmed
        found["sign_conflicts"]["dropped"] = dropped
        found["l2_norm"] = [2.0, 3.0 + seed, 2.5]
        write_json(tmp_path / paths.geometry(suite.name, seed), found)
    changed = task_vectors.show(suite, tmp_path)
    assert changed.findings[0] == (
        "The longest task vector is that of letters (3.50 ± 0.71), the shortest that of signs "
        "(2.00 ± 0.00)."
    )
    assert "of the largest 20 % of each at 7.5 ± 0.7 %" in changed.findings[-2]
    assert "41.0 ± 1.4 % of what trimming leaves of signs" in changed.findings[-1]
    conflicts = table(changed, "conflicts")
    assert [line.cells[-1].text for line in conflicts.lines] == ["41.0", "9.0", "20.0"]
    assert [line.cells[-1].spread for line in conflicts.lines] == ["1.4", "0.0", "0.0"]
    depth = table(changed, "by_depth")
    assert [line.names[0] for line in depth.lines] == ["stem", "blocks.0"]


def test_the_longest_task_vector_is_not_shown_where_seeds_differ_as_much(
    suite: Suite, tmp_path: Path
) -> None:
    for seed, lengths in enumerate(([2.0, 2.1, 3.0], [2.0, 2.1, 1.4])):
        write_json(
            tmp_path / paths.geometry(suite.name, seed),
            geometry(TASKS, np.eye(3)) | {"l2_norm": lengths},
        )
    first, *_ = task_vectors.show(suite, tmp_path).findings
    assert first.startswith("The longest task vector is that of mnist (2.20 ± 1.13)")
    assert first.endswith("not shown: the spread over seeds is as large.")
