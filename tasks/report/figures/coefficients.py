"""Learned merging coefficients, layer by layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill

import numpy as np

from adamerge_core.layers import network_order
from tasks.report.catalogue import Look
from tasks.report.figures.canvas import (
    COLUMNS,
    TITLE_WIDTH,
    drawing,
    panels,
    rows_of_panels,
    short_label,
    short_name,
)


@dataclass(frozen=True)
class LayerCoefficients:
    """Learned merging coefficients of a method."""

    values: np.ndarray
    """[L, K] float64; outside [0, 1] only where adaptation does not clamp."""
    layer_names: Sequence[str]
    task_names: Sequence[str]

    def block_means(self) -> dict[str, float]:
        """Average over tasks and the layers of each block, from shallow to deep."""
        order, blocks = network_order(self.layer_names)
        ordered = self.values[order]
        return {name: float(ordered[r.start : r.stop].mean()) for name, r in blocks.items()}


def coefficients(
    learned: Mapping[str, LayerCoefficients], starts: Sequence[float], looks: Mapping[str, Look]
) -> bytes:
    """Draw heat maps [layers, tasks] by method, and the mean of each block of layers; `starts` are
    the coefficients' values before adaptation.
    """
    count = len(learned) + 1
    with drawing(10, 7.2 * rows_of_panels(count)) as (figure, buffer):
        axes_of, every_mean = panels(figure, count), []
        # outside [0, 1] only where adaptation does not clamp
        everything = np.concatenate([found.values.ravel() for found in learned.values()])
        lowest, highest = min(0, everything.min()), max(1, everything.max())
        for axes, (method, found) in zip(axes_of, learned.items(), strict=False):
            order, blocks = network_order(found.layer_names)
            picture = axes.imshow(
                found.values[order],
                vmin=lowest,
                vmax=highest,
                cmap="cividis",
                aspect="auto",
                interpolation="none",
            )
            title = fill(short_label(looks[method].label), TITLE_WIDTH, break_on_hyphens=False)
            axes.set_title(title, loc="left")
            axes.set_xticks(
                range(len(found.task_names)),
                list(map(short_name, found.task_names)),
                rotation=45,
                ha="right",
                rotation_mode="anchor",
            )
            axes.grid(visible=False)
            middles = [(rows.start + rows.stop - 1) / 2 for rows in blocks.values()]
            for rows in list(blocks.values())[1:]:
                axes.axhline(rows.start - 0.5, color="white", linewidth=1.2)
            means = list(found.block_means().values())
            every_mean += means
            axes_of[-1].plot(
                means,
                middles,
                marker="o",
                color=looks[method].colour,
                label=short_label(looks[method].label),
                clip_on=False,
            )
        axes_of[0].set_yticks(middles, list(blocks))
        for axes in axes_of[::COLUMNS]:
            axes.set_ylabel("layers, from shallow (top) to deep (bottom)")
        for start in starts:
            axes_of[-1].axvline(start, color="#555555", linestyle=":", label=f"start, {start:g}")
        axes_of[-1].set_xlim(min([0, *every_mean]), max([1, *every_mean]))
        axes_of[-1].set_xlabel("mean coefficient")
        axes_of[-1].set_title("Mean of each block", loc="left")
        axes_of[-1].tick_params(left=False, labelleft=False)
        figure.legend(*axes_of[-1].get_legend_handles_labels(), loc="outside lower right", ncols=3)
        figure.colorbar(
            picture, ax=axes_of[:-1], shrink=0.6, aspect=30, label="merging coefficient"
        )
    return buffer.getvalue()
