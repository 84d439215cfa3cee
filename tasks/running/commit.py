"""The state of the code that a run was made with."""

import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class Commit:
    """The state of the code: its git commit, and whether the working tree differs from it."""

    revision: str | None
    dirty: bool

    @classmethod
    def current(cls) -> "Commit":
        """Asks git; `revision` is None outside a repository, without git, or before a first
        commit.
        """
        revision = _git("rev-parse", "--verify", "HEAD")
        if revision is None:
            return cls(None, True)
        return cls(revision, _git("status", "--porcelain", "--untracked-files=no") != "")


def _git(*arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
