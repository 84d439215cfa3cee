"""Stage processes and their journals, and how journals come into MLflow."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from conftest import Project

from adamerge_core.atomic import atomic_write
from adamerge_core.errors import InputError
from tasks.running import journal, processes, resources
from tasks.running.hashes import md5
from tasks.running.journal import Journal
from tasks.running.resources import Sampler
from tasks.running.stage import options
from tasks.running.work import PlainReporter
from tasks.tracking import ingest
from tasks.tracking.ingest import IngestionError
from tasks.tracking.pages.run_page import final_metrics
from tasks.tracking.store import Store

STAGE = "raw@a"
OUT = "data/datasets/a/8px/train_images.npy"


def events(path: Path) -> list[dict[str, object]]:
    return journal.read(path)[0]


def run_stage(project: Project, *words: str, **variables: str) -> subprocess.Popen[str]:
    """The process of a stage as DVC starts it in a flow; nothing follows its journal."""
    told = {"DVC_STAGE": STAGE, "ADAMERGE_PIPELINE_RUN": "toy-pipeline", **variables}
    command = words or ("--kind", "raw", "--task", "a")
    return subprocess.Popen(
        [sys.executable, "-m", "work", *command],
        cwd=project.root,
        env={**os.environ, **told},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def journals(project: Project) -> list[Path]:
    return sorted((project.root / journal.FOLDER).glob("*.jsonl"))


# files


def test_atomic_write_leaves_the_old_file_on_failure(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("old")
    with pytest.raises(UnicodeEncodeError), atomic_write(path) as temporary:
        temporary.write_text("half \udcff", encoding="utf-8")
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


# journals


def test_a_process_is_known_whatever_the_clock_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for the end of another must not take a clock that is set for that end."""
    process = subprocess.Popen(["sleep", "60"])
    facts = processes.process_facts(process.pid)
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: 1e9)
    monkeypatch.setattr(time, "time", lambda: 2e9)
    assert processes.is_alive(facts)
    assert not processes.is_alive({**facts, "host": "another"})
    assert not processes.is_alive({**facts, "pid_started": processes.started(os.getpid())})
    assert not processes.is_alive({**facts, "pid_started": None})
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie has ended
    assert not processes.is_alive(facts)
    process.wait()
    assert not processes.is_alive(facts)
    assert not processes.runs(process.pid, None)


def test_a_line_cut_by_a_kill_waits_for_its_end(tmp_path: Path) -> None:
    log = Journal(tmp_path)
    log.start("stage", stage="x")
    log.metrics({"loss": 1.0}, 0)
    log.end("FINISHED")
    text = log.path.read_bytes()
    log.path.write_bytes(text[:-5])
    found, offset = journal.read(log.path)
    assert [event["event"] for event in found] == ["start", "metrics"]
    log.path.write_bytes(text)
    assert [event["event"] for event in journal.read(log.path, offset)[0]] == ["end"]


def test_metrics_are_batched(tmp_path: Path) -> None:
    log = Journal(tmp_path)
    log.start("stage")
    for step in range(450):
        log.metrics({"loss": step, "rate": 1}, step)
    log.end("FINISHED")
    batches = [event["points"] for event in events(log.path) if event["event"] == "metrics"]
    assert len(batches) < 6
    assert [point["step"] for batch in batches for point in batch] == list(range(450))


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    log = Journal(tmp_path)
    log.path.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        log.start("stage")


# stage processes


def test_a_stage_tells_what_it_read_and_wrote(project: Project) -> None:
    process = run_stage(project)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert said.splitlines()[-1].startswith("5/5")
    first, *_, last = events(journals(project)[0])
    assert first["deps"] == {"work.py": md5(Path("work.py"))}
    assert first["params"] == {"raw": {"length": 3}}
    assert first["pipeline"] == "toy-pipeline"
    assert first["commit"]
    assert not first["dirty"]
    assert last["outs"] == {OUT: md5(Path(OUT))}
    assert not list(Path(".adamerge/scratch").iterdir())


def test_what_the_core_logs_is_in_a_stages_output(project: Project) -> None:
    said = "logging.getLogger('adamerge_core.adamerging.precision').info('precision bfloat16')"
    line = '    if work.name in PACE["fail"]:\n'
    project.replace("work.py", line, f"    import logging\n    {said}\n{line}")
    process = run_stage(project)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert printed.splitlines()[0] == "precision bfloat16"


def test_bad_input_is_one_message_and_exit_code_1(project: Project) -> None:
    project.replace("params.yaml", "fail: []", f"fail: [{STAGE}]")
    process = run_stage(project)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said == f"{STAGE}: {STAGE} is told to fail\n"
    assert events(journals(project)[0])[-1]["status"] == "FAILED"


def test_faults_of_params_are_said_where_a_stage_fails_on_them(project: Project) -> None:
    project.replace("params.yaml", "length: 3", "length: three")
    line = '    if work.name in PACE["fail"]:\n'
    project.replace("work.py", line, f'    work.params["raw"]["length"] + 1\n{line}')
    process = run_stage(project)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in said
    assert "params.yaml: " in said


def test_an_option_that_a_command_lacks_is_a_fault_of_dvc_yaml() -> None:
    given = options("python -m tasks.finetune --task photos --alone")
    assert given == {"task": "photos"}
    with pytest.raises(InputError, match="no option --dataset"):
        given["dataset"]


def test_a_missing_dep_is_said(project: Project) -> None:
    process = run_stage(project, "--kind", "grow", "--task", "a")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"{OUT} does not exist" in said
    assert "Traceback" not in said


def test_a_killed_stage_resumes_and_writes_the_same(project: Project, tmp_path: Path) -> None:
    undisturbed = run_stage(project)
    undisturbed.communicate(timeout=60)
    expected = md5(Path(OUT))
    Path(OUT).unlink()
    project.replace("params.yaml", "seconds: 0.01", "seconds: 0.3")
    killed = run_stage(project)
    while not list(Path(".adamerge/scratch").glob("*/state.json")):
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not Path(OUT).exists()
    project.replace("params.yaml", "seconds: 0.3", "seconds: 0.01")
    again = run_stage(project)
    said, _ = again.communicate(timeout=60)
    assert "resumes at" in said
    assert md5(Path(OUT)) == expected


def test_a_stage_on_a_full_disk_says_so(project: Project, tmp_path: Path) -> None:
    """A file system of 64 KB that work fills; needs the right to mount."""
    small = project.root / "data"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        filler = small / "filler"
        with pytest.raises(OSError, match="No space left"):
            filler.write_bytes(bytes(200_000))
        process = run_stage(project)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "the disk is full" in said
        assert "Traceback" not in said
        assert events(journals(project)[0])[-1]["status"] == "FAILED"
        filler.unlink()
        again = run_stage(project)
        again.communicate(timeout=60)
        assert again.returncode == 0
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_progress_prints_the_last_line_always(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = PlainReporter()
    for done in range(1, 101):
        reporter.progress(done, 100, f"loss {done}")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 3
    assert lines[-1].startswith("100/100")
    assert lines[-1].endswith("loss 100")


# into MLflow


def pipeline_of(*stages: str) -> None:
    """Journals of a pipeline and of finished stages, as if they had run."""
    log = journal.start_pipeline("toy-pipeline", "toy run", "adamerge run")
    for name in stages:
        one = Journal()
        about = {"stage": name, "cmd": "python work.py", "pipeline": "toy-pipeline", "suite": "toy"}
        one.start("stage", **about, params={"raw": {"length": 3}}, deps={}, commit=None, dirty=True)
        one.metrics({"loss": 0.5, "nan": float("nan")}, 0)
        one.metrics({"loss": 0.25}, 1)
        Path("data").mkdir(exist_ok=True)
        Path("data/x.csv").write_text(f"step\n{name}\n")
        one.end("FINISHED", outs={"data/x.csv": md5(Path("data/x.csv"))}, signature=name)
    log.end("FINISHED", counts={"run": len(stages)})


def test_ingestion_cut_anywhere_ends_the_same(
    project: Project, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash in each call of the store in turn; then every run and point is there once."""
    pipeline_of("one", "two")

    class Crash(BaseException):
        pass

    calls = ["begin_pipeline", "begin_stage", "log_points", "finish_stage", "finish_pipeline"]
    for name in calls:
        whole = getattr(Store, name)

        def crash(self: Store, *arguments: object, _whole: object = whole) -> None:
            _whole(self, *arguments)  # type: ignore[operator]
            raise Crash

        with monkeypatch.context() as patch:
            patch.setattr(Store, name, crash)
            with pytest.raises(Crash):
                ingest.ingest()
    ingest.ingest()
    assert journals(project) == []
    client = Store().client
    experiment = client.get_experiment_by_name("toy")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["one", "toy run", "two"]
    for run in runs:
        assert run.info.status == "FINISHED"
        if run.info.run_name != "toy run":
            history = client.get_metric_history(run.info.run_id, "loss")
            assert [(point.step, point.value) for point in history] == [(0, 0.5), (1, 0.25)]


def test_a_killed_stage_becomes_a_killed_run(project: Project, database: Path) -> None:
    project.replace("params.yaml", "seconds: 0.01", "seconds: 10")
    process = run_stage(project)
    while not journals(project):
        time.sleep(0.05)
    time.sleep(0.3)
    process.kill()
    process.communicate()
    ingest.ingest()
    run = Store().search("tags.`adamerge.stage` = 'raw@a'")
    assert run is not None
    assert run.info.status == "KILLED"
    assert journals(project) == []


def one_stage(owner: subprocess.Popen[bytes], name: str, status: str) -> None:
    """The journal of a stage that the DVC process `owner` ran, without a flow."""
    key = f"dvc-{owner.pid}-{processes.started(owner.pid)}"
    facts = processes.owner_facts(psutil.Process(owner.pid)) | {"owner_cmd": "dvc repro -q"}
    about = {"stage": name, "cmd": "python work.py", "pipeline": key, "suite": "toy"}
    log = Journal()
    log.start("stage", **about, **facts, params={}, deps={}, commit=None, dirty=True)
    log.end(status)


@pytest.mark.parametrize(("last", "status"), [("FINISHED", "FINISHED"), ("FAILED", "FAILED")])
def test_a_pipeline_without_a_flow_ends_with_its_process(
    project: Project, database: Path, last: str, status: str
) -> None:
    owner = subprocess.Popen(["sleep", "60"])
    one_stage(owner, "one", "FINISHED")
    ingest.ingest()
    run = Store().last_pipeline()
    assert run is not None
    assert (run.status, run.tags["mlflow.runName"]) == ("RUNNING", "dvc repro")
    one_stage(owner, "two", last)
    owner.kill()
    owner.wait()
    ingest.ingest()
    ended = Store().last_pipeline()
    assert ended is not None
    assert (ended.run_id, ended.status) == (run.run_id, status)
    assert ended.fact("stages.failed") == str(int(last == "FAILED"))
    assert len(Store().children(run.run_id)) == 2
    assert journals(project) == []


def test_metrics_of_a_run_are_named_by_what_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("data/suites/toy/metrics/seed-0")
    texts = {
        folder / "evaluate/ties.csv": "method,protocol,seed,task,metric,value\n"
        "ties,transductive,0,photos,accuracy,60.5\nties,held_out,0,photos,nll,0.25\n",
        folder / "robustness/contrast.csv": "corruption,severity,method,protocol,seed,task,metric,"
        "value\ncontrast,3,ties,,0,photos,accuracy,40\ncontrast,3,lines,,0,photos,accuracy,50\n",
        folder / "trajectory/ties.csv": "step,loss\n0,1\n",
        folder / "ties.json": '{"transductive": 70.5, "held_out": 69}',
        folder / "task_vectors.json": '{"cosine": {"photos": 0.5}}',
    }
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    outs = {path.as_posix(): md5(path) for path in texts}
    assert final_metrics(outs, 1.0)["values"] == {
        "transductive/photos": 60.5,
        "held_out/photos/nll": 0.25,
        "ties/photos": 40.0,
        "lines/photos": 50.0,
        "transductive/average": 70.5,
        "held_out/average": 69.0,
        "cosine/photos": 0.5,
    }


def test_a_database_held_by_another_process_loses_nothing(project: Project, database: Path) -> None:
    pipeline_of("one")
    holder = sqlite3.connect("mlflow.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(IngestionError, match=r"mlflow.db is locked.*Nothing is lost"):
            ingest.ingest()
        assert len(journals(project)) == 2
    finally:
        holder.execute("ROLLBACK")
        holder.close()
    ingest.ingest()
    assert Store().find({"data/x.csv": md5(Path("data/x.csv"))}) is not None


def test_a_database_is_made_whole_or_not_at_all(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow cannot use one whose tables were only in part made."""

    def half_made(address: str, registry: str) -> None:
        Path(address.removeprefix("sqlite:///")).write_text("some tables")
        raise KeyboardInterrupt

    monkeypatch.setattr("tasks.tracking.runs.MlflowClient", half_made)
    with pytest.raises(KeyboardInterrupt):
        Store()
    assert not list(Path().glob("*mlflow*"))


def test_a_damaged_database_is_said(project: Project) -> None:
    pipeline_of("one")
    Path("mlflow.db").write_text("this is no database, but long enough to be looked at " * 20)
    with pytest.raises(IngestionError, match="damaged"):
        ingest.ingest()
    assert len(journals(project)) == 2


def test_an_unknown_stage_is_said(project: Project) -> None:
    process = run_stage(project, "--kind", "nothing")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "python -m work --kind nothing: no stage of dvc.yaml has this command" in said
    assert "\n  python -m work --kind merge\n" in said


def test_json_of_events_is_one_line_each(tmp_path: Path) -> None:
    log = Journal(tmp_path)
    log.start("stage", stage="two\nlines")
    assert json.loads(log.path.read_text())["stage"] == "two\nlines"


# what a stage takes of the machine


def test_a_long_stage_says_what_it_takes_of_the_machine() -> None:
    samples: list[tuple[dict[str, float], int]] = []
    sampler = Sampler(lambda sample, number: samples.append((sample, number)), seconds=0.05)
    sampler.start()
    until = time.monotonic() + 30
    while len(samples) < 3 and time.monotonic() < until:
        sum(range(10_000))
    sampler.stop()
    count = len(samples)
    time.sleep(0.2)
    assert len(samples) == count >= 3
    assert [number for _, number in samples] == list(range(count))
    sample = samples[1][0]
    assert 0 < sample["system/cpu_utilization_percentage"] <= 110
    assert sample["system/process_memory_usage_megabytes"] == pytest.approx(
        psutil.Process().memory_info().rss / 1e6, rel=0.5
    )


def test_a_gpu_is_sampled_where_the_process_uses_one() -> None:
    class Cuda:
        initialized = True

        def is_initialized(self) -> bool:
            return self.initialized

        def mem_get_info(self) -> tuple[int, int]:
            return 30 * 10**9, 40 * 10**9

        def utilization(self) -> int:
            raise ModuleNotFoundError("pynvml")

    torch = SimpleNamespace(cuda=Cuda())
    sample = resources._device({"torch": torch})
    assert sample["system/gpu_0_memory_usage_megabytes"] == 10_000
    assert sample["system/gpu_0_memory_usage_percentage"] == 25
    assert len(sample) == 2
    torch.cuda.initialized = False
    assert resources._device({"torch": torch}) == {}
    assert resources._device({}) == {}


def test_two_threads_may_write_metrics(tmp_path: Path) -> None:
    log = Journal(tmp_path)
    log.start("stage")
    writers = [
        threading.Thread(target=lambda n=n: [log.metrics({f"m{n}": s}, s) for s in range(500)])
        for n in range(4)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    log.end("FINISHED")
    points = [p for e in events(log.path) if e["event"] == "metrics" for p in e["points"]]
    for n in range(4):
        assert [p["step"] for p in points if f"m{n}" in p["values"]] == list(range(500))
