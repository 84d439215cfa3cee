"""The error that a user's input raises."""

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """An input breaks a rule; the message gives each value, the rule and the fix."""

    @classmethod
    def listing(cls, subject: str, faults: list[str], shown: int | None = None) -> "InputError":
        """Make one error of all the faults found in `subject`, a line each.

        shown: how many lines a longer list is cut to; the error then says how many more there are.
        """
        count = f"{len(faults)} fault" + ("s" if len(faults) > 1 else "")
        lines = faults[:shown]
        if len(lines) < len(faults):
            lines.append(f"and {len(faults) - len(lines)} more")
        return cls(f"{subject}: {count}\n" + "\n".join(f"  - {line}" for line in lines))

    @property
    def lines(self) -> list[str]:
        """The faults, a line each, without the line that counts them."""
        first, *others = str(self).splitlines()
        return [line.removeprefix("  - ") for line in others] or [first]


class NetworkError(InputError):
    """A network, or who answers there, kept something from being fetched; it may pass."""


@contextmanager
def collected(faults: list[str], about: str = "") -> Iterator[None]:
    """Append the faults of an InputError that the block raises to `faults`, and go on after it.

    about: stands before each line that does not begin with it.
    """
    try:
        yield
    except InputError as error:
        prefix = f"{about}: " if about else ""
        faults += [line if line.startswith(prefix) else prefix + line for line in error.lines]
