"""dvc.lock stage by stage, against DVC's own parser and the whole written at once."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from dvc.utils.serialize import YAMLFileCorruptedError, parse_yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.dvc.lock_text import LockText, _dump

TEXTS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["", "1e3", "null", "- a", "# x", "a: b", "&id001 b", "? q", "long word " * 20, "a\n  b: c"]
    ),
)
FILES = st.fixed_dictionaries({"path": TEXTS, "hash": st.just("md5"), "size": st.integers(0, 9)})
ENTRIES = st.fixed_dictionaries(
    {"cmd": TEXTS, "deps": st.lists(FILES, max_size=3), "params": st.dictionaries(TEXTS, TEXTS)}
)
STAGES = st.dictionaries(TEXTS.filter(bool), ENTRIES, max_size=5)


def lock(stages: dict[str, Any]) -> dict[str, Any]:
    return {"schema": "2.0", "stages": stages}


@given(STAGES, STAGES, st.data())
@settings(deadline=None, max_examples=60)
def test_it_reads_and_writes_what_dvc_does(
    first: dict[str, Any], second: dict[str, Any], data: st.DataObject
) -> None:
    """Over changes of some stages, by this process and by others."""
    text, ours = _dump(lock(first)), LockText(parse_yaml)
    content = ours.parse(text)
    assert content == parse_yaml(text, "dvc.lock")
    assert ours.dump(content) == text
    changed = data.draw(st.lists(st.sampled_from(sorted(second)), unique=True)) if second else []
    content["stages"].update({name: second[name] for name in changed})
    assert ours.dump(content) == _dump(content)
    elsewhere = _dump(lock({**copy.deepcopy(content["stages"]), **second}))
    assert ours.parse(elsewhere) == parse_yaml(elsewhere, "dvc.lock")


def test_a_known_stage_is_not_parsed_again() -> None:
    entries = {name: {"cmd": name, "deps": [{"path": name, "size": 1}]} for name in "abc"}
    parsed: list[str] = []

    def parse(text: str, path: str) -> Any:
        parsed.append(text)
        return parse_yaml(text, path)

    ours = LockText(parse)
    before = ours.parse(_dump(lock(entries)))
    parsed.clear()
    entries["b"] = {"cmd": "another"}
    after = ours.parse(_dump(lock(entries)))
    assert parsed == [_dump(lock({"b": entries["b"]}))]
    assert after["stages"]["a"] is before["stages"]["a"]
    assert after["stages"]["b"] == {"cmd": "another"}
    assert list(after["stages"]) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "text",
    [
        "schema: '2.0'\nstages:\n  a:\n    cmd: x\ndatasets:\n- name: y\n",
        "schema: '2.0'\nstages:\n  ? a\n  : cmd: x\n",
        "schema: '2.0'\nstages:\n  # said\n  a:\n    cmd: x\n",
        "schema: '2.0'\nstages:\n  a: &id001\n    cmd: x\n  b: *id001\n",
        "schema: '2.0'\nstages: {}\n",
        "stages:\n  a:\n    cmd: x\nschema: '2.0'\n",
        "",
    ],
)
def test_what_is_laid_out_otherwise_is_taken_whole(text: str) -> None:
    ours = LockText(parse_yaml)
    content = ours.parse(text)
    assert content == parse_yaml(text, "dvc.lock")
    assert parse_yaml(ours.dump(content), "dvc.lock") == content


def test_a_torn_one_is_told() -> None:
    text = _dump(lock({"a": {"cmd": "x", "deps": [{"path": "p"}]}}))
    with pytest.raises(YAMLFileCorruptedError):
        LockText(parse_yaml).parse(f"{text}  b:\n    cmd: [x\n")
