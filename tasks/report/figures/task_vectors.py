"""How the task vectors lie to each other."""

from collections.abc import Sequence

import numpy as np

from tasks.report.figures.canvas import drawing, short_name


def task_vectors(task_names: Sequence[str], cosine: np.ndarray, l2_norm: np.ndarray) -> bytes:
    """Draw cosines [K, K] between the task vectors with their numbers, and their lengths [K]."""
    with drawing(10, 4.9) as (figure, buffer):
        matrix, lengths = figure.subplots(1, 2, width_ratios=(1.5, 1))
        between = np.where(np.eye(len(task_names), dtype=bool), np.nan, cosine)
        limit = max(0.05, float(np.nanmax(np.abs(between), initial=0)))
        picture = matrix.imshow(between, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
        matrix.set_facecolor("#dddddd")
        for (row, column), value in np.ndenumerate(cosine):
            dark = row != column and abs(value) > 0.6 * limit
            text = "1" if row == column else f"{value:.2f}"
            colour = "white" if dark else "black"
            matrix.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
        ticks, names = range(len(task_names)), list(map(short_name, task_names))
        matrix.set_xticks(ticks, names, rotation=45, ha="right", rotation_mode="anchor")
        matrix.set_yticks(ticks, names)
        matrix.grid(visible=False)
        matrix.set_title("Cosine between task vectors", loc="left")
        figure.colorbar(picture, ax=matrix, shrink=0.8)
        lengths.barh(ticks, l2_norm, color="#777777")
        for row, value in enumerate(l2_norm):
            lengths.text(value, row, f" {value:.2f}", va="center", fontsize=8)
        lengths.set_yticks(ticks, names)
        lengths.invert_yaxis()
        lengths.margins(x=0.15)
        lengths.grid(visible=False, axis="y")
        lengths.set_title("Length of each task vector (L2 norm)", loc="left")
    return buffer.getvalue()
