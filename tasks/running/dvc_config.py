"""Where DVC keeps the project's files by their md5, as DVC's configuration says.

Read here, and not by DVC, whose import costs a process more than what is done with the answer.
"""

import configparser
import os
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from adamerge_core.errors import InputError

_DVC = ("dvc", "iterative")  # its name and its author's, for folders of the system


def object_folder(root: Path = Path()) -> Path:
    """Find the folder with the files of the project `root`: those of md5 ab12… are ab/12….

    Raises InputError where a file of DVC's configuration is broken.
    """
    cache = root / ".dvc" / "cache"
    for file in _files(root):
        if given := _given(file):
            cache = file.parent / Path(given).expanduser()
    return cache / "files" / "md5"


def _files(root: Path) -> Iterator[Path]:
    """List the files of the configuration that DVC reads, the later going before the earlier."""
    system = os.environ.get("DVC_SYSTEM_CONFIG_DIR") or platformdirs.site_config_dir(*_DVC)
    user = os.environ.get("DVC_GLOBAL_CONFIG_DIR") or platformdirs.user_config_dir(*_DVC)
    yield from (Path(system, "config"), Path(user, "config"))
    yield from (root / ".dvc" / "config", root / ".dvc" / "config.local")


def _given(file: Path) -> str | None:
    """Read `dir` of the section `cache`; None where the file does not say it."""
    config = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        config.read(file, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise InputError(f"{file}: is no configuration of DVC ({error}); mend it") from error
    given = config.get("cache", "dir", fallback=None)
    return given.strip("\"'") if given else None
