"""The graph of a suite: what is written to dvc.yaml is what DVC sees, and code is complete."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from adamerge_core.errors import InputError
from tasks.graph import build as graph
from tasks.graph import dvc_yaml
from tasks.graph.code import PLUMBING, sources
from tasks.running.hashes import md5_of_dep
from tasks.suite.rules import merge_rules, preprocessings
from tasks.suite.schema import Suite, load_suite


@pytest.fixture
def mini(monkeypatch: pytest.MonkeyPatch) -> Suite:
    monkeypatch.chdir(ROOT)
    return load_suite(Path("suites/mini.yaml"))


def with_changes(suite: Suite, **changes: object) -> Suite:
    return Suite.model_validate({**suite.raw, **changes})


def test_dvc_sees_exactly_the_stages_of_the_graph(
    mini: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dvc.dependency.param import ParamsDependency
    from dvc.repo import Repo

    suite = with_changes(mini, seeds=[0, 3])
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    (tmp_path / "dvc.yaml").write_text(graph.dvc_yaml(suite))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(suite.raw))
    wanted = graph.stages(suite)
    monkeypatch.chdir(tmp_path)
    with Repo(str(tmp_path)) as repo:
        seen = {stage.addressing: stage for stage in repo.index.stages}
        assert set(seen) == set(wanted)
        for name, stage in wanted.items():
            deps = [dep for dep in seen[name].deps if not isinstance(dep, ParamsDependency)]
            params = [dep for dep in seen[name].deps if isinstance(dep, ParamsDependency)]
            assert seen[name].cmd == stage.cmd
            assert sorted(dep.def_path for dep in deps) == sorted(stage.deps)
            assert sorted(key for dep in params for key in dep.params) == sorted(stage.params)
            outs = seen[name].outs
            assert sorted(o.def_path for o in outs if not o.metric) == sorted(stage.outs)
            assert sorted(o.def_path for o in outs if o.metric) == sorted(stage.metrics)
            assert all(out.use_cache for out in outs)


def test_what_is_written_is_read_back(mini: Suite, tmp_path: Path) -> None:
    path = tmp_path / "dvc.yaml"
    path.write_text(graph.dvc_yaml(mini))
    assert dvc_yaml.read(path) == graph.stages(mini)
    assert graph.misfits(mini, path) == []


def test_misfits_name_the_stages(mini: Suite, tmp_path: Path) -> None:
    path = tmp_path / "dvc.yaml"
    path.write_text(graph.dvc_yaml(mini).replace("merge.${item.method}", "merge", 1))
    found = graph.misfits(with_changes(mini, seeds=[0, 1]), path)
    assert "merge@ties_merging-0 differs" in found
    assert "finetune@mnist-1 is missing" in found
    assert not [line for line in found if "finetune@mnist-0" in line]


def test_the_dvc_yaml_of_the_repository_is_that_of_its_params(mini: Suite) -> None:
    active = load_suite(Path("params.yaml"))
    assert Path("dvc.yaml").read_text() == graph.dvc_yaml(active), "run: adamerge suite use"


def test_files_have_one_writer_and_readers_find_it(mini: Suite) -> None:
    stages = graph.stages(mini)
    written = [path for stage in stages.values() for path in stage.files]
    assert len(written) == len(set(written))
    for stage in stages.values():
        data = [path for path in stage.deps if not dvc_yaml.is_code(path)]
        assert set(data) <= set(written), stage.name
        assert len(set(stage.deps)) == len(stage.deps)


def test_parameters_exist(mini: Suite) -> None:
    for stage in graph.stages(mini).values():
        for key in stage.params:
            value: object = mini.raw
            for part in key.split("."):
                assert isinstance(value, dict)
                value = value[part]


def test_another_seed_leaves_the_stages_of_the_first_alone(mini: Suite) -> None:
    before, after = graph.stages(mini), graph.stages(with_changes(mini, seeds=[0, 1]))
    changed = [name for name, stage in before.items() if after[name] != stage]
    assert changed == ["report"]
    assert len(after) > len(before)


def test_names_of_stages_are_those_of_the_graph(mini: Suite) -> None:
    names = set(graph.stages(mini))
    for method in (*mini.raw["merge"], "pretrained", "individual", "traditional_mtl"):
        assert graph.evaluate_stage(mini, method, 0) in names
    assert {graph.merge_stage(mini, method, 0) for method in mini.raw["merge"]} <= names
    for corruption in mini.raw["evaluate_corrupted"]["corruptions"]:
        assert graph.evaluate_corrupted_stage(corruption, 0) in names


@pytest.fixture
def methods(monkeypatch: pytest.MonkeyPatch) -> Suite:
    """Every method there is."""
    monkeypatch.chdir(ROOT)
    return load_suite(Path("suites/mini_methods.yaml"))


def test_a_rule_of_its_own_file_is_code_of_its_stages_alone(methods: Suite) -> None:
    readers: dict[str, set[str]] = {}
    for name, stage in graph.stages(methods).items():
        for path in stage.deps:
            readers.setdefault(path, set()).add(name)
    own = "adamerge_core/merging"
    assert readers[f"{own}/wudi.py"] == {"merge_wudi@wudi-0"}
    assert readers[f"{own}/dare.py"] == {"merge_dare@dare-0"}
    assert readers[f"{own}/isotropic.py"] == {
        "merge_iso_c@iso_c-0",
        "merge_iso_cts@iso_cts-0",
        "sweep_iso_c@iso_c_best-0",
    }
    assert readers[f"{own}/tsv.py"] == {
        "merge_tsv_m@tsv_m-0",
        "adapt_tsv_decorrelate@layer_wise_tsv-0",
        "adapt_tsv_decorrelate@layer_wise_tsv_self_labelling-0",
    }
    assert "merge@ties_merging-0" in readers[f"{own}/ties.py"]


def test_rules_that_need_data_wait_for_their_statistics(methods: Suite) -> None:
    stages = graph.stages(methods)
    made = {name: stage.outs for name, stage in stages.items() if name.startswith("statistics@")}
    assert len(made) == 2 * len(methods.task_names)
    assert made[graph.statistics_stage("fisher_diagonal", "mnist", 0)] == (
        "data/mini_methods/statistics/seed-0/fisher_diagonal/mnist.safetensors",
    )
    for kind, method in (("fisher_diagonal", "fisher_merging"), ("gram_matrices", "regmean")):
        deps = stages[graph.merge_stage(methods, method, 0)].deps
        for task in methods.task_names:
            assert set(made[graph.statistics_stage(kind, task, 0)]) <= set(deps)
    only = with_changes(
        methods, merge={"task_arithmetic": {"scaling": 0.3}, "regmean": {"alpha": 0.5}}
    )
    kinds = {
        name.split("@")[1].split("-")[0] for name in graph.stages(only) if "statistics" in name
    }
    assert kinds == {"gram_matrices"}


def test_what_computes_depends_on_where_and_with_how_many_threads(methods: Suite) -> None:
    merged, sums = "merge_regmean@regmean-0", "task_vectors@0"
    stages = graph.stages(methods)
    for name in (merged, "merge@weight_averaging-0"):
        assert {"compute.device", "compute.threads"} <= set(stages[name].params)
    assert stages[sums].params == ("compute.threads",)
    waiting = {name.split("@")[0] for name in stages if graph.uses_device(stages[name])}
    assert {"pretrain", "merge", "merge_regmean", "sweep_iso_c", "adapt", "statistics"} <= waiting
    assert waiting.isdisjoint({"download", "prepare", "corrupt", "task_vectors"})


def test_no_two_stages_of_many_methods_write_one_file(methods: Suite, tmp_path: Path) -> None:
    path = tmp_path / "dvc.yaml"
    path.write_text(graph.dvc_yaml(methods))
    assert dvc_yaml.read(path) == graph.stages(methods)
    test_files_have_one_writer_and_readers_find_it(methods)
    test_names_of_stages_are_those_of_the_graph(methods)


def test_groups_without_members_are_left_out(mini: Suite) -> None:
    merge = {"task_arithmetic": {"scaling": 0.3}}
    names = {name.split("@")[0] for name in graph.stages(with_changes(mini, merge=merge))}
    assert "merge" in names
    assert not {"sweep", "adapt", "evaluate_adapted"} & names


def test_a_folder_of_images_is_what_its_download_depends_on(mini: Suite, tmp_path: Path) -> None:
    folder = str(tmp_path / "my images: all")
    source = {"source": "image_folder", "path": folder, "templates": ["a photo of a {}."]}
    suite = with_changes(mini, download={**mini.raw["download"], "letters": source})
    path = tmp_path / "dvc.yaml"
    path.write_text(graph.dvc_yaml(suite))
    stage = dvc_yaml.read(path)[graph.download_stage(suite, "letters")]
    assert stage.deps[0] == folder
    assert stage == graph.stages(suite)["download_letters"]
    assert graph.download_stage(suite, "mnist") in graph.stages(suite)
    assert "download@letters" not in graph.stages(suite)
    assert "download.letters" in stage.params


def test_a_folder_is_hashed_as_dvc_hashes_it(tmp_path: Path) -> None:
    for name in ("images/a/1.png", "images/a b/2.png", "images/a.b/3.png", "images/B/4.png"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    (tmp_path / "dvc.yaml").write_text("stages: {look: {cmd: 'true', deps: [images]}}")
    for command in (["init", "-q", "--no-scm"], ["repro", "-q"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=tmp_path, check=True)
    lock = yaml.safe_load((tmp_path / "dvc.lock").read_text())
    assert lock["stages"]["look"]["deps"][0]["md5"] == md5_of_dep(tmp_path / "images")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "adamerge suite use NAME"),
        ("stages: {a: {foreach: [1], do: {cmd: x}}}", "stage a uses foreach"),
        ("stages: [", "no YAML"),
    ],
)
def test_a_dvc_yaml_that_cannot_be_read(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "dvc.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=said):
        dvc_yaml.read(path)


def test_code_follows_imports_of_imports() -> None:
    merge = sources("tasks.merge", ROOT)
    assert "tasks/merge.py" in merge
    assert "adamerge_core/task_vectors.py" in merge
    assert not PLUMBING.intersection(merge)


_MODULES_LOADED = """
import importlib, json, sys
found = {}
for name in sys.argv[1:]:
    for loaded in [m for m in sys.modules if m.split(".")[0] in ("adamerge_core", "tasks")]:
        del sys.modules[loaded]
    importlib.import_module(name)
    found[name] = [m for m in sys.modules if m.split(".")[0] in ("adamerge_core", "tasks")]
print(json.dumps(found))
"""


@pytest.mark.slow
def test_code_has_all_that_a_stage_loads(mini: Suite) -> None:
    """What Python itself imports for each stage's module is among the stage's dependencies."""
    modules = sorted({stage.cmd.split()[2] for stage in graph.stages(mini).values()})
    command = [sys.executable, "-c", _MODULES_LOADED, *modules]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    for name, loaded in yaml.safe_load(done.stdout).items():
        files = {module.replace(".", "/") for module in loaded}
        known = {path.removesuffix(".py").removesuffix("/__init__") for path in sources(name)}
        ignored = {path.removesuffix(".py").removesuffix("/__init__") for path in PLUMBING}
        assert files <= known | ignored | _registered(), name


def _registered() -> set[str]:
    """What the registry imports by name: a rule's file is code of the stages that use the rule."""
    modules = {rule.module for rule in (*merge_rules().values(), *preprocessings().values())}
    paths = {path for module in modules for path in sources(module, ROOT)}
    return {path.removesuffix(".py").removesuffix("/__init__") for path in paths}
