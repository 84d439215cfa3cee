"""Choosing the value of a method's parameter in a stage, which tells how far it is."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from adamerge_core.vision import choice
from adamerge_core.vision.choice import AnyMade, Choice, Judge
from tasks.running.work import Reporter

if TYPE_CHECKING:
    from tasks.suite.method_entries import Choose


def choose(
    options: "Choose",
    judge: Judge,
    make: Callable[[int, Any], AnyMade],
    report: Reporter,
    before: str = "",
) -> Choice[AnyMade]:
    """Try every value of a parameter, and keep the best (see adamerge_core.vision.choice.choose).

    before: stands in the names of the curves that are reported.
    """
    parameter, by, values = options.parameter, options.by, options.values

    def tell(number: int, value: Any, average: float) -> None:
        report.metrics({f"{before}validation {by}": average}, number)
        report.progress(number, len(values), f"{parameter} {value}: {by} {average:.4g}")

    return choice.choose(parameter, values, judge, make, tell)
