"""Whether a merged model takes the champion's place: by held-out accuracies, task by task."""

from collections.abc import Mapping
from dataclasses import dataclass

from tasks.report.rows import AVERAGE
from tasks.suite.tolerances import Tolerances


@dataclass(frozen=True)
class Measures:
    """What a version of a registered model was measured by."""

    version: str
    """Its number."""
    accuracies: Mapping[str, float]
    """Held-out top-1 in percent, by task and "average"; empty where nothing is recorded."""
    images: str
    """A hash of what it was measured on."""

    @property
    def tasks(self) -> list[str]:
        """The tasks, in the order of the suite."""
        return [name for name in self.accuracies if name != AVERAGE]


@dataclass(frozen=True)
class Judgement:
    """Whether a candidate becomes champion, and why."""

    moves: bool
    why: str
    """A line."""


def judge(candidate: Measures, champion: Measures | None, tolerances: Tolerances) -> Judgement:
    """Compare a candidate with the champion; None: there is no champion yet."""
    if champion is None:
        return Judgement(True, "there was no champion before")
    if other := _not_comparable(candidate, champion):
        fix = f"`adamerge models promote {candidate.version}` would make it champion"
        return Judgement(False, f"{other}: not comparable by itself; {fix}")
    changes = differences(candidate, champion)
    average = changes.pop(AVERAGE)
    faults = []
    if average < -tolerances.average_tolerance:
        allowed = f"at most {tolerances.average_tolerance:g} allowed"
        faults.append(f"its average is {_points(average)} ({allowed})")
    fallen = [
        f"{task} is {_points(change)}"
        for task, change in sorted(changes.items(), key=lambda item: item[1])
        if change < -tolerances.task_tolerance
    ]
    if fallen:
        more = f" and {len(fallen) - _NAMED} tasks more" if len(fallen) > _NAMED else ""
        allowed = f"at most {tolerances.task_tolerance:g} allowed"
        faults.append(f"{', '.join(fallen[:_NAMED])}{more} ({allowed})")
    against = f"against version {champion.version}"
    if faults:
        return Judgement(False, f"{against} {'; '.join(faults)}")
    worst = min(changes, key=changes.__getitem__)
    return Judgement(
        True,
        f"{against} its average is {_points(average)}, and no task falls by more than "
        f"{tolerances.task_tolerance:g} points ({worst} is {_points(changes[worst])})",
    )


_NAMED = 3  # of the tasks that fall, in a line


def _not_comparable(candidate: Measures, champion: Measures) -> str | None:
    number = f"version {champion.version}"
    if not champion.accuracies:
        return f"the champion, {number}, has no recorded accuracies"
    if set(candidate.tasks) != set(champion.tasks):
        return f"the champion, {number}, has other tasks ({', '.join(champion.tasks)})"
    if candidate.images != champion.images:
        return f"the champion, {number}, was measured on other images"
    return None


def differences(candidate: Measures, champion: Measures) -> dict[str, float]:
    """Subtract the champion's accuracies: by task and "average", in points, two decimals."""
    return {
        name: round(value - champion.accuracies[name], 2)
        for name, value in candidate.accuracies.items()
        if name in champion.accuracies
    }


def _points(change: float) -> str:
    if change == 0:
        return "level"
    return f"{abs(change):.2f} points {'above' if change > 0 else 'below'}"


def table(candidate: Measures, champion: Measures | None) -> str:
    """Write the accuracies as a table of Markdown, beside those of the champion if there is one."""
    if champion is None or not champion.accuracies:
        rows = [f"| {name}{_GAP} | {value:.2f} |" for name, value in candidate.accuracies.items()]
        return "\n".join([f"| task{_GAP} | this version |", "|---|---:|", *rows])
    changes = differences(candidate, champion)
    rows = []
    for name in dict.fromkeys([*candidate.tasks, *champion.tasks, AVERAGE]):
        new, old = (_cell(each.accuracies, name) for each in (candidate, champion))
        change = f"{changes[name]:+.2f}" if name in changes else ""
        rows.append(f"| {name}{_GAP} | {new} | {old} | {change} |")
    columns = (f"task{_GAP}", f"this version{_GAP}", f"champion (version {champion.version}){_GAP}")
    head = f"| {' | '.join(columns)} | difference |"
    return "\n".join([head, "|---|---:|---:|---:|", *rows])


_GAP = "&emsp;"
"""Between columns: MLflow's pages put none."""


def _cell(accuracies: Mapping[str, float], name: str) -> str:
    return f"{accuracies[name]:.2f}" if name in accuracies else ""
