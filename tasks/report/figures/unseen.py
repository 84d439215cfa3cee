"""What merged models reach on tasks that were left out of the merge."""

from collections.abc import Mapping

from tasks.report.figures.canvas import drawing, short_label, short_name, task_looks

Bars = Mapping[str, tuple[float, float]]
"""By label of a method average accuracy in percent and its spread in points, 0 for one seed."""


def left_out(splits: Mapping[str, Bars]) -> bytes:
    """Draw a group of bars a split, a bar a method."""
    labels = list(next(iter(splits.values())))
    width, looks = 0.8 / len(labels), task_looks(labels)
    with drawing(10, 4.6) as (figure, buffer):
        axes = figure.subplots()
        for number, label in enumerate(labels):
            shift = (number - (len(labels) - 1) / 2) * width
            places = [group + shift for group in range(len(splits))]
            values = [bars[label] for bars in splits.values()]
            found = axes.bar(
                places,
                [accuracy for accuracy, _ in values],
                width,
                yerr=[spread for _, spread in values],
                color=looks[label]["color"],
                edgecolor="#333333",
                label=short_label(label),
            )
            axes.bar_label(found, fmt="%.1f", padding=2, fontsize=8)
        axes.set_xticks(range(len(splits)), [short_name(name) for name in splits])
        axes.set_ylabel("average accuracy on the tasks left out (%)")
        figure.legend(loc="outside lower center", ncols=4)
    return buffer.getvalue()
