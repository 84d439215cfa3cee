"""The graph of a suite: what is written to dvc.yaml is what DVC sees, and code is complete."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from adamerge_core.errors import InputError
from tasks import wiring
from tasks.graph import code, dvc_yaml, params_yaml
from tasks.graph.code import PLUMBING, sources
from tasks.graph.dvc_yaml import Stage
from tasks.running.hashes import md5_of_dep
from tasks.suite.schema import Suite, checked, load_suite


@pytest.fixture
def mini(monkeypatch: pytest.MonkeyPatch) -> Suite:
    monkeypatch.chdir(ROOT)
    return load_suite(Path("suites/mini.yaml"))


@pytest.fixture
def methods(monkeypatch: pytest.MonkeyPatch) -> Suite:
    """Every method there is."""
    monkeypatch.chdir(ROOT)
    return load_suite(Path("suites/mini_methods.yaml"))


def with_changes(suite: Suite, **changes: object) -> Suite:
    return checked({**suite.raw, **changes}, "suite")


def readers_of(suite: Suite) -> dict[str, set[str]]:
    """By file the stages that depend on it."""
    readers: dict[str, set[str]] = {}
    for name, stage in wiring.stages(suite).items():
        for path in stage.deps:
            readers.setdefault(path, set()).add(name)
    return readers


def test_dvc_sees_exactly_the_stages_of_the_graph(
    mini: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dvc.dependency.param import ParamsDependency
    from dvc.repo import Repo

    suite = with_changes(mini, seeds=[0, 3])
    wanted = wiring.stages(suite)
    (tmp_path / "dvc.yaml").write_text(wiring.dvc_yaml(suite))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(suite.raw))
    monkeypatch.chdir(tmp_path)
    with Repo.init(str(tmp_path), no_scm=True) as repo:
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
    path.write_text(wiring.dvc_yaml(mini))
    assert dvc_yaml.read(path) == wiring.stages(mini)
    assert wiring.misfits(mini, path) == []


ODD = ["no", "on", "null", "y", "true", "0123", "0o17", "1e3", "1_000", ".5", "~", "a: b", "#", "é"]


def test_names_that_yaml_takes_for_other_things_stay_names(tmp_path: Path) -> None:
    """For our reader, which speaks YAML 1.1, and for DVC's, which speaks 1.2."""
    from dvc.utils.serialize import parse_yaml

    check_names(ODD, tmp_path / "dvc.yaml")
    text = dvc_yaml.render([a_stage(ODD)], "heading")
    assert parse_yaml(text, "dvc.yaml")["stages"]["a"]["matrix"]["item"] == ODD


@settings(max_examples=30)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1)))
def test_any_text_is_read_back(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    check_names(names, tmp_path_factory.mktemp("yaml") / "dvc.yaml")


def a_stage(names: list[str]) -> Stage:
    return Stage("a", "run", deps=tuple(names), matrix={"item": names})


def check_names(names: list[str], path: Path) -> None:
    path.write_text(dvc_yaml.render([a_stage(names)], "heading"), encoding="utf-8")
    body = params_yaml.load_yaml(path)["stages"]["a"]
    assert body["matrix"]["item"] == names
    assert body.get("deps", []) == names


def test_misfits_name_the_stages(mini: Suite, tmp_path: Path) -> None:
    path = tmp_path / "dvc.yaml"
    text = wiring.dvc_yaml(mini).replace("- methods.ties_merging\n", "- methods\n", 1)
    path.write_text(text)
    found = wiring.misfits(with_changes(mini, seeds=[0, 1]), path)
    assert "merge_ties_merging@mini-0 differs" in found
    assert "finetune@mini_clip-mnist-1 is missing" in found
    assert not [line for line in found if "finetune@mini_clip-mnist-0" in line]


def test_the_dvc_yaml_of_the_repository_is_that_of_its_params(mini: Suite) -> None:
    active = load_suite(Path("params.yaml"))
    assert Path("dvc.yaml").read_text() == wiring.dvc_yaml(active), "run: adamerge suite use"


def test_files_have_one_writer_and_readers_find_it(methods: Suite) -> None:
    stages = wiring.stages(methods)
    written = [path for stage in stages.values() for path in stage.files]
    assert len(written) == len(set(written))
    for stage in stages.values():
        data = [path for path in stage.deps if not dvc_yaml.is_code(path)]
        assert set(data) <= set(written), stage.name
        assert len(set(stage.deps)) == len(stage.deps)


def test_parameters_exist(methods: Suite) -> None:
    for stage in wiring.stages(methods).values():
        for key in stage.params:
            value: object = methods.raw
            for part in key.split("."):
                assert isinstance(value, dict)
                value = value[part]


def test_another_seed_leaves_the_stages_of_the_first_alone(mini: Suite) -> None:
    before, after = wiring.stages(mini), wiring.stages(with_changes(mini, seeds=[0, 1]))
    changed = [name for name, stage in before.items() if after[name] != stage]
    assert changed == ["report@mini"]
    assert len(after) > len(before)


def test_suites_share_all_that_makes_data_and_models(mini: Suite, methods: Suite) -> None:
    """So that switching them reruns none of it, nor takes its place in dvc.lock."""
    one, other = wiring.stages(mini), wiring.stages(methods)
    shared = {name for name, stage in one.items() if "data/suites" not in str(stage.files)}
    assert {name.split("@")[0].split("_")[0] for name in shared} == {
        "download", "prepare", "corrupt", "pretrain", "finetune", "task",
        "traditional",
    }  # fmt: skip
    assert all(other[name] == one[name] for name in shared)
    assert not (set(one) - shared) & set(other)


# --- what a stage depends on ----------------------------------------------------------------------


def test_a_merge_rule_is_code_of_its_methods_alone(methods: Suite) -> None:
    readers = readers_of(methods)
    own = "adamerge_core/merging"
    assert readers[f"{own}/wudi.py"] == {"merge_wudi@mini_methods-0"}
    assert readers[f"{own}/dare.py"] == {"merge_dare@mini_methods-0"}
    assert readers[f"{own}/isotropic.py"] == {
        "merge_iso_c@mini_methods-0",
        "merge_iso_c_best@mini_methods-0",
        "merge_iso_cts@mini_methods-0",
    }
    assert {name.split("@")[0] for name in readers[f"{own}/tsv.py"]} == {
        "merge_tsv_m",
        "adapt_layer_wise_tsv",
        "adapt_layer_wise_tsv_self_labelling",
    }
    assert {name.split("@")[0] for name in readers[f"{own}/ties.py"]} == {
        "merge_ties_merging",
        "merge_ties_merging_best",
        "adapt_task_wise_adamerging_pp",
        "adapt_layer_wise_adamerging_pp",
        "geometry",  # measures what trimming and election do to conflicting signs
    }


BEFORE_MERGING = ("download", "prepare", "corrupt", "pretrain", "heads", "finetune", "traditional")


def test_nothing_that_merges_is_code_of_what_comes_before(methods: Suite) -> None:
    merging = ("adamerge_core/merging/", "adamerge_core/adamerging/", "adamerge_core/statistics/")
    files = ("adamerge_core/task_vectors.py", "adamerge_core/storage.py")
    for name, stage in wiring.stages(methods).items():
        if name.startswith(BEFORE_MERGING):
            assert not [path for path in stage.deps if path.startswith((*merging, *files))], name


def test_only_merges_that_choose_depend_on_what_runs_the_encoder(methods: Suite) -> None:
    files = {
        "adamerge_core/vision/clip.py",
        "adamerge_core/evaluation.py",
        "adamerge_core/adamerging/engine.py",
        "tasks/shared/choice.py",
        "tasks/shared/tables.py",
    }
    stages = wiring.stages(methods)
    merges = {name: method for name, method in methods.merging.items() if not method.adapts}
    for name, method in merges.items():
        found = files & set(stages[f"merge_{name}@mini_methods-0"].deps)
        assert found == (files if method.choose else set()), name


def test_statistics_do_not_depend_on_how_accuracy_is_measured(methods: Suite) -> None:
    readers = readers_of(methods)["adamerge_core/evaluation.py"]
    assert not [name for name in readers if name.startswith("collect_statistics")]


def test_rows_that_survive_a_kill_are_code_of_what_trains_and_adapts(mini: Suite) -> None:
    readers = readers_of(mini)["tasks/shared/resumable_rows.py"]
    kinds = {name.split("@")[0].split("_")[0] for name in readers}
    assert kinds == {"finetune", "traditional", "adapt"}


def test_a_source_is_code_of_its_own_downloads_alone(mini: Suite, tmp_path: Path) -> None:
    entry = {"source": "image_folder", "path": str(tmp_path), "templates": ["a photo of a {}."]}
    pretrain = {**mini.raw["pretrain"], "datasets": ["mnist"]}
    suite = with_changes(
        mini, datasets={**mini.raw["datasets"], "letters": entry}, pretrain=pretrain
    )
    stages = wiring.stages(suite)
    assert stages["download_letters"].deps[0] == str(tmp_path)
    assert "datasets.letters" in stages["download_letters"].params
    kinds = "adamerge_core/vision/datasets"
    readers = readers_of(suite)
    assert readers[f"{kinds}/image_folder.py"] == {"download_letters"}
    assert "download_letters" not in readers[f"{kinds}/miniature.py"]
    assert "download_mnist" in readers[f"{kinds}/miniature.py"]


def test_no_stage_depends_on_plumbing(methods: Suite) -> None:
    for stage in wiring.stages(methods).values():
        assert not [path for path in stage.deps if path.startswith(PLUMBING)]
        assert not [path for path in stage.deps if path.endswith("__init__.py")]


def test_rules_that_need_data_wait_for_their_statistics(methods: Suite) -> None:
    stages = wiring.stages(methods)
    made = {n: s.outs for n, s in stages.items() if n.startswith("collect_statistics@")}
    assert len(made) == 2 * len(methods.tasks)
    assert made["collect_statistics@mini_clip-fisher_diagonal-mnist-0"] == (
        "data/models/mini_clip/statistics/fisher_diagonal/mnist-0.safetensors",
    )
    for kind, method in (("fisher_diagonal", "fisher_merging"), ("gram_matrices", "regmean")):
        deps = stages[f"merge_{method}@mini_methods-0"].deps
        for task in methods.tasks:
            assert made[f"collect_statistics@mini_clip-{kind}-{task}-0"][0] in deps
    only = with_changes(methods, methods={"regmean": {"rule": "regmean"}})
    kinds = {name.split("-")[1] for name in wiring.stages(only) if "statistics" in name}
    assert kinds == {"gram_matrices"}


def test_what_computes_depends_on_where_and_with_how_many_threads(methods: Suite) -> None:
    stages = wiring.stages(methods)
    for name in ("merge_regmean@mini_methods-0", "merge_weight_averaging@mini_methods-0"):
        assert {"compute.device", "compute.threads"} <= set(stages[name].params)
    assert stages["task_vectors@mini_clip-mnist-0"].params == ("compute.threads",)


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
        ("stages: {a: {foreach: [1], do: {cmd: x}}}", "stage a has no cmd.*foreach"),
        ("stages: {a: x}", "stage a has no cmd"),
        ("stages: [a]", "holds no stages"),
        ("- a", "holds no stages"),
        ("", "holds no stages"),
        ("stages: [", "not readable as YAML"),
    ],
)
def test_a_dvc_yaml_that_cannot_be_read(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "dvc.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=said):
        dvc_yaml.read(path)


# --- following imports ----------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path) -> Iterator[Path]:
    """A small project: tasks/a.py uses the package adamerge_core.part."""
    files = {
        "tasks/__init__.py": "",
        "tasks/a.py": "from adamerge_core.part import first\n",
        "tasks/b.py": "from adamerge_core import part\n",
        "tasks/c.py": "def f():\n    from adamerge_core.part import hidden\n",
        "tasks/d.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import tasks.a\n",
        "tasks/e.py": "import tasks.graph.x\n",
        "tasks/graph/__init__.py": "",
        "tasks/graph/x.py": "import tasks.a\n",
        "adamerge_core/__init__.py": "",
        "adamerge_core/part/__init__.py": (
            "from adamerge_core.part.one import first\nfrom .two import second\n"
        ),
        "adamerge_core/part/one.py": "first = 1\n",
        "adamerge_core/part/two.py": "second = 2\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    yield tmp_path
    code._imported.cache_clear()
    code._exports.cache_clear()


def test_a_name_leads_to_the_module_that_defines_it(package: Path) -> None:
    assert sources("tasks.a", root=package) == ["adamerge_core/part/one.py", "tasks/a.py"]


def test_a_package_as_a_whole_is_all_that_it_imports(package: Path) -> None:
    one, two = "adamerge_core/part/one.py", "adamerge_core/part/two.py"
    assert sources("tasks.b", root=package) == [one, two, "tasks/b.py"]


def test_a_name_that_would_hide_a_dependency_is_refused(package: Path) -> None:
    with pytest.raises(InputError, match=r"import hidden: .*__init__.py does not import it"):
        sources("tasks.c", root=package)


def test_types_and_plumbing_are_not_followed(package: Path) -> None:
    assert sources("tasks.d", root=package) == ["tasks/d.py"]
    assert sources("tasks.e", root=package) == ["tasks/e.py"]


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
def test_code_has_all_that_a_stage_loads(methods: Suite) -> None:
    """What Python itself imports for a stage's module is among the stage's dependencies, but for
    what packages import for others.
    """
    modules = sorted({stage.cmd.split()[2] for stage in wiring.stages(methods).values()})
    command = [sys.executable, "-c", _MODULES_LOADED, *modules]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    for name, loaded in yaml.safe_load(done.stdout).items():
        files = {f"{module.replace('.', '/')}.py" for module in loaded}
        there = {path for path in files if Path(path).is_file() and not path.startswith(PLUMBING)}
        assert there <= set(sources(name)) | _registered(), name


def _registered() -> set[str]:
    """What packages import by name at run time, which is code of the stages that use it, and what
    plumbing reads names of, which it checks a suite by.
    """
    core = ("merging", "adamerging", "statistics", "checkpoints", "vision/datasets")
    folders = [f"adamerge_core/{name}" for name in core]
    files = [path for folder in folders for path in Path(folder).glob("*.py")]
    modules = [_module(path) for path in files if path.name != "__init__.py"]
    plumbing = [path for folder in PLUMBING for path in Path(folder).glob("*.py")]
    named = {name for path in plumbing for name in code._imported(path.as_posix(), Path())}
    return set(sources(*modules, *named))


def _module(path: Path) -> str:
    return path.with_suffix("").as_posix().replace("/", ".")
