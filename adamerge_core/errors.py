"""The error that a user's input raises."""


class InputError(ValueError):
    """An input breaks a rule; the message gives each value, the rule and the fix."""

    @classmethod
    def listing(cls, subject: str, faults: list[str]) -> "InputError":
        """Make one error of all the faults found in `subject`, a line each."""
        count = f"{len(faults)} fault" + ("s" if len(faults) > 1 else "")
        return cls(f"{subject}: {count}\n" + "\n".join(f"  - {fault}" for fault in faults))
