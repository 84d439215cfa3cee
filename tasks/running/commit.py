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


def revision_of(name: str) -> str | None:
    """Find the commit that git knows by a name or the beginning of a hash; None for no commit."""
    if name.startswith("-"):  # an option
        return None
    return _git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")


def content_at(revision: str, path: str) -> str | None:
    """Read a file of the project as it was in a commit; None where that has no such file."""
    return _git("show", f"{revision}:./{path}")


def _git(*arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
