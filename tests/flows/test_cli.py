"""The command `adamerge`: help, suites, messages and exit codes."""

import base64
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Project, make_project

from flows import cli, guard

COMMANDS = ["run", "status", "ui", "lineage", "suite", "methods", "schedule", "experiment"]
COMMANDS += ["merge", "evaluate", "inspect", "convert", "finetune"]

pytestmark = pytest.mark.usefixtures("signals")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with the suites and the code, but no active suite."""
    for name in ("suites", "tasks", "adamerge_core"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return captured.out + captured.err


def test_help_is_quick_and_has_an_example_of_each(capsys: pytest.CaptureFixture[str]) -> None:
    heavy = {"prefect", "mlflow", "dvc", "torch", "pydantic"}
    loaded = Project(ROOT).run("flows.cli", "--help")
    assert loaded.returncode == 0
    probe = "import sys, flows.cli; flows.cli._parser(); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=ROOT)
    assert not heavy.intersection(yaml.safe_load(done.stdout))
    for command in COMMANDS:
        assert command in loaded.stdout
        with pytest.raises(SystemExit) as ended:
            cli.main([command, "--help"])
        assert ended.value.code == 0
        if command != "suite":
            assert f"  adamerge {command}" in capsys.readouterr().out


def test_no_command_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    assert ended.value.code == 2


def test_suite_use_writes_both_files(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["suite", "use", "mini"]) == 0
    assert Path("params.yaml").read_text() == Path("suites/mini.yaml").read_text()
    assert "finetune:" in Path("dvc.yaml").read_text()
    assert cli.main(["suite", "use", "mini", "--seeds", "0", "1", "2"]) == 0
    params = Path("params.yaml").read_text()
    assert "seeds: [0, 1, 2]   " in params  # the comment behind it is kept
    assert yaml.safe_load(params)["seeds"] == [0, 1, 2]
    assert "finetune@mini_clip-mnist-2" in _stages()
    assert cli.main(["suite", "list"]) == 0
    assert "* mini" in said(capsys)
    assert cli.main(["suite", "show"]) == 0
    shown = capsys.readouterr()
    assert shown.out == params
    assert shown.err.startswith("disk  ")  # what it needs


def _stages() -> set[str]:
    from tasks.graph import dvc_yaml

    return set(dvc_yaml.read())


def test_the_project_is_found_from_a_folder_below_it(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root / "suites")
    assert cli.main(["suite", "use", "mini"]) == 0
    assert (root / "params.yaml").is_file()
    monkeypatch.chdir(root.parent)
    assert cli.main(["suite", "list"]) == 2
    assert "is in no project" in said(capsys)


def test_suite_use_keeps_what_a_user_changed(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["suite", "use", "mini"])
    changed = Path("params.yaml").read_text().replace("steps: 200", "steps: 201")
    Path("params.yaml").write_text(changed)
    assert cli.main(["suite", "use", "mini"]) == 2
    assert "params.yaml has changes of yours" in said(capsys)
    assert Path("params.yaml").read_text() == changed
    assert cli.main(["suite", "use"]) == 0
    assert cli.main(["suite", "use", "mini", "--force"]) == 0
    assert Path("params.yaml").read_text() == Path("suites/mini.yaml").read_text()


def test_run_with_a_name_makes_the_suite_active(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin() -> None:
        raise KeyboardInterrupt  # here the pipeline would begin

    monkeypatch.setattr("flows.commands._bring_in", begin)
    assert cli.main(["run", "mini"]) == 130
    assert Path("params.yaml").read_text() == Path("suites/mini.yaml").read_text()
    assert "finetune:" in Path("dvc.yaml").read_text()
    assert "mini is active" in said(capsys)
    changed = Path("params.yaml").read_text().replace("steps: 200", "steps: 201")
    Path("params.yaml").write_text(changed)
    assert cli.main(["run", "mini"]) == 2
    assert "params.yaml has changes of yours" in said(capsys)
    assert cli.main(["run", "nope"]) == 2
    assert "suite 'nope' is unknown" in said(capsys)
    assert Path("params.yaml").read_text() == changed


def test_a_copied_suite_must_have_a_name_of_its_own(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["suite", "use", "mini"])
    before = Path("params.yaml").read_text()
    shutil.copy("suites/mini.yaml", "suites/own.yaml")
    for arguments in (["use", "own"], ["use", "own", "--seeds", "3"], ["list"]):
        said(capsys)
        assert cli.main(["suite", *arguments]) == 2
        text = said(capsys)
        assert "suites/own.yaml: 1 fault" in text
        assert "suite = 'mini': must be 'own'" in text
    assert Path("params.yaml").read_text() == before
    Path("suites/own.yaml").write_text(before.replace("suite: mini", "suite: own"))
    assert cli.main(["suite", "use", "own"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["suite", "use", "nope"], "suite 'nope' is unknown; known are mini"),
        (["run", "nope"], "suite 'nope' is unknown; known are mini"),
        (["suite", "use"], "no suite is active yet"),
        (["suite", "show"], "no suite is active"),
        (["run"], "params.yaml"),
        (["status"], "params.yaml"),
        (["lineage", "x"], "dvc.yaml is not in"),
        (["schedule"], "params.yaml"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(
    root: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert cli.main(arguments) == 2
    text = said(capsys)
    assert text.startswith("adamerge: ")
    assert message in text
    assert "Traceback" not in text


def test_faults_of_a_suite_are_listed_and_nothing_is_written(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["suite", "use", "mini"])
    before = Path("dvc.yaml").read_text()
    text = Path("params.yaml").read_text()
    broken = text.replace("device: cpu", "device: gpu").replace("image_size: 64", "image_size: no")
    Path("params.yaml").write_text(broken)
    said(capsys)
    assert cli.main(["suite", "use"]) == 2
    text = said(capsys)
    assert "compute.device" in text
    assert "prepare.image_size" in text
    assert Path("dvc.yaml").read_text() == before
    assert Path("params.yaml").read_text() == broken


def test_what_a_rule_refuses_is_said_before_anything_runs(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["suite", "use", "mini"])
    content = yaml.safe_load(Path("params.yaml").read_text())
    steps = {"steps": 5, "images_per_task": 2, "learning_rate": 0.01, "start": 0.3}
    content["methods"] |= {
        "cts": {"rule": "iso_cts", "common_share": 2},
        "consensus": {"rule": "consensus", "min_tasks": 9},
        "lines": {"rule": "lines", "alpha": -1, "beta": -2},
        "regmean": {"rule": "regmean", "alpha": 0.5},  # fits, and is called with statistics
        "over_dare": {
            "adapt": "layer_wise",
            "before": {"name": "drop_and_rescale", "drop": 1},
            **steps,
        },
    }
    content["statistics"] = {"images": 10, "split": "val", "fisher_probes": 2}
    params = yaml.safe_dump(content, sort_keys=False)
    Path("params.yaml").write_text(params)
    before = Path("dvc.yaml").read_text()
    for arguments in (["suite", "use"], ["run"]):
        said(capsys)
        assert cli.main(arguments) == 2
        text = said(capsys)
        assert "params.yaml: 5 faults" in text
        assert "methods.cts.common_share = 2: " in text
        assert "methods.consensus.min_tasks = 9: must be from 1 to the 8 tasks" in text
        assert "methods.lines.alpha = -1: " in text
        assert "methods.lines.beta = -2: " in text
        assert "methods.over_dare.before.drop = 1: " in text
    assert Path("dvc.yaml").read_text() == before
    assert Path("params.yaml").read_text() == params


def test_run_refuses_a_dvc_yaml_that_does_not_fit(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["suite", "use", "mini"])
    text = Path("params.yaml").read_text().replace("seeds: [0]", "seeds: [0, 7]")
    Path("params.yaml").write_text(text)
    said(capsys)
    assert cli.main(["run"]) == 2
    text = said(capsys)
    assert "is missing" in text
    assert "write it anew: adamerge suite use" in text


@pytest.mark.parametrize("option", ["--mlflow-port", "--prefect-port"])
def test_an_occupied_port_is_said(
    project: Project, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    with socket.socket() as taken, socket.socket() as probe:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
        probe.close()
        port = taken.getsockname()[1]
        other = "--prefect-port" if option == "--mlflow-port" else "--mlflow-port"
        assert cli.main(["ui", option, str(port), other, str(free)]) == 2
    text = said(capsys)
    assert f"{option} {port}: " in text
    assert "in use" in text
    assert f"choose another: {option} {port + 1}" in text


def test_an_unforeseen_error_has_its_traceback_in_a_file(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.suites.list_all", lambda: 1 / 0)
    assert cli.main(["suite", "list"]) == 1
    text = said(capsys)
    assert "ZeroDivisionError" in text
    assert "Traceback" not in text
    assert "Traceback" in Path(".adamerge/error.log").read_text()


def test_ctrl_c_is_130(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("flows.suites.list_all", interrupted)
    assert cli.main(["suite", "list"]) == 130


def _completed(port: int, secret: Path) -> int:
    """How many flow runs have completed on the server, as far as it answers."""
    try:
        login = base64.b64encode(secret.read_bytes().strip()).decode()
    except OSError:
        return 0
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/flow_runs/count",
        data=b'{"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}',
        headers={"Content-Type": "application/json", "Authorization": f"Basic {login}"},
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return int(answer.read())
    except OSError:
        return 0


def test_what_is_stopped_while_it_starts_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "starting.py").write_text("import time\nprint('up')\ntime.sleep(60)\n")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = guard.start(["starting"], more={"PYTHONPATH": str(tmp_path)}, cwd=ROOT, **pipes)
    assert process.stdout
    assert process.stdout.readline() == "up\n"
    guard.stop(process)
    assert process.communicate() == ("", "")
    assert process.returncode == 130


@pytest.mark.slow
def test_a_triggered_run_goes_through_the_worker(tmp_path: Path) -> None:
    """`adamerge schedule --now` runs the toy pipeline in Prefect's worker; Ctrl-C ends all."""
    project = make_project(tmp_path / "toy")
    shutil.copy(ROOT / "prefect.yaml", project.root)
    shutil.copytree(ROOT / "flows", project.root / "flows")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = "from flows.nightly import serve; raise SystemExit(serve({port}, now=True))"
    process = subprocess.Popen(
        [sys.executable, "-c", code.replace("{port}", str(port))],
        cwd=project.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + 200
        while not _completed(port, project.root / ".adamerge/secret"):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < until
            time.sleep(0.5)
        time.sleep(1)  # for the worker to hand on the last line
    finally:
        process.send_signal(signal.SIGINT)
        printed = process.communicate(timeout=60)[0]
    assert process.returncode == 0, printed
    assert "nightly: next at" in printed
    assert "8 stages in" in printed
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
