"""What the pages of experiments have in common."""

from typing import TYPE_CHECKING

from tasks.graph import paths

if TYPE_CHECKING:
    from tasks.suite.schema import Suite


def seeds_of(suite: "Suite") -> str:
    """Say which seeds a page's numbers are from."""
    if len(suite.seeds) == 1:
        return f"All from seed {suite.seeds[0]}: how much the numbers vary over seeds is not known."
    return f"Mean and spread over the seeds {', '.join(map(str, suite.seeds))}."


def commands(suite: "Suite", name: str, file: str) -> tuple[str, str]:
    """Give the command that makes an experiment's numbers, and that which traces its file."""
    traced = (paths.report(suite.name) / file).as_posix()
    return f"adamerge experiment run {name} --suite {suite.name}", f"adamerge lineage {traced}"
