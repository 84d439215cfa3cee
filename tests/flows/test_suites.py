"""The files of a user's that a suite names, looked at before DVC reads them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from adamerge_core.errors import InputError
from flows import suites
from tasks.suite.schema import Suite, checked


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """The mini suite with a model that is imported from own.pt."""
    monkeypatch.chdir(tmp_path)
    raw = yaml.safe_load((ROOT / "suites/mini.yaml").read_text(encoding="utf-8"))
    raw["checkpoints"] = {"line": "own", "finetuned": {"mnist": {"file": "own.pt"}}, "heads": {}}
    return checked(raw, "mini")


def test_a_checkpoint_that_is_not_there_is_named(suite: Suite) -> None:
    with pytest.raises(InputError, match=r"checkpoints.finetuned.mnist: own.pt does not exist"):
        suites._check_files(suite)
    Path("own.pt").write_bytes(b"weights")
    suites._check_files(suite)


def test_dvc_does_not_wait_at_a_checkpoint_that_never_ends(suite: Suite) -> None:
    Path("own.pt").mkdir()
    os.mkfifo("own.pt/model.safetensors")
    with pytest.raises(InputError, match=r"checkpoints.finetuned.mnist: own.pt/model.safetensors"):
        suites._check_files(suite)
