"""Two gloo processes against one: coefficients, evaluation, resuming, and ranks that fail."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import distributed_worker as worker
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import tiny_problem

from adamerge_core import distributed
from adamerge_core.batches import rows_between
from adamerge_core.distributed import World
from adamerge_core.errors import InputError

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "distributed.md"

pytestmark = pytest.mark.timeout(600)


def free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[dict[str, Any]]:
    """What each of two ranks got."""
    worker.adapted("early_stopping", folder / "one.safetensors", stop=8)
    spawn = multiprocessing.get_context("spawn")
    arguments = [(rank, ports, folder) for ports in [free_ports(3)] for rank in range(2)]
    processes = [spawn.Process(target=worker.main, args=each) for each in arguments]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(timeout=500)
            assert process.exitcode == 0
    finally:
        for process in processes:
            process.kill()
            process.join()
    return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(2)]


def assert_same(steps: worker.Steps, expected: worker.Steps, relative: float) -> None:
    assert [step.step for step in steps] == [step.step for step in expected]
    for step, other in zip(steps, expected, strict=True):
        torch.testing.assert_close(
            step.coefficients, other.coefficients, rtol=relative, atol=relative
        )
        assert step.loss == pytest.approx(other.loss, rel=relative, abs=relative)
        assert step.entropy == pytest.approx(other.entropy, rel=relative, abs=relative)
        assert (step.held_out_entropy is None) == (other.held_out_entropy is None)
        if step.held_out_entropy is not None:
            assert step.held_out_entropy == pytest.approx(other.held_out_entropy, rel=relative)


@pytest.mark.parametrize("run", worker.RUNS)
def test_two_ranks_learn_what_one_process_learns(ranks: list[dict[str, Any]], run: str) -> None:
    alone = worker.adapted(run)
    assert not torch.equal(alone[0].coefficients, alone[-1].coefficients)
    first, second = (got["runs"][run] for got in ranks)
    assert_same(first, alone, 1e-12)
    assert_same(second, first, 0)


def test_the_same_ranks_give_the_same_bits_again(ranks: list[dict[str, Any]]) -> None:
    for got in ranks:
        assert_same(got["again"], got["runs"]["layer_wise-entropy"], 0)


def test_evaluation_and_expert_targets_are_those_of_one_process(
    ranks: list[dict[str, Any]],
) -> None:
    alone, experts = worker.hits(), worker.experts(tiny_problem())
    for got in ranks:
        for own, expected in zip(got["hits"], alone, strict=True):
            assert own.dtype == bool
            np.testing.assert_array_equal(own, expected)
        assert list(got["experts"]) == list(experts)
        for name, expected in experts.items():
            assert got["experts"][name].dtype == torch.float64
            assert torch.equal(got["experts"][name], expected)


def test_statistics_are_those_of_one_process(ranks: list[dict[str, Any]]) -> None:
    for kind, expected in worker.statistics().items():
        assert expected
        for got in (rank["statistics"][kind] for rank in ranks):
            assert list(got) == list(expected)
            for name, tensor in expected.items():
                assert tensor.abs().max() > 0
                torch.testing.assert_close(got[name], tensor, rtol=1e-12, atol=1e-15)


def test_a_rank_reads_its_own_images_only(ranks: list[dict[str, Any]]) -> None:
    read = [got["rows_read"] for got in ranks]
    assert sum(read) == worker.rows_read()
    assert abs(read[0] - read[1]) <= worker.STEPS


def test_an_interrupted_run_of_two_ranks_ends_as_if_it_had_not_been(
    ranks: list[dict[str, Any]],
) -> None:
    for got in ranks:
        assert_same(got["resumed"], got["runs"]["early_stopping"][5:], 0)
    assert [got["saves"] for got in ranks] == [1, 0]


def test_a_state_may_go_on_with_another_number_of_ranks(
    ranks: list[dict[str, Any]], folder: Path
) -> None:
    alone = worker.adapted("early_stopping")
    for got in ranks:
        assert_same(got["of_one_process"], alone[5:], 1e-12)
    last = worker.adapted("early_stopping", folder / "two.safetensors")
    assert_same(last[-1:], alone[-1:], 1e-12)


def test_ranks_that_were_given_different_runs_say_so(ranks: list[dict[str, Any]]) -> None:
    for got in ranks:
        rate, steps = got["refusals"]
        assert "learning_rate is 0.1 on rank 0, 1.1 on rank 1; give every rank the same" in rate
        assert "steps is 5 on rank 0, 6 on rank 1" in steps
        assert re.search(
            r"steps in the state file is \d+ on rank 0, 0 on rank 1", got["not_shared"]
        )


def test_the_first_rank_chooses_the_precision(ranks: list[dict[str, Any]]) -> None:
    assert [got["precision"] for got in ranks] == [("bfloat16", 1), ("bfloat16", 0)]


def test_a_rank_that_fails_ends_the_other(ranks: list[dict[str, Any]]) -> None:
    message, seconds = ranks[0]["failed"]
    assert "rank 0: another rank has ended" in message
    assert seconds < 100  # the group would wait for 200
    assert ranks[1]["failed"] == ("rank 1 fails, as it is told", 0.0)


def test_a_rank_that_is_stuck_ends_the_other_after_the_timeout(
    ranks: list[dict[str, Any]],
) -> None:
    message, seconds = ranks[0]["stuck"]
    assert "gave no answer within the group's timeout" in message
    assert 3 <= seconds < 100


def test_ranks_know_their_place(ranks: list[dict[str, Any]]) -> None:
    cpu = torch.device("cpu")
    assert [got["world"] for got in ranks] == [(World(rank, 2, cpu), cpu) for rank in range(2)]


@settings(deadline=None)
@given(st.integers(1, 9), st.lists(st.integers(0, 30), max_size=6))
def test_shares_cover_everything_once_and_evenly(size: int, sizes: list[int]) -> None:
    counts = {f"task{k}": count for k, count in enumerate(sizes)}
    everything = [(name, row) for name, count in counts.items() for row in range(count)]
    shares = []
    for rank in range(size):
        share = World(rank, size).share(len(everything))
        rows = rows_between(counts, share.start, share.stop)
        assert list(rows) == list(counts)
        shares.append([(name, row) for name in counts for row in range(counts[name])[rows[name]]])
    assert [item for share in shares for item in share] == everything
    lengths = [len(share) for share in shares]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] - lengths[-1] <= 1


def test_without_a_group_nothing_is_sent() -> None:
    values = torch.arange(3.0)
    alone = distributed.world()
    assert alone == World(0, 1, None)
    assert alone.sum(values) is values
    assert alone.gather("part") == ["part"]
    assert alone.share(7) == slice(0, 7)
    with distributed.start("cpu") as device:
        assert device == torch.device("cpu")
        assert not torch.distributed.is_initialized()


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """As torchrun sets it for the only rank."""
    values = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    for name, value in {**values, "MASTER_PORT": str(free_ports(1)[0])}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    yield monkeypatch
    assert not torch.distributed.is_initialized()


def test_a_group_of_one_gives_the_bits_of_no_group(environment: pytest.MonkeyPatch) -> None:
    alone = worker.adapted("layer_wise-entropy")
    with distributed.start("cpu"):
        assert distributed.world().device is not None
        assert_same(worker.adapted("layer_wise-entropy"), alone, 0)
        with (
            pytest.raises(InputError, match="initialised already; end its group"),
            distributed.start("cpu"),
        ):
            pass


def test_what_keeps_a_rank_from_joining_is_listed(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("MASTER_PORT")
    environment.delenv("LOCAL_RANK")
    with (
        pytest.raises(InputError) as caught,
        distributed.start("tpu", timeout=float("nan")),
    ):
        pass
    for part in (
        "device = 'tpu': must be one of auto, cpu, cuda",
        "timeout = nan: must be above 0 and finite",
        "the environment has no LOCAL_RANK, MASTER_PORT; start the script by torchrun",
    ):
        assert part in str(caught.value)


def test_more_ranks_than_devices_are_refused(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("LOCAL_RANK", "1")
    environment.setattr(torch.cuda, "device_count", lambda: 1)
    for device in ("auto", "cuda"):
        with (
            pytest.raises(InputError, match="rank 1 of the machine, which has 1 CUDA devices"),
            distributed.start(device),
        ):
            pass


@pytest.mark.slow
def test_the_document_s_script_runs_alone_and_under_torchrun(tmp_path: Path) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    (tmp_path / "adapt.py").write_text(script)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    printed = []
    for launcher in ([], [*torchrun, "--local-addr", "127.0.0.1"]):
        done = subprocess.run(
            [sys.executable, *launcher, "adapt.py"],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    assert printed[0].startswith("10 ")
    assert printed[0] == printed[1]
