"""What rules reach over their scaling, with the suite's adaptations as levels."""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.report.figures.canvas import drawing, handle, short_label, task_looks

_DASHES = ((0, (6, 2)), (0, (2, 2)), (0, (6, 2, 1, 2)), (0, (1, 1)))
"""Tell levels apart where colours do not."""


@dataclass(frozen=True)
class OverScaling:
    """A rule's average accuracy over its scaling."""

    label: str
    colour: str | None
    scalings: Sequence[float]
    accuracies: Sequence[float]
    """In percent."""
    deviations: Sequence[float]
    """In points; 0 for one seed."""
    best: int
    """The place of the best scaling, and that of the one with the lowest entropy."""
    chosen: int


@dataclass(frozen=True)
class Level:
    """The average accuracy of a method without a scaling, in percent."""

    label: str
    colour: str | None
    accuracy: float


def over_scaling(rules: Sequence[OverScaling], levels: Sequence[Level]) -> bytes:
    """Draw a line a rule, its best scaling as a circle, that of lowest entropy as a square, and a
    dashed level an adaptation.
    """
    with drawing(10, 5.6) as (figure, buffer):
        axes = figure.subplots()
        handles = []
        looks = task_looks([rule.label for rule in rules])
        for rule in rules:
            look = looks[rule.label] | ({"color": rule.colour} if rule.colour else {})
            axes.errorbar(rule.scalings, rule.accuracies, rule.deviations, capsize=2, **look)
            for place, shape, size in ((rule.best, "o", 13), (rule.chosen, "s", 18)):
                axes.plot(
                    rule.scalings[place],
                    rule.accuracies[place],
                    shape,
                    color=look["color"],
                    markersize=size,
                    markerfacecolor="none",
                    markeredgewidth=1.8,
                )
            handles.append(handle(short_label(rule.label), **look))
        for number, level in enumerate(levels):
            look = {"color": level.colour, "linestyle": _DASHES[number % len(_DASHES)]}
            axes.axhline(level.accuracy, linewidth=1.8, **look)
            handles.append(handle(short_label(level.label), linewidth=1.8, **look))
        hollow = {"color": "#555555", "linestyle": "none", "markerfacecolor": "none"}
        handles.append(handle("best scaling, by labels", marker="o", markersize=9, **hollow))
        handles.append(handle("lowest entropy, no labels", marker="s", markersize=9, **hollow))
        axes.set_xlabel("scaling")
        axes.set_ylabel("average top-1 accuracy (%)")
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return buffer.getvalue()
