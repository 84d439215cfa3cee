"""Fixtures of the tests of checkpoints: a small CLIP, made when it is first asked for."""

from collections.abc import Iterator

import pytest
from torch import Tensor


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the small architectures known, and forbid the hub."""
    from clip_checkpoints import known

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with known(monkeypatch):
        yield


@pytest.fixture(scope="session")
def whole() -> dict[str, Tensor]:
    """A CLIP's state dict, in open_clip's names; not to be changed."""
    from clip_checkpoints import whole_clip

    return whole_clip(0)


@pytest.fixture(scope="session")
def tower(whole: dict[str, Tensor]) -> dict[str, Tensor]:
    """Its image tower's."""
    from clip_checkpoints import tower_of

    return tower_of(whole)
