"""What adaptations reach over the number of images that they see."""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.report.figures.canvas import drawing, handle, short_label, task_looks


@dataclass(frozen=True)
class OverAmounts:
    """A method's average accuracy, an amount each."""

    label: str
    accuracies: Sequence[float]
    """In percent."""
    deviations: Sequence[float]
    """In points; 0 for one seed."""


def over_amounts(made: Sequence[OverAmounts], amounts: Sequence[str]) -> bytes:
    """Draw a line a method over the amounts, side by side in their order."""
    with drawing(10, 4.6) as (figure, buffer):
        axes, places = figure.subplots(), range(len(amounts))
        looks = task_looks([each.label for each in made])
        for each in made:
            look = looks[each.label]
            axes.errorbar(places, each.accuracies, each.deviations, capsize=2, **look)
        axes.set_xticks(places, amounts)
        axes.set_xlabel("images of each task that the adaptation sees")
        axes.set_ylabel("average top-1 accuracy (%)")
        handles = [handle(short_label(label), **look) for label, look in looks.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return buffer.getvalue()
