"""The pure scheduler and its estimates: no Prefect, no DVC, no process."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.estimates import Estimates
from flows.order import Order, Outcome
from tasks.running.durations import clock

GOOD = [Outcome.RAN, Outcome.UNCHANGED, Outcome.RESTORED]
DIAMOND = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")}


def equal(order: Order) -> dict[str, float]:
    """Priorities that prefer nothing."""
    return dict.fromkeys(order.waiting, 0.0)


def test_a_stage_starts_once_all_upstream_has_ended() -> None:
    order = Order(DIAMOND, workers=4)
    assert order.start(equal(order)) == ["a"]
    assert order.start(equal(order)) == []
    order.end("a", Outcome.RAN)
    assert order.start(equal(order)) == ["b", "c"]
    order.end("c", Outcome.RESTORED)
    assert order.start(equal(order)) == []
    order.end("b", Outcome.RAN)
    assert order.start(equal(order)) == ["d"]
    order.end("d", Outcome.RAN)
    assert order.done


def test_the_longest_chain_is_first_and_workers_are_a_limit() -> None:
    order = Order({"short": (), "long": (), "middle": ()}, workers=2)
    assert order.start({"short": 1.0, "long": 9.0, "middle": 5.0}) == ["long", "middle"]
    assert order.waiting == ["short"]


def test_a_device_stage_lets_others_pass() -> None:
    order = Order({"x": (), "y": (), "z": ()}, workers=2, on_device=["x", "y"])
    assert order.start({"x": 3.0, "y": 2.0, "z": 1.0}) == ["x", "z"]
    order.end("z", Outcome.RAN)
    assert order.start(equal(order)) == []
    order.end("x", Outcome.RAN)
    assert order.start(equal(order)) == ["y"]


def test_a_failure_blocks_what_is_below_it_and_nothing_else() -> None:
    order = Order({**DIAMOND, "other": ()}, workers=4, settled=["a"])
    assert order.outcomes == {"a": Outcome.UNCHANGED}
    assert order.start(equal(order)) == ["b", "c", "other"]
    order.end("b", Outcome.FAILED)
    assert order.block() == []
    order.end("c", Outcome.RAN)
    assert order.block() == ["d"]
    assert order.outcomes["d"] is Outcome.BLOCKED
    assert order.running == ["other"]


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, tuple[str, ...]]:
    """Up to 12 stages; each reads from any of those before it."""
    names = [f"s{n}" for n in range(draw(st.integers(1, 12)))]
    return {
        name: tuple(sorted(draw(st.sets(st.sampled_from(names[:n]))))) if n else ()
        for n, name in enumerate(names)
    }


@settings(deadline=None, max_examples=200)
@given(graphs(), st.integers(1, 4), st.data())
def test_any_pass_over_any_graph(
    upstream: dict[str, tuple[str, ...]], workers: int, data: st.DataObject
) -> None:
    """Stages end in any order and way; what must hold, holds after each step."""
    names = list(upstream)
    settled: set[str] = set()
    for name in names:
        if settled.issuperset(upstream[name]) and data.draw(st.booleans()):
            settled.add(name)
    on_device = data.draw(st.sets(st.sampled_from(names)))
    priorities = {name: data.draw(st.floats(0, 100)) for name in names}
    order = Order(upstream, workers, settled=settled, on_device=on_device)
    ended = list(order.outcomes)
    while not order.done:
        for name in order.block():
            assert set(upstream[name]) <= set(order.outcomes)
            assert any(
                order.outcomes[above] in (Outcome.FAILED, Outcome.BLOCKED)
                for above in upstream[name]
            )
            ended.append(name)
        for name in order.start(priorities):
            assert all(order.outcomes[above] in GOOD for above in upstream[name])
        assert len(order.running) <= workers
        assert len(on_device.intersection(order.running)) <= 1
        if order.running:  # else the last ones were blocked
            name = data.draw(st.sampled_from(order.running))
            order.end(name, data.draw(st.sampled_from([*GOOD, Outcome.FAILED])))
            ended.append(name)
        else:
            assert order.done
    assert sorted(ended) == sorted(names)
    for name, outcome in order.outcomes.items():
        below_bad = any(order.outcomes[above] not in GOOD for above in upstream[name])
        assert (outcome is Outcome.BLOCKED) == below_bad


def test_estimates_prefer_long_chains(tmp_path: Path) -> None:
    upstream = {"a": (), "b": (), "c": ("b",), "d": ("c", "a")}
    estimates = Estimates(upstream, tmp_path / "durations.json")
    for name, seconds in {"a": 1.0, "b": 2.0, "c": 4.0, "d": 8.0}.items():
        estimates.learn(name, seconds)
    estimates.save()
    again = Estimates(upstream, tmp_path / "durations.json")
    assert again.priorities() == {"a": 9.0, "b": 14.0, "c": 12.0, "d": 8.0}
    assert again.left(["a", "b", "c", "d"], {}, workers=2) == 14.0
    assert again.left(["d"], {"c": 1.0}, workers=2) == pytest.approx(11.0)
    assert again.left([], {}, workers=2) == 0.0


def test_durations_of_a_group_stand_for_its_unknown(tmp_path: Path) -> None:
    estimates = Estimates({"x@1": (), "x@2": (), "y": ()}, tmp_path / "durations.json")
    assert estimates.seconds("y") == 5.0
    estimates.learn("x@1", 3.0)
    assert estimates.seconds("x@2") == 3.0


def test_the_first_guess_is_that_of_the_longest_name_that_a_group_begins_with(
    tmp_path: Path,
) -> None:
    names = ("merge", "merge_median", "merge_wudi@a", "number_of_tasks_7", "numbers")
    estimates = Estimates(dict.fromkeys(names, ()), tmp_path / "durations.json")
    merge, median, wudi, counted, unknown = map(estimates.seconds, names)
    assert merge == median < wudi
    assert counted > unknown == 5.0


def test_first_guesses_follow_the_pace_of_what_has_run(tmp_path: Path) -> None:
    names = ("adapt@1", "finetune@1", "odd")
    estimates = Estimates(dict.fromkeys(names, ()), tmp_path / "durations.json")
    adapting, tuning = (estimates.seconds(name) for name in names[:2])
    estimates.learn("finetune@1", 3 * tuning)
    slower = estimates.seconds("adapt@1")
    assert adapting < slower < 3 * adapting  # a single stage is no whole proof
    for number in range(2, 200):
        estimates.learn(f"finetune@{number}", 3 * tuning)
    assert estimates.seconds("adapt@1") == pytest.approx(3 * adapting, rel=0.05)
    estimates.learn("odd", 1000.0)  # no guess tells how long it should have taken
    assert estimates.seconds("adapt@1") == pytest.approx(3 * adapting, rel=0.05)
    estimates.save()
    again = Estimates(dict.fromkeys(names, ()), tmp_path / "durations.json")
    assert again.seconds("adapt@1") == estimates.seconds("adapt@1")


def test_what_is_no_duration_in_a_damaged_file_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "durations.json"
    huge = "9" * 400
    path.write_text(f'{{"adapt@1": NaN, "adapt@2": Infinity, "adapt@3": -5, "x": {huge}, "y": []}}')
    names = ("adapt@1", "finetune@1", "x")
    damaged = Estimates(dict.fromkeys(names, ()), path)
    fresh = Estimates(dict.fromkeys(names, ()), tmp_path / "none.json")
    assert [damaged.seconds(name) for name in names] == [fresh.seconds(name) for name in names]


def test_clock() -> None:
    assert [clock(5), clock(65), clock(3723)] == ["0:05", "1:05", "1:02:03"]


def test_the_scheduler_imports_no_machinery() -> None:
    code = "import sys, flows.order, flows.estimates; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"prefect", "dvc", "mlflow", "subprocess"}.intersection(done.stdout.split())
