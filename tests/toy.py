"""A small project around stand-in stages: the pipeline's machinery without the models.

Its stages go through tasks.running.stage as the real ones do, take a moment, resume after a kill,
and write what depends on everything they read.
"""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent

PARAMS = """\
suite: toy
seeds: [0]
compute: {threads: 1, device: cpu}
raw: {length: 3}
grow: {steps: 5, seconds: 0.01, fail: []}
merge: {scaling: 0.3}
registry: {average_tolerance: 0.5, task_tolerance: 2.0}
"""

PIPELINE = """\
stages:
  raw:
    matrix:
      task: [a, b, c]
    cmd: python -m work --kind raw --task ${item.task}
    params: [raw]
    deps: [work.py]
    outs:
      - data/datasets/${item.task}/8px/train_images.npy
  grow:
    matrix:
      task: [a, b, c]
    cmd: python -m work --kind grow --task ${item.task}
    params: [grow]
    deps: [work.py, "data/datasets/${item.task}/8px/train_images.npy"]
    outs:
      - data/suites/toy/grown/${item.task}.txt
      - data/suites/toy/metrics/seed-0/evaluate/${item.task}.csv
    metrics:
      - data/suites/toy/metrics/seed-0/${item.task}.json
  merge:
    cmd: python -m work --kind merge
    params: [merge]
    deps:
      - work.py
      - data/suites/toy/grown/a.txt
      - data/suites/toy/grown/b.txt
      - data/suites/toy/grown/c.txt
    outs:
      - data/suites/toy/merged/seed-0/ties_merging/model.safetensors
    plots:
      - data/suites/toy/metrics/seed-0/trajectory/ties_merging.csv
  report:
    cmd: python -m work --kind report
    deps:
      - work.py
      - data/suites/toy/merged/seed-0/ties_merging/model.safetensors
      - data/suites/toy/metrics/seed-0/a.json
    outs:
      - data/suites/toy/report/results.csv
      - data/suites/toy/report/index.html
"""

WORK = '''\
import hashlib
import json
import time
from pathlib import Path

from adamerge_core.errors import InputError, NetworkError
from adamerge_core.atomic import atomic_write
from tasks.graph import dvc_yaml, params_yaml
from tasks.running.stage import run_stage

PACE = params_yaml.read_params()["grow"]  # of every stage, also of those that do not depend on it
RESULTS = """method,protocol,seed,a,b,average
pretrained,transductive,0,10,20,15
ties_merging,transductive,0,60,70,65
ties_merging,held_out,0,50,60,55
"""


def run(work):
    """A hash over what is read, drawn out over steps that are kept for a resume."""
    report = work.report
    if work.name in PACE["fail"]:
        raise InputError(f"{work.name} is told to fail")
    away = Path(f"no-network-{work.name}")
    if away.exists():
        if away.read_text() == "once":
            away.unlink()
        raise NetworkError(f"{work.name} reaches nobody")
    state = report.scratch / "state.json"
    start = hashlib.md5((work.name + str(work.params)).encode())
    for path in work.deps:
        start.update(Path(path).read_bytes())
    done, value = json.loads(state.read_text()) if state.exists() else (0, start.hexdigest())
    if done:
        print(f"resumes at {done}")
    for step in range(done, PACE["steps"]):
        time.sleep(PACE["seconds"])
        value = hashlib.md5(value.encode()).hexdigest()
        with atomic_write(state) as temporary:
            temporary.write_text(json.dumps([step + 1, value]))
        report.metrics({"loss": 1 / (step + 1)}, step)
        report.progress(step + 1, PACE["steps"], "a step")
    for path in dvc_yaml.read()[work.name].files:
        with atomic_write(path) as temporary:
            temporary.write_text(content(path, value))


def content(path, value):
    """What a file of this name holds: numbers made of the hash, else the hash."""
    accuracy = int(value[:2], 16) / 2.56
    if path.endswith(".json"):
        return json.dumps({"transductive": accuracy, "held_out": accuracy / 2})
    if "/evaluate/" in path:
        row = f"{Path(path).stem},transductive,0,photos,accuracy,{accuracy}"
        return "method,protocol,seed,task,metric,value\\n" + row + "\\n"
    if "/trajectory/" in path:
        return "step,loss\\n" + "".join(f"{n},{int(c, 16)}\\n" for n, c in enumerate(value[:4]))
    return RESULTS if path.endswith("results.csv") else value


run_stage(run)
'''


@dataclass(frozen=True)
class Project:
    """A project's folder, and how to use it from outside."""

    root: Path

    def write(self, name: str, text: str) -> None:
        (self.root / name).write_text(text)

    def replace(self, name: str, old: str, new: str) -> None:
        text = (self.root / name).read_text()
        assert old in text
        self.write(name, text.replace(old, new))

    def run(self, *command: str, **options: object) -> subprocess.CompletedProcess[str]:
        """Runs a Python module with arguments there; what it prints comes back."""
        return subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            **options,
        )

    def hashes(self) -> dict[str, str]:
        """md5s of all files that the pipeline wrote, by path."""
        from tasks.running.hashes import md5

        files = sorted(path for path in (self.root / "data").rglob("*") if path.is_file())
        return {path.relative_to(self.root).as_posix(): md5(path) for path in files}


def make_project(root: Path) -> Project:
    """The toy project in the new folder `root`, committed to git."""
    root.mkdir(parents=True)
    project = Project(root)
    for name, text in (("params.yaml", PARAMS), ("dvc.yaml", PIPELINE), ("work.py", WORK)):
        project.write(name, text)
    shutil.copy(ROOT / ".gitignore", root)
    shutil.copy(ROOT / ".dvcignore", root)
    (root / ".dvc").mkdir()
    for name in ("config", ".gitignore"):
        shutil.copy(ROOT / ".dvc" / name, root / ".dvc")
    commit(root)
    return project


def commit(root: Path) -> None:
    """Makes `root` a git repository with everything in it committed."""
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "all"]):
        subprocess.run(["git", *command], cwd=root, check=True)
