"""`python -m dev.real_small_cost FOLDER` measures what the suite clip-real-small costs.

Random images, as many and as large as those of the suite's data sets, are fetched from a hub on
127.0.0.1, and the suite runs on them in a copy of the project in FOLDER. Printed are the bytes that
a network would have to carry, the seconds of the stages by template, and the disk. What was
interrupted goes on when it is called again; stages that only the interrupted call measured are then
reckoned by the mean of their template.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # where the hub is, and the formats of data sets

from field_data_sets import hub_of  # noqa: E402
from hub_server import Hub, serving  # noqa: E402
from small_suite import copy_code  # noqa: E402
from toy import commit  # noqa: E402

from adamerge_core.vision.datasets.published import published_dataset  # noqa: E402
from flows.estimates import DURATIONS  # noqa: E402
from flows.sizes import gb  # noqa: E402

SUITE = "clip-real-small"

SIZES = {
    "mnist": (28, 28),
    "svhn": (32, 32),
    "gtsrb": (50, 50),  # 15 to 250 pixels
    "eurosat": (64, 64),
    "dtd": (500, 450),  # 300 to 640
    "cifar10": (32, 32),
    "fashion_mnist": (28, 28),
    "kmnist": (28, 28),
}
"""Width and height of the images, the middle of them where they differ."""


def main(arguments: list[str]) -> int:
    """Run the suite in a folder, and print what it took."""
    if len(arguments) != 1:
        print(__doc__)
        return 2
    folder = Path(arguments[0]).resolve()
    project = folder / "project"
    hubs = [_hub(name) for name in SIZES]
    if not project.exists():
        copy_code(project)
        commit(project)
    with serving(*hubs) as hub:
        began = time.monotonic()
        _adamerge(project, hub, "suite", "use", SUITE)
        _adamerge(project, hub, "data", "download")
        fetched = time.monotonic() - began
        began = time.monotonic()
        code = _adamerge(project, hub, "run")
    carried = sum(sum(each.sent.values()) for each in hubs)
    print(f"fetched {gb(carried)} from this machine and compared it in {fetched:.0f} s")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"adamerge run: {time.monotonic() - began:.0f} s on {os.cpu_count()} cores, "
        f"{used.ru_utime + used.ru_stime:.0f} s of computing\n"
    )
    _print_stages(project)
    for name in ("data", ".dvc/cache", "hub"):
        print(f"{name:<12} {gb(_bytes(project / name))}")
    return code


def _hub(name: str) -> Hub:
    published = published_dataset(name)
    return hub_of(published, published.images, SIZES[name])


def _adamerge(project: Path, hub: Hub, *command: str) -> int:
    settings = {"HF_ENDPOINT": hub.address, "HF_HUB_CACHE": "hub", "PYTHONPATH": str(project)}
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *command],
        cwd=project,
        env=dict(os.environ) | settings,
        check=False,
    ).returncode


def _print_stages(project: Path) -> None:
    """Print the stages of each template, those that were measured, and their seconds."""
    known = json.loads((project / DURATIONS).read_text("utf-8"))
    templates = defaultdict(list)
    for name in _stages(project):
        templates[name.split("@")[0]].append(name)
    total = 0.0
    print(f"{'template':<34} {'stages':>6} {'measured':>8} {'seconds':>8}")
    for template, names in templates.items():
        measured = [known[name] for name in names if name in known]
        if not measured:
            print(f"{template:<34} {len(names):>6} {0:>8} {'?':>8}")
            continue
        seconds = sum(measured) / len(measured) * len(names)
        total += seconds
        print(f"{template:<34} {len(names):>6} {len(measured):>8} {seconds:>8.0f}")
    print(f"{'all, one after the other':<43} {total:>15.0f}\n")


def _stages(project: Path) -> list[str]:
    """List the stages of the graph in its order."""
    from tasks.graph import dvc_yaml

    os.chdir(project)
    return list(dvc_yaml.read())


def _bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
