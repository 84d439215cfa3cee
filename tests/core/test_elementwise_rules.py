"""The data-free rules that work entry by entry, against their formulas in numpy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from small_models import naive_vectors, rule_for, stacked, tiny_problem
from torch import Tensor

from adamerge_core.errors import InputError
from adamerge_core.merging import BEFORE, RULES
from adamerge_core.merging.breadcrumbs import breadcrumbs, mask_tails
from adamerge_core.merging.consensus import consensus, consensus_mask
from adamerge_core.merging.dare import dare, drop_and_rescale
from adamerge_core.merging.lines import block_of, lines, scale_by_depth
from adamerge_core.merging.quantiles import kth_smallest_magnitudes
from adamerge_core.merging.ties import trim_and_elect, trim_thresholds
from adamerge_core.task_vectors import TaskVectors

# multiples of 1/8, so that sums are exact in any order; many equal magnitudes, zeros, cancellations
EIGHTHS = npst.arrays(
    np.int64, st.tuples(st.integers(1, 4), st.integers(1, 40)), elements=st.integers(-4, 4)
).map(lambda values: values / 8)

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def floats(width: int) -> st.SearchStrategy[np.ndarray]:
    """[K, n] of any finite floats of so many bits: subnormals, huge values, zeros of both signs."""
    few = st.sampled_from([0.0, -0.0, 1.0, -1.0])
    entries = few | st.floats(width=width, allow_nan=False, allow_infinity=False)
    shapes = st.tuples(st.integers(1, 3), st.integers(1, 30))
    return npst.arrays(np.dtype(f"f{width // 8}"), shapes, elements=entries)


def task_vectors_of(layers: Mapping[str, Tensor]) -> TaskVectors:
    """Task vectors of these layers over a pretrained model of ones."""
    pretrained = {name: torch.ones_like(stack[0]) for name, stack in layers.items()}
    count = len(next(iter(layers.values())))
    return TaskVectors(pretrained, tuple(f"task{k}" for k in range(count)), dict(layers))


def two_layers(rows: np.ndarray, split: int) -> TaskVectors:
    """[K, n] as task vectors of two layers, of `split` and n - split entries."""
    parts = {"first": rows[:, :split], "second": rows[:, split:]}
    return task_vectors_of(
        {name: torch.from_numpy(part.copy()) for name, part in parts.items() if part.size}
    )


def random_layers(shapes: Mapping[str, tuple[int, ...]], tasks: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {
        name: torch.randn(tasks, *shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }


class CountedLayers(Mapping[str, Tensor]):
    """Layers that count their reads and give a fresh tensor at each."""

    def __init__(self, layers: Mapping[str, Tensor]) -> None:
        self.layers = layers
        self.reads = 0

    def __getitem__(self, name: str) -> Tensor:
        self.reads += 1
        return self.layers[name].clone()

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)


def counted(vectors: TaskVectors) -> tuple[TaskVectors, CountedLayers]:
    layers = CountedLayers(vectors.layers)
    return TaskVectors(vectors.pretrained, vectors.task_names, layers), layers


class TestOrderStatistics:
    @pytest.mark.parametrize("width", [16, 32, 64])
    def test_all_ranks_equal_numpys_sort(self, width: int) -> None:
        @given(rows=floats(width), data=st.data())
        @settings(deadline=None, max_examples=40)
        def check(rows: np.ndarray, data: st.DataObject) -> None:
            count = rows.shape[1]
            vectors = two_layers(rows, data.draw(st.integers(0, count)))
            found = kth_smallest_magnitudes(vectors, range(1, count + 1)).numpy()
            assert found.dtype == rows.dtype
            np.testing.assert_array_equal(found, np.sort(np.abs(rows), axis=1))

        check()

    @given(rows=floats(32))
    @settings(deadline=None, max_examples=40)
    def test_bfloat16_equals_numpys_sort(self, rows: np.ndarray) -> None:
        values = torch.from_numpy(rows).bfloat16()
        vectors = task_vectors_of({"layer": values})
        found = kth_smallest_magnitudes(vectors, [1, rows.shape[1]])
        expected = np.sort(values.abs().float().numpy(), axis=1)[:, [0, -1]]
        assert found.dtype == torch.bfloat16
        np.testing.assert_array_equal(found.float().numpy(), expected)

    @pytest.mark.parametrize(
        ("dtypes", "promoted"),
        [
            ([torch.float16, torch.bfloat16], torch.float32),
            ([torch.float32, torch.float16, torch.bfloat16], torch.float32),
            ([torch.float16, torch.float64], torch.float64),
        ],
    )
    def test_layers_of_several_dtypes_are_compared_in_the_promoted_one(
        self, dtypes: list[torch.dtype], promoted: torch.dtype
    ) -> None:
        layers = random_layers({f"layer{i}": (7, i + 1) for i in range(len(dtypes))})
        layers = {n: s.to(d) for (n, s), d in zip(layers.items(), dtypes, strict=True)}
        flat = np.concatenate([s.double().flatten(1).numpy() for s in layers.values()], axis=1)
        ranks = range(1, flat.shape[1] + 1)
        found = kth_smallest_magnitudes(task_vectors_of(layers), ranks)
        assert found.dtype == promoted
        np.testing.assert_array_equal(found.double().numpy(), np.sort(np.abs(flat), axis=1))

    def test_magnitudes_of_a_model_that_share_their_upper_bits(self) -> None:
        rows = 1 + np.arange(2000, dtype=np.float32)[::-1] / 2**23
        found = kth_smallest_magnitudes(two_layers(rows[None].copy(), 700), [1, 1234, 2000])
        assert found.tolist() == [[1, 1 + 1233 / 2**23, 1 + 1999 / 2**23]]

    @pytest.mark.parametrize(
        ("dtype", "passes"),
        [(torch.float16, 1), (torch.bfloat16, 1), (torch.float32, 2), (torch.float64, 4)],
    )
    def test_every_layer_is_read_once_a_pass(self, dtype: torch.dtype, passes: int) -> None:
        layers = random_layers({"first": (3, 4), "second": (5,), "third": ()})
        vectors, reads = counted(task_vectors_of({n: s.to(dtype) for n, s in layers.items()}))
        kth_smallest_magnitudes(vectors, [1, 9, 18])
        assert reads.reads == 3 * passes

    @pytest.mark.parametrize("rank", [0, -1, 6])
    def test_a_rank_out_of_range_is_refused(self, rank: int) -> None:
        with pytest.raises(InputError, match=f"rank {rank}: must be from 1 to 5"):
            kth_smallest_magnitudes(two_layers(np.ones((2, 5)), 2), [3, rank])


class TestTies:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("keep", [0.001, 0.2, 0.5, 1.0])
    def test_thresholds_are_those_of_the_flat_vector(self, dtype: torch.dtype, keep: float) -> None:
        layers = random_layers({"first": (9, 11), "second": (50,), "third": (2, 3, 4)})
        vectors = task_vectors_of({name: stack.to(dtype) for name, stack in layers.items()})
        found = trim_thresholds(vectors, keep)
        assert found.dtype == dtype
        for k, threshold in enumerate(found):
            magnitudes = sorted(vectors.flat(k).abs().tolist())
            rank = max(len(magnitudes) - int(keep * len(magnitudes)), 1)
            assert threshold.item() == magnitudes[rank - 1]

    @pytest.mark.parametrize(("dtype", "passes"), [(torch.float16, 1), (torch.float32, 2)])
    def test_two_reads_more_than_the_thresholds(self, dtype: torch.dtype, passes: int) -> None:
        layers = random_layers({"first": (3, 4), "second": (5,)})
        vectors, reads = counted(task_vectors_of({n: s.to(dtype) for n, s in layers.items()}))
        kept = trim_and_elect(vectors)
        assert [stack.dtype for stack in kept.layers.values()] == [dtype, dtype]
        assert reads.reads <= 2 * (passes + 2)

    def test_the_majority_sign_of_many_float16_entries(self) -> None:
        layers = {  # more entries of each sign than float16 can count
            "positive": torch.ones(2, 70_000, dtype=torch.float16),
            "negative": -torch.ones(2, 80_000, dtype=torch.float16),
            "undecided": torch.tensor([[1.0], [-1.0]], dtype=torch.float16),
        }
        kept = trim_and_elect(task_vectors_of(layers), keep=1.0)
        assert kept.layers["undecided"].tolist() == [[0], [-1]]


class TestDare:
    SHAPES = {"first": (40, 50), "second": (40, 50), "bias": (30,), "scalar": ()}  # noqa: RUF012

    @pytest.mark.parametrize("drop", [0.1, 0.5, 0.9])
    def test_entries_are_dropped_or_rescaled(self, drop: float) -> None:
        vectors = task_vectors_of(random_layers(self.SHAPES))
        dropped = drop_and_rescale(vectors, drop, seed=3)
        kept = total = 0
        for name, stack in vectors.layers.items():
            expected = stack.numpy() / (1 - drop)
            found = dropped.layers[name].numpy()
            np.testing.assert_allclose(found, np.where(found == 0, 0, expected), rtol=1e-15)
            kept, total = kept + np.count_nonzero(found), total + found.size
        spread = math.sqrt(drop * (1 - drop) / total)  # of the share that stays
        assert abs(kept / total - (1 - drop)) < 5 * spread

    def test_nothing_is_dropped_at_0(self) -> None:
        vectors = task_vectors_of(random_layers(self.SHAPES))
        kept = drop_and_rescale(vectors, drop=0.0)
        assert all(torch.equal(kept.layers[n], stack) for n, stack in vectors.layers.items())

    def test_masks_depend_on_seed_task_and_layer_alone(self) -> None:
        layers = random_layers(self.SHAPES)
        vectors = task_vectors_of(layers)
        dropped = drop_and_rescale(vectors, seed=1)
        backwards = task_vectors_of(dict(reversed(layers.items())))
        fewer = vectors.select(("task2", "task0"))
        alone = task_vectors_of({"second": layers["second"]})
        for name, stack in dropped.layers.items():
            assert torch.equal(drop_and_rescale(vectors, seed=1).layers[name], stack)
            assert torch.equal(drop_and_rescale(backwards, seed=1).layers[name], stack)
            assert torch.equal(drop_and_rescale(fewer, seed=1).layers[name], stack[[2, 0]])
        assert torch.equal(
            drop_and_rescale(alone, seed=1).layers["second"], dropped.layers["second"]
        )

    def test_masks_differ_between_seeds_tasks_and_layers(self) -> None:
        ones = torch.ones(2, 40, 50)
        vectors = task_vectors_of({"first": ones, "second": ones})
        masks = [
            drop_and_rescale(vectors, drop=0.5, seed=seed).layers[name][k] != 0
            for seed in (0, 1)
            for name in ("first", "second")
            for k in (0, 1)
        ]
        for i, mask in enumerate(masks):
            for other in masks[:i]:
                assert 0.4 < (mask == other).double().mean() < 0.6  # as independent coins agree

    def test_masks_are_the_same_in_every_process(self) -> None:
        vectors = task_vectors_of({"layer": torch.ones(1, 20)})
        kept = drop_and_rescale(vectors, drop=0.5, seed=7).layers["layer"][0].nonzero().flatten()
        assert kept.tolist() == [0, 1, 2, 5, 7, 8, 11, 12, 13, 16, 17, 18, 19]

    @pytest.mark.parametrize("drop", [1, 1.5, -0.1, float("nan")])
    def test_drop_outside_its_range_is_refused(self, drop: float) -> None:
        rule = rule_for(drop, r"must be in \[0, 1\)")
        with pytest.raises(InputError, match=f"drop = .* {rule}"):
            dare(tiny_problem().task_vectors, drop=drop)


class TestBreadcrumbs:
    @given(
        rows=EIGHTHS,
        beta=st.sampled_from([0, 0.3, 0.5, 0.85]),
        gamma=st.sampled_from([0.9, 0.994, 1]),
        data=st.data(),
    )
    @settings(deadline=None, max_examples=50)
    def test_equals_numpy(
        self, rows: np.ndarray, beta: float, gamma: float, data: st.DataObject
    ) -> None:
        vectors = two_layers(rows, data.draw(st.integers(0, rows.shape[1])))
        kept = mask_tails(vectors, beta, gamma)
        for name, stack in vectors.layers.items():
            for row, found in zip(stack.numpy(), kept.layers[name].numpy(), strict=True):
                expected = [entry if self.stays(entry, row, beta, gamma) else 0 for entry in row]
                np.testing.assert_array_equal(found, expected)

    @staticmethod
    def stays(entry: float, row: np.ndarray, beta: float, gamma: float) -> bool:
        """Whether one of the ranks that the entry shares with its equals is between the tails."""
        last = sum(abs(other) <= abs(entry) for other in row)
        first = sum(abs(other) < abs(entry) for other in row) + 1
        return last > math.floor(beta * len(row)) and first <= math.ceil(gamma * len(row))

    def test_the_smallest_and_the_largest_of_each_tensor_go(self) -> None:
        layers = {
            "matrix": torch.arange(1.0, 101).flip(0).view(1, 20, 5),
            "vector": torch.tensor([[-10.0, 9, -8, 7, -6, 5, -4, 3, -2, 1]]) * 1000,
            "scalar": torch.tensor([0.001]),
        }
        kept = mask_tails(task_vectors_of(layers), beta=0.75, gamma=0.9).layers
        assert sorted(kept["matrix"].flatten().tolist()) == [0.0] * 85 + list(range(76, 91))
        assert kept["vector"].tolist() == [[0, 9000, -8000, 0, 0, 0, 0, 0, 0, 0]]
        assert torch.equal(kept["scalar"], layers["scalar"])

    @pytest.mark.parametrize(
        ("beta", "gamma"), [(0.9, 0.9), (0.9, 0.1), (-0.1, 0.9), (0.1, 1.1), (float("nan"), 0.9)]
    )
    def test_quantiles_out_of_order_are_refused(self, beta: float, gamma: float) -> None:
        rule = rule_for(beta, f", gamma = {gamma}: .*0 <= beta")
        with pytest.raises(InputError, match=f"beta = {beta}.*{rule}"):
            breadcrumbs(tiny_problem().task_vectors, beta=beta, gamma=gamma)


class TestConsensus:
    @given(rows=EIGHTHS, tall_lambda=st.sampled_from([0.25, 0.4, 1, 2]), data=st.data())
    @settings(deadline=None, max_examples=50)
    def test_equals_numpy(self, rows: np.ndarray, tall_lambda: float, data: st.DataObject) -> None:
        min_tasks = data.draw(st.integers(1, len(rows)))
        vectors = two_layers(rows, data.draw(st.integers(0, rows.shape[1])))
        expected = rows.copy()
        for column in range(rows.shape[1]):
            merged = rows[:, column].sum()
            users = sum(abs(tau) >= abs(merged - tau) * tall_lambda for tau in rows[:, column])
            if users < min_tasks:
                expected[:, column] = 0
        masked = consensus_mask(vectors, tall_lambda, min_tasks)
        found = np.concatenate([stack.numpy() for stack in masked.layers.values()], axis=1)
        np.testing.assert_array_equal(found, expected)

    def test_selfish_and_catastrophic_weights_go(self) -> None:
        shared, selfish = [1.0, 1.0, 1.0], [4.0, 0.5, 0.5]
        vectors = task_vectors_of({"layer": torch.tensor([shared, selfish]).T})

        def kept(tall_lambda: float, min_tasks: int) -> list[list[float]]:
            return consensus_mask(vectors, tall_lambda, min_tasks).layers["layer"].T.tolist()

        gone = [0, 0, 0]
        assert kept(tall_lambda=0.4, min_tasks=2) == [shared, gone]
        assert kept(tall_lambda=0.4, min_tasks=1) == [shared, selfish]
        # no task's own entry is 1.5 times what the others add to the shared weight
        assert kept(tall_lambda=1.5, min_tasks=1) == [gone, selfish]

    @pytest.mark.parametrize("tall_lambda", [0, -0.4, float("nan"), float("inf")])
    def test_a_lambda_out_of_range_is_refused(self, tall_lambda: float) -> None:
        rule = rule_for(tall_lambda, "must be above 0")
        with pytest.raises(InputError, match=f"tall_lambda = {tall_lambda}: {rule}"):
            consensus(tiny_problem().task_vectors, tall_lambda=tall_lambda)

    @pytest.mark.parametrize(
        ("min_tasks", "rule"),
        [
            (0, "must be from 1 to the 3"),
            (4, "must be from 1 to the 3"),
            (math.nan, "must be a whole"),
        ],
    )
    def test_a_number_of_tasks_out_of_range_is_refused(self, min_tasks: int, rule: str) -> None:
        with pytest.raises(InputError, match=f"min_tasks = {min_tasks}: {rule}"):
            consensus(tiny_problem().task_vectors, min_tasks=min_tasks)


VIT = [
    "positional_embedding",
    "proj",
    "conv1.weight",
    *(f"transformer.resblocks.{block}.attn.in_proj_weight" for block in range(12)),
    *(f"transformer.resblocks.{block}.mlp.c_fc.bias" for block in range(12)),
    "ln_post.weight",
]


class TestLines:
    @pytest.mark.parametrize("prefix", ["", "visual."])
    def test_blocks_of_an_open_clip_vit(self, prefix: str) -> None:
        blocks = block_of(prefix + name for name in VIT)
        expected = {
            f"{prefix}transformer.resblocks.{block}.{tensor}": (block, 12)
            for block in range(12)
            for tensor in ("attn.in_proj_weight", "mlp.c_fc.bias")
        }
        assert blocks == expected

    def test_blocks_of_a_timm_efficientnet(self) -> None:
        depths = {0: 1, 1: 2, 2: 2, 3: 3, 4: 3, 5: 4, 6: 1}  # blocks a stage, as in lite0
        names = ["trunk.conv_stem.weight", "trunk.bn1.running_mean", "head.proj.weight"]
        inside = [
            f"trunk.blocks.{stage}.{block}.{tensor}"
            for stage, count in depths.items()
            for block in range(count)
            for tensor in ("conv_dw.weight", "bn3.running_var")
        ]
        blocks = block_of(names + inside)
        assert blocks == {name: (i // 2, 16) for i, name in enumerate(inside)}

    def test_blocks_of_a_resnet(self) -> None:
        inside = [f"layer{s}.{b}.conv2.weight" for s in (1, 2, 3, 4) for b in (0, 1)]
        inside.insert(3, "layer2.0.downsample.0.weight")
        blocks = block_of(["conv1.weight", "bn1.bias", *inside, "fc.weight"])
        indices = [0, 1, 2, 2, 3, 4, 5, 6, 7]
        assert [blocks[name] for name in inside] == [(index, 8) for index in indices]
        assert len(blocks) == len(inside)

    def test_towers_are_counted_apart(self) -> None:
        names = [f"visual.transformer.resblocks.{b}.weight" for b in range(3)]
        names += [f"transformer.resblocks.{b}.weight" for b in range(5)]
        blocks = block_of(names)
        assert blocks["visual.transformer.resblocks.2.weight"] == (2, 3)
        assert blocks["transformer.resblocks.2.weight"] == (2, 5)

    @given(names=st.permutations(VIT))
    @settings(deadline=None, max_examples=20)
    def test_the_order_of_the_names_does_not_matter(self, names: list[str]) -> None:
        assert block_of(names) == block_of(VIT)

    @pytest.mark.parametrize(("alpha", "beta"), [(0.0, 1.0), (0.2, 0.7), (1.0, 0.0)])
    def test_equals_the_formula(self, alpha: float, beta: float) -> None:
        vectors = task_vectors_of(random_layers(dict.fromkeys(sorted(VIT), (2, 3))))
        merged = lines(vectors, alpha=alpha, beta=beta)
        for name, stack in vectors.layers.items():
            scale = alpha
            for block in range(1, 13):  # the paper counts blocks from 1
                if f".{block - 1}." in name:
                    scale = alpha + beta * (block - 1) / (12 - 1)
            expected = 1 + scale * stack.numpy().sum(axis=0)
            np.testing.assert_allclose(merged[name].numpy(), expected, rtol=1e-12, atol=1e-14)

    def test_alpha_is_by_default_the_mean(self) -> None:
        vectors = task_vectors_of(random_layers(dict.fromkeys(VIT, (2,)), tasks=4))
        scaled = scale_by_depth(vectors, beta=0.3)
        for name in ("transformer.resblocks.0.mlp.c_fc.bias", "proj", "ln_post.weight"):
            expected = vectors.layers[name].numpy() / 4
            np.testing.assert_allclose(scaled.layers[name].numpy(), expected, rtol=1e-15)

    def test_blocks_that_no_task_changed_count(self) -> None:
        layers = random_layers({"blocks.2.weight": (2,), "blocks.4.weight": (2,)})
        pretrained = {f"blocks.{block}.weight": torch.ones(2).double() for block in range(5)}
        vectors = TaskVectors(pretrained, ("a", "b", "c"), layers)
        scaled = scale_by_depth(vectors, alpha=0.0, beta=1.0)
        assert torch.equal(scaled.layers["blocks.2.weight"], 0.5 * layers["blocks.2.weight"])
        assert torch.equal(scaled.layers["blocks.4.weight"], layers["blocks.4.weight"])

    def test_a_single_block_takes_alpha(self) -> None:
        layers = random_layers({"blocks.0.weight": (2,)})
        scaled = scale_by_depth(task_vectors_of(layers), alpha=0.5, beta=1.0)
        assert torch.equal(scaled.layers["blocks.0.weight"], 0.5 * layers["blocks.0.weight"])

    def test_a_model_without_blocks_is_refused(self) -> None:
        with pytest.raises(InputError, match="its depth is unknown; choose another method"):
            lines(tiny_problem().task_vectors)

    @pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
    def test_scales_out_of_range_are_refused_all_at_once(self, value: float) -> None:
        with pytest.raises(InputError) as caught:
            lines(tiny_problem().task_vectors, alpha=value, beta=value)
        assert f"alpha = {value}: must be" in str(caught.value)
        assert f"beta = {value}: must be" in str(caught.value)


PAIRS: dict[str, tuple[str, Callable[..., TaskVectors]]] = {
    "dare": ("drop_and_rescale", drop_and_rescale),
    "breadcrumbs": ("mask_tails", mask_tails),
    "consensus": ("consensus_mask", consensus_mask),
}


TOLERANCES = {torch.bfloat16: 6e-2, torch.float16: 8e-3, torch.float32: 2e-4, torch.float64: 1e-9}
"""By dtype what another order of sums may change in a merged model whose entries are about 1."""


def random_statistics(
    needed: str | None, vectors: TaskVectors, device: str
) -> list[dict[str, dict[str, Tensor]]]:
    """What a rule takes beside the task vectors, if anything, on a device: the same each time."""
    if needed is None:
        return []
    generator = torch.Generator().manual_seed(6)
    found: dict[str, dict[str, Tensor]] = {name: {} for name in vectors.task_names}
    for statistics in found.values():
        for name, tensor in vectors.pretrained.items():
            if needed == "fisher_diagonal":
                statistics[name] = torch.rand(tensor.shape, generator=generator).to(device)
            elif tensor.dim() > 1:  # a Gram matrix
                inputs = torch.randn(50, tensor[0].numel(), generator=generator)
                statistics[name] = (inputs.T @ inputs / 50).to(device)
    return [found]


class TestAll:
    @pytest.mark.parametrize("rule", PAIRS)
    def test_a_rule_is_task_arithmetic_over_its_preprocessing(self, rule: str) -> None:
        problem = tiny_problem()
        vectors = problem.task_vectors
        preprocessed = PAIRS[rule][1](vectors).layers
        merged = RULES[rule](vectors, scaling=0.7)
        assert preprocessed.keys() == stacked(naive_vectors(problem)).keys()
        for name, tensor in problem.pretrained.items():
            total = preprocessed[name].numpy().sum(axis=0) if name in preprocessed else 0
            expected = tensor.numpy() + 0.7 * total
            np.testing.assert_allclose(merged[name].numpy(), expected, rtol=1e-12, atol=1e-14)

    @pytest.mark.gpu
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("preprocessing", [trim_and_elect, *(p for _, p in PAIRS.values())])
    def test_a_gpu_gives_what_the_cpu_gives(
        self, preprocessing: Callable[..., TaskVectors], dtype: torch.dtype
    ) -> None:
        layers = random_layers({"matrix": (40, 50), "bias": (7,), "scale": ()})
        vectors = task_vectors_of({n: stack.to(dtype) for n, stack in layers.items()})
        expected = preprocessing(vectors).layers
        found = preprocessing(vectors.to("cuda")).layers
        for name, stack in expected.items():
            assert found[name].device.type == "cuda"
            assert torch.equal(found[name].cpu() != 0, stack != 0)
            torch.testing.assert_close(found[name].cpu(), stack)

    @pytest.mark.gpu
    @pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES.items())
    @pytest.mark.parametrize("rule", sorted(RULES.keys() - {"published_coefficients"}))
    def test_every_rule_on_a_gpu_gives_the_cpu_s_model(
        self, rule: str, dtype: torch.dtype, tolerance: float
    ) -> None:
        shapes = {
            "blocks.0.weight": (12, 20),
            "blocks.1.kernel": (8, 3, 2, 2),
            "blocks.1.bias": (7,),
        }
        layers = {name: stack.to(dtype) for name, stack in random_layers(shapes).items()}
        vectors = task_vectors_of(layers)
        models = {
            device: RULES[rule](
                vectors.to(device), *random_statistics(RULES[rule].needs, vectors, device)
            )
            for device in ("cpu", "cuda")
        }
        for name, tensor in models["cuda"].items():
            assert (tensor.device.type, tensor.dtype) == ("cuda", dtype)
            torch.testing.assert_close(
                tensor.cpu(), models["cpu"][name], rtol=tolerance, atol=tolerance
            )

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("name", ["lines", *PAIRS])
    def test_dtypes_stay_and_each_layer_is_read_once(self, name: str, dtype: torch.dtype) -> None:
        preprocessing = BEFORE[PAIRS[name][0] if name in PAIRS else "scale_by_depth"]
        layers = random_layers({"blocks.0.weight": (4, 5), "blocks.1.bias": (5,), "scale": ()})
        original = task_vectors_of({n: stack.to(dtype) for n, stack in layers.items()})
        vectors, reads = counted(original)
        changed = preprocessing(vectors)
        assert {n: (s.dtype, s.shape) for n, s in changed.layers.items()} == {
            n: (dtype, s.shape) for n, s in original.layers.items()
        }
        assert reads.reads == 3
        assert all(torch.equal(original.layers[n], s.to(dtype)) for n, s in layers.items())
        assert {tensor.dtype for tensor in RULES[name](original).values()} == {dtype}

    @pytest.mark.parametrize("name", ["lines", "ties_merging", *PAIRS])
    def test_layers_in_files_give_the_same_model(self, name: str, tmp_path: Path) -> None:
        layers = random_layers({"blocks.0.weight": (4, 5), "blocks.1.bias": (5,)})
        vectors = task_vectors_of({n: stack.float() for n, stack in layers.items()})
        paths = {task_name: tmp_path / task_name for task_name in vectors.task_names}
        vectors.save(paths)
        from_files = RULES[name](TaskVectors.open(vectors.pretrained, paths))
        for layer, tensor in RULES[name](vectors).items():
            assert torch.equal(from_files[layer], tensor)

    @pytest.mark.parametrize("name", ["lines", *PAIRS])
    def test_task_vectors_without_layers_give_the_pretrained_model(self, name: str) -> None:
        pretrained = {"blocks.0.weight": torch.arange(3.0), "steps": torch.tensor(4)}
        merged = RULES[name](TaskVectors(pretrained, ("a", "b"), {}))
        assert all(torch.equal(merged[n], tensor) for n, tensor in pretrained.items())
