"""Checkpoints on disk: round trips, broken files, tensors that do not fit, whole or not at all."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import TinyEncoder, tiny_problem

from adamerge_core import checkpoints
from adamerge_core.atomic import atomic_write
from adamerge_core.checkpoints import state_dicts
from adamerge_core.coefficient_files import LearnedCoefficients
from adamerge_core.errors import InputError

TENSORS = {
    "weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "half": torch.tensor([0.5, -2.0], dtype=torch.float16),
    "brain": torch.tensor([0.5, -2.0], dtype=torch.bfloat16),
    "double": torch.tensor([1 / 3], dtype=torch.float64),
    "count": torch.tensor(7),
    "mask": torch.tensor([True, False]),
    "empty": torch.zeros(0, 4),
    "scalar": torch.tensor(2.5),
}


def assert_same(loaded: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert loaded.keys() == expected.keys()
    for name, tensor in expected.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)


def test_safetensors_round_trip_keeps_values_shapes_and_dtypes(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "model.safetensors"
    checkpoints.save(path, TENSORS, {"task_name": "digits"})
    assert_same(checkpoints.load(path), TENSORS)
    assert checkpoints.read_metadata(path) == {"task_name": "digits"}


def test_views_parameters_and_tied_tensors_are_saved_by_value(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    matrix = torch.arange(12.0).reshape(3, 4)
    tensors = {"transposed": matrix.T, "row": matrix[1], "tied": matrix, "tied again": matrix}
    checkpoints.save(path, {**tensors, "parameter": torch.nn.Parameter(matrix)})
    assert_same(checkpoints.load(path), {**tensors, "parameter": matrix})


def test_the_same_tensors_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    checkpoints.save(first, TENSORS)
    checkpoints.save(second, TENSORS)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".safetensors", ""])
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
def test_torch_files_of_tensors_are_read(
    tmp_path: Path, suffix: str, legacy: bool, wrapped: bool
) -> None:
    path = tmp_path / f"model{suffix}"
    content = {"state_dict": TENSORS, "epoch": 3} if wrapped else TENSORS
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    assert_same(checkpoints.load(path), TENSORS)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ""])
def test_what_save_wrote_is_read_whatever_its_suffix(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    checkpoints.save(path, TENSORS, {"task_name": "digits"})
    assert_same(checkpoints.load(path), TENSORS)
    assert checkpoints.read_metadata(path) == {"task_name": "digits"}


def test_a_header_whose_length_looks_like_a_pickle_is_one_of_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    name = "w" * 500
    checkpoints.save(path, {name: torch.ones(2)})
    length = int.from_bytes(path.read_bytes()[:8], "little")
    name += "w" * (0x0280 - length)
    checkpoints.save(path, {name: torch.ones(2)})
    assert path.read_bytes().startswith(b"\x80\x02")  # as a pickle of protocol 2
    assert_same(checkpoints.load(path), {name: torch.ones(2)})


@pytest.mark.parametrize("content", [None, b"", b"not a checkpoint", b"PK\x03\x04"])
def test_metadata_of_no_safetensors_file_are_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        checkpoints.read_metadata(path)
    assert str(path) in str(caught.value)


def assert_refused(path: Path) -> None:
    with pytest.raises(InputError) as caught:
        checkpoints.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["none.safetensors", "none.pt", "folder.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    assert_refused(tmp_path / name)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint\n" * 20, b"PK\x03\x04", bytes(64)])
def test_a_file_of_something_else_is_named(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    assert_refused(path)


@given(share=st.floats(0, 1, exclude_max=True))
@settings(deadline=None, max_examples=40)
def test_a_truncated_safetensors_file_is_refused(
    tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    path = tmp_path_factory.mktemp("cut") / "model.safetensors"
    checkpoints.save(path, TENSORS)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert_refused(path)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_torch_file_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "model.pt"
    torch.save(TENSORS, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert_refused(path)


@given(content=st.binary(max_size=64))
@settings(deadline=None, max_examples=60)
def test_arbitrary_bytes_are_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("bytes") / "model.safetensors"
    path.write_bytes(content)
    assert_refused(path)


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("suffix", [".pt", ".bin", ".safetensors"])
def test_loading_never_runs_code_from_the_file(tmp_path: Path, suffix: str, legacy: bool) -> None:
    path, witness = tmp_path / f"model{suffix}", tmp_path / "code ran"
    content = {"weight": torch.ones(2), "hook": Malicious(witness)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    assert_refused(path)
    assert not witness.exists()
    path.write_bytes(pickle.dumps(Malicious(witness)))
    assert_refused(path)
    assert not witness.exists()


def test_a_pickled_module_is_refused_with_the_fix(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(TinyEncoder(), path)
    with pytest.raises(InputError, match=r"save model\.state_dict\(\)") as caught:
        checkpoints.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [[torch.ones(2)], {"epoch": 3}, torch.ones(2), 5])
def test_a_torch_file_without_a_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "model.pt"
    torch.save(content, path)
    with pytest.raises(InputError, match="no state dict"):
        checkpoints.load(path)


@pytest.mark.parametrize("error", [RuntimeError, OSError, KeyboardInterrupt])
def test_a_save_that_fails_midway_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    path = tmp_path / "model.safetensors"
    checkpoints.save(path, TENSORS)

    def write_half(tensors: object, target: Path, metadata: object) -> None:
        target.write_bytes(b"half")
        raise error("no space left")

    monkeypatch.setattr(state_dicts, "save_file", write_half)
    with pytest.raises(error):
        checkpoints.save(path, {"weight": torch.zeros(3)})
    assert_same(checkpoints.load(path), TENSORS)
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_shows_the_old_file_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("one")
        assert not path.exists()
        assert temporary.suffix == path.suffix
    with atomic_write(path) as temporary:
        temporary.write_text("two")
        assert path.read_text() == "one"
    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]


def test_every_tensor_that_does_not_fit_is_in_one_error() -> None:
    problem = tiny_problem()
    good, first, second = (dict(problem.pretrained) for _ in range(3))
    del first["hidden.bias"]
    first["text.weight"] = torch.zeros(2)
    first["projection.weight"] = torch.zeros(6, 8, dtype=torch.float64)
    second["convolution.bias"] = good["convolution.bias"].float()
    second["hidden.weight"] = good["hidden.weight"].clone()
    second["hidden.weight"][0, :2] = torch.tensor([torch.nan, torch.inf])
    second["batches_seen"] = torch.tensor([8])
    first["batches_seen"] = torch.tensor(8)  # another value is no fault, see below
    good["phases"], first["phases"] = torch.tensor([1j]), torch.tensor([1j])
    second["phases"] = torch.tensor([2j])
    pretrained = {**good, "projection.bias": torch.full((6,), torch.nan, dtype=torch.float64)}
    with pytest.raises(InputError) as caught:
        checkpoints.check_same_architecture(
            pretrained, {"fits": good, "first": first, "second": second}
        )
    lines = [line.removeprefix("  - ") for line in str(caught.value).splitlines()[1:]]
    assert lines[:-1] == [
        "pretrained: tensor projection.bias has 6 non-finite values",
        "first: tensor hidden.bias is missing",
        "first: tensor projection.weight has shape [6, 8], the pretrained one [6, 7]",
        "first: tensor text.weight is extra",
        "second: complex tensor phases differs from the pretrained one",
        "second: tensor batches_seen has shape [1], the pretrained one []",
        "second: tensor convolution.bias is torch.float32, the pretrained one torch.float64",
        "second: tensor hidden.weight has 2 non-finite values",
    ]
    assert lines[-1].startswith("fix: ")


def test_equal_architectures_pass() -> None:
    problem = tiny_problem()
    checkpoints.check_same_architecture(problem.pretrained, problem.finetuned)


def test_integer_tensors_may_differ_in_value_and_in_nothing_else() -> None:
    pretrained = {"count": torch.tensor(3), "index": torch.tensor([0, 1])}
    checkpoints.check_same_architecture(
        pretrained, {"digits": {"count": torch.tensor(9), "index": torch.tensor([1, 0])}}
    )
    with pytest.raises(InputError) as caught:
        checkpoints.check_same_architecture(
            pretrained, {"digits": {"index": torch.tensor([0, 1], dtype=torch.int32)}}
        )
    for part in ("tensor count is missing", "tensor index is torch.int32, the pretrained one"):
        assert part in str(caught.value)


def test_coefficients_round_trip_with_their_names(tmp_path: Path) -> None:
    path = tmp_path / "coefficients.safetensors"
    values = torch.tensor([0.1, 0.2, 1 / 3], dtype=torch.float64).expand(2, 3)
    LearnedCoefficients(values, ("a.weight", "b.weight"), ("x", "y", "z")).save(path)
    loaded = LearnedCoefficients.load(path)
    assert torch.equal(loaded.values, values)
    assert loaded.values.dtype == torch.float64
    assert (loaded.layer_names, loaded.task_names) == (("a.weight", "b.weight"), ("x", "y", "z"))


def test_a_checkpoint_that_holds_no_coefficients_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    checkpoints.save(path, TENSORS)
    with pytest.raises(InputError, match="coefficients"):
        LearnedCoefficients.load(path)


def test_coefficients_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    """safetensors writes several metadata entries in an order that changes from call to call."""
    learned = LearnedCoefficients(torch.zeros(2, 2, dtype=torch.float64), ("a", "b"), ("c", "d"))
    contents = set()
    for _ in range(20):
        learned.save(tmp_path / "coefficients.safetensors")
        contents.add((tmp_path / "coefficients.safetensors").read_bytes())
    assert len(contents) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_values_whose_sum_overflows_are_finite(dtype: torch.dtype) -> None:
    largest = torch.full((9, 5), torch.finfo(dtype).max, dtype=dtype)
    assert checkpoints.all_finite(largest)
    assert checkpoints.all_finite(torch.zeros(0, dtype=dtype))
    for value in (torch.nan, torch.inf, -torch.inf):
        largest[3, 2] = value
        assert not checkpoints.all_finite(largest)


def test_metadata_of_several_entries_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    entries = {
        name: f'{name} ä \u0000 "x" \U0001f600' for name in ["source", "sha256", "recipe", "date"]
    }
    tensors = {"a": torch.arange(3.0), "b": torch.ones(2, 2)}
    written = set()
    for _ in range(8):
        checkpoints.save(tmp_path / "model", tensors, entries)
        written.add((tmp_path / "model").read_bytes())
    assert len(written) == 1
    assert checkpoints.read_metadata(tmp_path / "model") == entries
    assert torch.equal(checkpoints.load(tmp_path / "model")["b"], tensors["b"])
