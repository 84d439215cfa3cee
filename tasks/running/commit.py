"""The state of the code that a run was made with."""

import subprocess
from dataclasses import dataclass

from tasks.graph.dvc_lock import DVC_LOCK


@dataclass(frozen=True)
class Commit:
    """The state of the code: its git commit, and whether the working tree differs from it.

    dvc.lock, which every run rewrites, is no code.
    """

    revision: str | None
    dirty: bool

    @classmethod
    def current(cls) -> "Commit":
        """Ask git for the present state.

        `revision` is None outside a repository, without git, or before a first commit.
        """
        revision = _git("rev-parse", "--verify", "HEAD")
        if revision is None:
            return cls(None, True)
        code = ["--", ":/", f":(exclude){DVC_LOCK}"]
        return cls(revision, _git("status", "--porcelain", "--untracked-files=no", *code) != "")


def _git(*arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
