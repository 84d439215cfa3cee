"""The rows of results.csv and corrupted.csv."""

from dataclasses import dataclass

AVERAGE = "average"


@dataclass(frozen=True)
class Row:
    """Top-1 accuracies in percent, by task and "average", of a method under a protocol for a
    seed.
    """

    method: str
    protocol: str
    seed: int
    accuracies: dict[str, float]

    @property
    def average(self) -> float:
        return self.accuracies[AVERAGE]


@dataclass(frozen=True)
class CorruptedRow:
    """Accuracies of a method that was adapted and measured under a corruption, for a seed."""

    corruption: str
    """`clean` for the same images without one."""
    severity: int
    """1 to 5; 0 for clean."""
    method: str
    seed: int
    accuracies: dict[str, float]
