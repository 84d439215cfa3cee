"""Task vectors in files: the same results as in memory, one layer at a time, broken files named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from small_models import CLASSES, UNCHANGED, Problem, tiny_problem
from torch import Tensor

from adamerge_core import checkpoints, storage
from adamerge_core.adamerging import Engine, MergingCoefficients
from adamerge_core.analysis import inner_products
from adamerge_core.checkpoints import tensor_files
from adamerge_core.checkpoints.tensor_files import TensorFile
from adamerge_core.errors import InputError
from adamerge_core.merging import trim_and_elect
from adamerge_core.storage import StoredLayers, tensor_writer
from adamerge_core.task_vectors import TaskVectors

ROOT = Path(__file__).parents[2]

TENSORS = {
    "weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "half": torch.tensor([0.5, -2.0], dtype=torch.float16),
    "brain": torch.tensor([0.5, -2.0, 3.0], dtype=torch.bfloat16),
    "double": torch.tensor([1 / 3], dtype=torch.float64),
    "count": torch.tensor(7),
    "mask": torch.tensor([True, False, True]),
    "empty": torch.zeros(0, 4),
    "scalar": torch.tensor(2.5),
}
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def paths_in(folder: Path) -> dict[str, Path]:
    return {name: folder / f"{name}.safetensors" for name in CLASSES}


def stored(problem: Problem, folder: Path) -> tuple[TaskVectors, TaskVectors]:
    """The same task vectors in files and in memory."""
    vectors = problem.task_vectors
    vectors.save(paths_in(folder))
    return TaskVectors.open(problem.pretrained, paths_in(folder)), vectors


@pytest.fixture
def pair(tmp_path: Path) -> tuple[TaskVectors, TaskVectors]:
    return stored(tiny_problem(), tmp_path)


def assert_same_layers(ours: TaskVectors, expected: TaskVectors) -> None:
    assert (ours.task_names, ours.layer_names) == (expected.task_names, expected.layer_names)
    for name, stack in expected.layers.items():
        assert ours.layers[name].dtype == stack.dtype
        assert torch.equal(ours.layers[name], stack)


def assert_same(state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())


# files


def test_a_file_is_a_state_dict_read_tensor_by_tensor(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    checkpoints.save(path, TENSORS)
    file = TensorFile(path)
    assert set(file) == set(TENSORS)
    assert len(file) == len(TENSORS)
    assert "weight" in file
    assert "text" not in file
    for name, tensor in TENSORS.items():
        assert (file.layout[name].shape, file.layout[name].dtype) == (tensor.shape, tensor.dtype)
        assert (file[name].shape, file[name].dtype) == (tensor.shape, tensor.dtype)
        assert torch.equal(file[name], tensor)


def test_a_written_file_is_read_by_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    layout = dict(sorted(TENSORS.items(), key=lambda entry: -entry[1].itemsize))
    with tensor_writer(path, layout, {"task_name": "ä"}) as append:
        for tensor in layout.values():
            append(tensor)
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"task_name": "ä"}
        assert_same({name: file.get_tensor(name) for name in TENSORS}, TENSORS)


@given(
    count=st.sampled_from([0, 1, 7, 8, 9, 16, 21]),
    stored_as=st.sampled_from(DTYPES),
    read_as=st.sampled_from([*DTYPES, torch.float64]),
)
@settings(deadline=None, max_examples=40)
def test_reading_in_chunks_converts_every_entry(
    tmp_path_factory: pytest.TempPathFactory,
    count: int,
    stored_as: torch.dtype,
    read_as: torch.dtype,
) -> None:
    path = tmp_path_factory.mktemp("chunks") / "model.safetensors"
    values = torch.linspace(-3, 3, count).to(stored_as)
    checkpoints.save(path, {"first": torch.ones(3), "values": values})
    target = torch.full((count,), torch.nan, dtype=read_as)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensor_files, "_CHUNK", 16)  # 4 or 8 entries
        TensorFile(path).read_into("values", target)
    assert torch.equal(target, values.to(read_as))


def test_a_file_replaced_after_it_was_opened_is_read_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    checkpoints.save(path, {"weight": torch.ones(5)})
    file = TensorFile(path)
    checkpoints.save(path, {"text": torch.zeros(2), "weight": torch.zeros(5)})
    assert torch.equal(file["weight"], torch.ones(5))


def test_a_file_cut_after_it_was_opened_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    checkpoints.save(path, {"weight": torch.ones(5)})
    file = TensorFile(path)
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(InputError, match="cut short"):
        file["weight"]


def test_files_are_closed_when_nothing_reads_them_any_more(tmp_path: Path) -> None:
    in_files, _ = stored(tiny_problem(), tmp_path)

    def descriptors() -> int:
        folder, files = Path("/proc/self/fd"), set(paths_in(tmp_path).values())
        return sum(link.resolve() in files for link in folder.iterdir())

    if not Path("/proc/self/fd").exists():
        pytest.skip("open files are counted in /proc")
    part = in_files.map_layers(lambda _, stack: 2 * stack).select(("signs",))
    assert descriptors() == len(CLASSES)
    del in_files
    part.flat(0)
    del part
    assert descriptors() == 0


def raw_file(path: Path, header: dict, data: int) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(data))


def entry(start: int, end: int, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": [2], "data_offsets": [start, end]}


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({"a": entry(0, 8), "b": entry(4, 12)}, 12),  # overlap
        ({"a": entry(0, 8), "b": entry(12, 20)}, 20),  # a hole
        ({"a": entry(0, 8)}, 4),  # truncated
        ({"a": entry(0, 8)}, 12),  # bytes of no tensor
        ({"a": entry(0, 4)}, 4),  # too small for its shape
        ({"a": entry(0, 2, "F8_E4M3")}, 2),  # no dtype of a model here
        ({"a": {"dtype": "F32"}}, 0),
        ([1, 2], 0),
    ],
)
def test_a_broken_layout_is_refused(tmp_path: Path, header: dict, data: int) -> None:
    path = tmp_path / "model.safetensors"
    raw_file(path, header, data)
    with pytest.raises(InputError) as caught:
        TensorFile(path)
    assert str(path) in str(caught.value)


def test_all_broken_files_are_in_one_error(tmp_path: Path) -> None:
    problem, paths = tiny_problem(), paths_in(tmp_path)
    problem.task_vectors.save(paths)
    paths["letters"].unlink()
    paths["signs"].write_bytes(paths["signs"].read_bytes()[:-1])
    for read in (TaskVectors.open, TaskVectors.load):
        with pytest.raises(InputError, match="2 faults") as caught:
            read(problem.pretrained, paths)
        assert "letters: checkpoint" in str(caught.value)
        assert "signs: checkpoint" in str(caught.value)


def test_all_tensors_that_do_not_fit_are_in_one_error(tmp_path: Path) -> None:
    problem, paths = tiny_problem(), paths_in(tmp_path)
    vector = {name: stack[0] for name, stack in problem.task_vectors.layers.items()}
    checkpoints.save(paths["digits"], vector)
    less = {n: t for n, t in vector.items() if n != "hidden.weight"}
    checkpoints.save(paths["letters"], {**less, "projection.bias": torch.zeros(2)})
    integers = vector["projection.bias"].int()
    checkpoints.save(
        paths["signs"], {**vector, "text": torch.zeros(2), "projection.bias": integers}
    )
    with pytest.raises(InputError) as caught:
        TaskVectors.open(problem.pretrained, paths)
    assert str(caught.value).splitlines()[1:] == [
        "  - letters: tensor hidden.weight is missing",
        "  - letters: tensor projection.bias has shape [2], the pretrained one [6]",
        "  - signs: tensor projection.bias is torch.int32, the pretrained one torch.float64",
        "  - signs: tensor text is extra",
    ]


@pytest.mark.parametrize(
    ("model", "file"),
    [
        (torch.float16, torch.float32),
        (torch.float16, torch.bfloat16),
        (torch.bfloat16, torch.float16),
        (torch.float32, torch.float64),
    ],
)
def test_a_file_that_the_models_dtype_would_round_is_refused(
    tmp_path: Path, model: torch.dtype, file: torch.dtype
) -> None:
    path = tmp_path / "digits.safetensors"
    checkpoints.save(path, {"weight": torch.ones(2, dtype=file)})
    with pytest.raises(InputError, match=f"tensor weight is {file}, the pretrained one {model}"):
        TaskVectors.open({"weight": torch.ones(2, dtype=model)}, {"digits": path})


def test_non_finite_values_are_refused_at_each_access(tmp_path: Path) -> None:
    pretrained, paths = {"weight": torch.ones(3), "bias": torch.ones(1)}, paths_in(tmp_path)
    for path, value in zip(paths.values(), (0.5, torch.nan, torch.inf), strict=True):
        checkpoints.save(path, {"weight": torch.tensor([1, value, 2]), "bias": torch.ones(1)})
    vectors = TaskVectors.open(pretrained, paths)
    assert torch.equal(vectors.layers["bias"], torch.ones(3, 1))
    for chosen in (vectors, vectors, vectors.select(("digits", "signs", "letters"))):
        with pytest.raises(InputError, match="2 faults") as caught:
            chosen.layers["weight"]
        for name in ("letters", "signs"):
            assert f"{name}: tensor weight has 1 non-finite values" in str(caught.value)
    assert torch.equal(vectors.select(("digits",)).layers["weight"][0, 1], torch.tensor(0.5))
    with pytest.raises(InputError, match="non-finite"):
        TaskVectors.load(pretrained, paths)


def test_no_file_at_all_is_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        TaskVectors.open({}, {})


# devices


def test_layers_are_placed_where_the_pretrained_model_is(tmp_path: Path) -> None:
    """Of the meta device, which has shapes and no data; reading there is a GPU's test."""
    in_files, in_memory = stored(tiny_problem(), tmp_path)
    elsewhere = in_memory.to("meta").pretrained
    opened = TaskVectors.open(elsewhere, paths_in(tmp_path))
    doubled = opened.map_layers(lambda _, stack: 2 * stack)
    moved = in_files.map_layers(lambda _, stack: 2 * stack).to("meta")
    for vectors in (opened, doubled, doubled.select(("signs",)), in_files.to("meta"), moved):
        assert vectors.layers.device == torch.device("meta")
    for layers in (in_files.layers, in_files.layers.select([2]), doubled.layers.to("cpu")):
        assert layers.device == torch.device("cpu")
    assert moved.layers["hidden.weight"].device == torch.device("meta")


@pytest.mark.gpu
def test_files_are_read_to_the_gpu_that_the_pretrained_model_is_on(tmp_path: Path) -> None:
    problem = tiny_problem()
    in_files, in_memory = stored(problem, tmp_path)
    pretrained = {name: tensor.to("cuda") for name, tensor in problem.pretrained.items()}
    made = tmp_path / "made"
    opened = [
        TaskVectors.open(pretrained, paths_in(tmp_path)),
        TaskVectors.load(pretrained, paths_in(tmp_path)),
        TaskVectors.from_checkpoint_files(
            pretrained, save_models(problem, tmp_path), paths_in(made)
        ),
        TaskVectors.from_checkpoints(pretrained, problem.finetuned),
        in_files.to("cuda"),
    ]
    coefficients = torch.rand(5, 3, dtype=torch.float64)
    expected = Engine(problem.encoder, in_memory, problem.heads).loss_and_gradient(
        coefficients, problem.images
    )
    heads = {name: head.to("cuda") for name, head in tiny_problem().heads.items()}
    for vectors in opened:
        assert {stack.device.type for stack in vectors.layers.values()} == {"cuda"}
        for name, stack in in_memory.layers.items():
            torch.testing.assert_close(vectors.layers[name].cpu(), stack, rtol=1e-15, atol=1e-15)
        engine = Engine(tiny_problem().encoder.to("cuda"), vectors, heads)
        result = engine.loss_and_gradient(coefficients, problem.images)
        assert result.loss == pytest.approx(expected.loss, rel=1e-9)
        torch.testing.assert_close(result.gradient, expected.gradient, rtol=1e-8, atol=1e-11)


# equal results


@given(seed=st.integers(0, 1000), layer_wise=st.booleans(), order=st.permutations(list(CLASSES)))
@settings(deadline=None, max_examples=15)
def test_files_and_memory_give_equal_results(
    tmp_path_factory: pytest.TempPathFactory, seed: int, layer_wise: bool, order: list[str]
) -> None:
    in_files, in_memory = stored(tiny_problem(seed), tmp_path_factory.mktemp("vectors"))
    assert isinstance(in_files.layers, StoredLayers)
    assert_same_layers(in_files, in_memory)
    some = tuple(order[:2])
    coefficients = torch.rand((5, 3) if layer_wise else (3,), dtype=torch.float64)
    changes: list[Callable[[TaskVectors], TaskVectors]] = [
        lambda vectors: vectors,
        lambda vectors: vectors.map_layers(lambda name, stack: stack * len(name) + stack.sum(0)),
        lambda vectors: vectors.select(some),
        lambda vectors: vectors.map_layers(lambda _, stack: stack - stack.mean(0)).select(some),
        lambda vectors: vectors.select(some).map_layers(lambda _, stack: stack - stack.mean(0)),
        lambda vectors: vectors.to("cpu"),
        lambda vectors: vectors.map_layers(lambda _, stack: stack.flip(0)).to("cpu"),
        trim_and_elect,
    ]
    for change in changes:
        ours, expected = change(in_files), change(in_memory)
        assert_same_layers(ours, expected)
        weights = coefficients[..., : len(ours.task_names)]
        assert torch.equal(ours.expand(weights), expected.expand(weights))
        assert_same(ours.merge(weights), expected.merge(weights))
        assert torch.equal(inner_products(ours), inner_products(expected))
        for index in range(len(ours.task_names)):
            assert torch.equal(ours.flat(index), expected.flat(index))


@pytest.mark.parametrize("preprocess", [lambda vectors: vectors, trim_and_elect])
@pytest.mark.parametrize("shape", [(3,), (5, 3)])
def test_an_adaptation_step_from_files_equals_one_in_memory(
    tmp_path: Path, preprocess: Callable[[TaskVectors], TaskVectors], shape: tuple[int, ...]
) -> None:
    problem = tiny_problem()
    coefficients = torch.rand(shape, dtype=torch.float64)
    results = [
        Engine(tiny_problem().encoder, preprocess(vectors), problem.heads).loss_and_gradient(
            coefficients, problem.images
        )
        for vectors in stored(problem, tmp_path)
    ]
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][-1], results[1][-1])


LARGE = {"kernel": (64, 9, 8, 8), "bias": (64,), "weight": (120, 300)}


def large_vectors(folder: Path, dtype: torch.dtype) -> tuple[TaskVectors, dict[str, Tensor]]:
    """Task vectors in files of `dtype`, two of their layers large, and what they hold."""
    pretrained = {name: torch.randn(shape) for name, shape in LARGE.items()}
    stacks = {name: torch.randn(3, *shape).to(dtype) for name, shape in LARGE.items()}
    for row, path in enumerate(paths_in(folder).values()):
        checkpoints.save(path, {name: stack[row] for name, stack in stacks.items()})
    return TaskVectors.open(pretrained, paths_in(folder)), stacks


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_layers_are_merged_and_differentiated_from_files_in_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, threads: int
) -> None:
    monkeypatch.setattr(storage, "_BLOCK", 3 * 4 * 7001)  # divides no layer
    torch.manual_seed(0)
    vectors, stacks = large_vectors(tmp_path, dtype)
    merging = MergingCoefficients(vectors)
    merged = {name: torch.empty(shape) for name, shape in LARGE.items()}
    merged["kernel"] = merged["kernel"].to(memory_format=torch.channels_last)
    coefficients = torch.rand(3, 3, dtype=torch.float64)
    gradients: dict[str, Tensor | None] = {
        name: torch.randn_like(tensor) for name, tensor in merged.items()
    }
    torch.set_num_threads(threads)
    try:
        merging.merge_into(merged, coefficients)
        pulled = merging.pull_back(gradients, coefficients)
    finally:
        torch.set_num_threads(1)
    for row, (name, stack) in enumerate(stacks.items()):
        wide = stack.double()
        expected = vectors.pretrained[name] + torch.einsum("k,k...->...", coefficients[row], wide)
        torch.testing.assert_close(merged[name].double(), expected, rtol=0, atol=1e-5)
        products = [(gradients[name] * each).sum() for each in wide]
        torch.testing.assert_close(pulled[row], torch.stack(products), rtol=1e-4, atol=1e-3)


def test_a_merge_from_files_in_blocks_is_that_from_memory_and_differentiable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_BLOCK", 3 * 4 * 7001)
    vectors, stacks = large_vectors(tmp_path, torch.float32)
    coefficients = torch.rand(3, 3).requires_grad_()
    plain, recorded = vectors.merge(coefficients.detach()), vectors.merge(coefficients)
    for row, (name, stack) in enumerate(stacks.items()):
        wide = torch.einsum("k,k...->...", coefficients[row].double(), stack.double())
        expected = (vectors.pretrained[name] + wide).float().detach()
        torch.testing.assert_close(plain[name], expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(recorded[name].detach(), expected, rtol=0, atol=1e-5)
    sum(tensor.sum() for tensor in recorded.values()).backward()
    sums = torch.stack([stack.flatten(1).sum(1) for stack in stacks.values()])
    torch.testing.assert_close(coefficients.grad, sums, rtol=1e-3, atol=0.05)


def test_blocks_are_a_layer_in_order_and_its_values_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_BLOCK", 3 * 4 * 7001)
    vectors, stacks = large_vectors(tmp_path, torch.float32)
    assert isinstance(vectors.layers, StoredLayers)
    for name, stack in stacks.items():
        blocks = [(entries, block.clone()) for entries, block in vectors.layers.blocks(name)]
        assert [entries.start for entries, _ in blocks] == list(range(0, stack[0].numel(), 7001))
        assert torch.equal(torch.cat([block for _, block in blocks], dim=1), stack.flatten(1))
    stacks["weight"][1, 100, 7] = torch.nan
    path = paths_in(tmp_path)["letters"]
    checkpoints.save(path, {name: stack[1] for name, stack in stacks.items()})
    again = TaskVectors.open(vectors.pretrained, paths_in(tmp_path))
    with pytest.raises(InputError, match="letters: tensor weight has 1 non-finite values"):
        MergingCoefficients(again).merge_into(dict(vectors.pretrained), torch.ones(3))


# what is read


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(task, layer) of every slice read, in order."""
    seen = []
    read = TensorFile.read_into

    def spy(file: TensorFile, name: str, target: Tensor, first: int = 0) -> None:
        seen.append((file.file.path.stem, name))
        read(file, name, target, first)

    monkeypatch.setattr(TensorFile, "read_into", spy)
    return seen


def test_an_access_reads_one_layer_and_nothing_else_reads(pair, reads: list) -> None:
    in_files, _ = pair
    changed = in_files.map_layers(lambda _, stack: 2 * stack).to("cpu").select(("signs", "digits"))
    for vectors in (in_files, changed):
        assert len(vectors.layers) == 5
        assert "hidden.weight" in vectors.layers
        assert UNCHANGED not in vectors.layers
        vectors.expand(torch.zeros(len(vectors.task_names)))
    assert reads == []
    in_files.layers["hidden.weight"]
    assert reads == [(name, "hidden.weight") for name in CLASSES]
    with pytest.raises(KeyError):
        changed.layers[UNCHANGED]


def test_a_merge_reads_each_layer_once_in_order(pair, reads: list) -> None:
    in_files, _ = pair
    in_files.map_layers(lambda _, stack: 2 * stack).merge(torch.ones(3))
    assert reads == [(task, name) for name in in_files.layer_names for task in CLASSES]


def test_a_selection_reads_its_tasks_only(pair, reads: list) -> None:
    in_files, _ = pair
    in_files.select(("signs",)).to("cpu").merge(torch.ones(1))
    in_files.flat(2)
    assert {task for task, _ in reads} == {"signs"}
    assert len(reads) == 2 * len(in_files.layers)


MEASURE = """
import sys
from pathlib import Path
import torch
from torch import nn
from adamerge_core.adamerging import Engine, MergingCoefficients
from adamerge_core.task_vectors import TaskVectors

def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(field))

torch.set_num_threads(1)
encoder = nn.Sequential(*[nn.Linear(1024, 1024, bias=False) for _ in range(6)])
pretrained = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
names = [f"task{k}" for k in range(12)]
vectors = TaskVectors.open(pretrained, dict.fromkeys(names, Path(sys.argv[1])))
heads = {name: nn.Linear(1024, 2) for name in names}
images = {name: torch.randn(1, 1024) for name in names}
before = resident("VmRSS")
vectors.merge(torch.full((12,), 0.3))
merging = resident("VmHWM") - before
engine = Engine(encoder, vectors, heads, precision="float32")
engine.loss_and_gradient(torch.full((6, 12), 0.3), images)
print(merging, resident("VmHWM") - before)
"""


def test_resident_memory_is_bounded_by_one_layer(tmp_path: Path) -> None:
    """288 MiB of task vectors over a model of 24 MiB, whose layers' stacks are 48 MiB."""
    if not Path("/proc/self/status").exists():
        pytest.skip("resident memory is read from /proc")
    path = tmp_path / "every task.safetensors"
    checkpoints.save(path, {f"{i}.weight": torch.ones(1024, 1024).bfloat16() for i in range(6)})
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    merging, adapting = map(int, done.stdout.split())
    assert merging < 2 * 48 + 24 + 16  # a stack, the next one, the merged model; 16 for libraries
    assert adapting < 2 * 48 + 24 + 24 + 48  # the merged model is free, gradients came; libraries


# writing


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_narrower_file_gives_the_values_rounded_once(tmp_path: Path, dtype: torch.dtype) -> None:
    problem, paths = tiny_problem(), paths_in(tmp_path)
    vectors = problem.task_vectors
    vectors.save(paths, dtype)
    expected = vectors.map_layers(lambda _, stack: stack.to(dtype).double())
    assert all(tensor.dtype == dtype for tensor in TensorFile(paths["signs"]).values())
    for read in (TaskVectors.open, TaskVectors.load):
        assert_same_layers(read(problem.pretrained, paths), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model", [*DTYPES, torch.float64])
def test_no_layer_is_widened_or_moved_to_a_dtype_that_rounds_as_much(
    tmp_path: Path, model: torch.dtype, dtype: torch.dtype
) -> None:
    pretrained = {"weight": torch.ones(3, dtype=model)}
    vectors = TaskVectors(pretrained, ("digits",), {"weight": torch.ones(1, 3, dtype=model)})
    paths = {"digits": tmp_path / "digits.safetensors"}
    vectors.save(paths, dtype)
    narrower = dtype.itemsize < model.itemsize
    assert TensorFile(paths["digits"]).layout["weight"].dtype == (dtype if narrower else model)
    assert_same_layers(TaskVectors.open(pretrained, paths), vectors)


def test_layers_of_several_dtypes_are_aligned_in_the_file(tmp_path: Path) -> None:
    pretrained = {
        "half": torch.ones(3, dtype=torch.float16),
        "double": torch.ones(1, dtype=torch.float64),
        "scalar": torch.tensor(1.0),
    }
    layers = {name: torch.stack([tensor, 2 * tensor]) for name, tensor in pretrained.items()}
    vectors = TaskVectors(pretrained, ("a", "b"), layers)
    paths = {name: tmp_path / f"{name}.safetensors" for name in "ab"}
    vectors.save(paths)
    assert_same_layers(TaskVectors.open(pretrained, paths), vectors)
    loaded = checkpoints.load(paths["b"])
    assert all(torch.equal(loaded[name], 2 * tensor) for name, tensor in pretrained.items())


@pytest.mark.parametrize(
    ("value", "dtype"), [(70000.0, torch.float16), (-1e39, torch.float32), (torch.nan, None)]
)
def test_what_a_dtype_does_not_hold_is_refused_and_nothing_written(
    tmp_path: Path, value: float, dtype: torch.dtype | None
) -> None:
    problem = tiny_problem()
    vectors = problem.task_vectors
    vectors.layers["projection.weight"][1, 2, 3] = value
    with pytest.raises(InputError, match=r"letters: layer projection.weight") as caught:
        vectors.save(paths_in(tmp_path), dtype)
    assert f"{value:g}" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.int8])
def test_another_dtype_for_files_is_refused(pair, tmp_path: Path, dtype: torch.dtype) -> None:
    with pytest.raises(InputError, match="must be one of"):
        pair[0].save(paths_in(tmp_path), dtype)


def test_unknown_tasks_are_refused(pair, tmp_path: Path) -> None:
    for vectors in pair:
        with pytest.raises(InputError, match="no task faces; the tasks are digits, letters, signs"):
            vectors.select(("digits", "faces"))
        with pytest.raises(InputError, match="no task faces"):
            vectors.save({"faces": tmp_path / "faces.safetensors"})


def test_changed_layers_can_be_saved_over_the_files_they_are_read_from(tmp_path: Path) -> None:
    problem = tiny_problem()
    in_files, in_memory = stored(problem, tmp_path)
    in_files.map_layers(lambda _, stack: 2 * stack).save(paths_in(tmp_path))
    assert_same_layers(in_files, in_memory)
    doubled = in_memory.map_layers(lambda _, stack: 2 * stack)
    assert_same_layers(TaskVectors.open(problem.pretrained, paths_in(tmp_path)), doubled)


def test_a_save_that_fails_midway_leaves_the_old_files(tmp_path: Path) -> None:
    problem = tiny_problem()
    in_files, in_memory = stored(problem, tmp_path)

    def fail_late(name: str, stack: Tensor) -> Tensor:
        if name == "projection.bias":
            raise OSError("no space left")
        return 2 * stack

    with pytest.raises(OSError, match="no space"):
        in_files.map_layers(fail_late).save(paths_in(tmp_path))
    assert sorted(tmp_path.iterdir()) == sorted(paths_in(tmp_path).values())
    assert_same_layers(TaskVectors.open(problem.pretrained, paths_in(tmp_path)), in_memory)


def test_files_of_no_layer_round_trip(tmp_path: Path) -> None:
    pretrained = {"weight": torch.ones(2)}
    path = tmp_path / "digits.safetensors"
    TaskVectors(pretrained, ("digits",), {}).save({"digits": path})
    vectors = TaskVectors.open(pretrained, {"digits": path})
    assert vectors.layer_names == ()
    assert_same(vectors.merge(torch.ones(1)), pretrained)


# from checkpoints


def save_models(problem: Problem, folder: Path) -> dict[str, Path]:
    paths = {name: folder / f"{name}-model.safetensors" for name in problem.finetuned}
    for name, path in paths.items():
        checkpoints.save(path, problem.finetuned[name])
    return paths


def test_subtracting_files_equals_subtracting_in_memory(tmp_path: Path) -> None:
    problem = tiny_problem()
    models, into = save_models(problem, tmp_path), paths_in(tmp_path)
    made = TaskVectors.from_checkpoint_files(problem.pretrained, models, into)
    assert_same_layers(made, problem.task_vectors)
    narrow = TaskVectors.from_checkpoint_files(problem.pretrained, models, into, torch.bfloat16)
    rounded = problem.task_vectors.map_layers(lambda _, stack: stack.bfloat16().double())
    assert_same_layers(narrow, rounded)


def test_subtracting_files_names_all_misfits_and_writes_nothing(tmp_path: Path) -> None:
    problem = tiny_problem()
    problem.finetuned["letters"]["hidden.weight"][0, 0] = torch.nan
    problem.finetuned["signs"]["batches_seen"] = torch.tensor(8)
    del problem.finetuned["signs"]["projection.bias"]
    with pytest.raises(InputError) as in_memory:
        TaskVectors.from_checkpoints(problem.pretrained, problem.finetuned)
    models = save_models(problem, tmp_path)
    with pytest.raises(InputError) as in_files:
        TaskVectors.from_checkpoint_files(problem.pretrained, models, paths_in(tmp_path))
    assert str(in_files.value) == str(in_memory.value)
    assert sorted(tmp_path.iterdir()) == sorted(models.values())
    with pytest.raises(InputError, match="at least one"):
        TaskVectors.from_checkpoint_files(problem.pretrained, {}, {})
    with pytest.raises(InputError, match="give the same tasks"):
        TaskVectors.from_checkpoint_files(
            problem.pretrained, models, {"digits": tmp_path / "digits.safetensors"}
        )
