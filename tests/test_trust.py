"""Nothing of a stranger's run is executed unasked, what strangers wrote is shown as text, and reading it ends soon."""

import argparse
import importlib
import json
import os
import time
from pathlib import Path

import pytest
import yaml
from support import ROOT, Toy, make_run
from training_support import train_tiny

from llm_sra.engines import EngineOptions
from llm_sra.models.adapter_files import AdapterError, read_adapter_config, without_patterns
from llm_sra.models.loading import ModelError
from llm_sra.partners.loader import PolicyLoader
from llm_sra.partners.rosters import RosterError, read_playable, read_roster
from llm_sra.policies.base import UnavailableError
from llm_sra.policies.recorded import Recorded
from llm_sra.registry import shipped_rosters
from llm_sra.runs import Run, RunError
from llm_sra.runs.locks import FolderLock
from llm_sra.runs.trust import may_run_code, task_of_run
from llm_sra.untrusted import printable
from recipes.cli import main
from recipes.terminal import trust_flags

TASK = "from pathlib import Path\nfrom tasks.worksheet import WorksheetTask\n\nclass Mine(WorksheetTask):\n    pass\n"


@pytest.fixture
def own(tmp_path: Path) -> Run:
    import tasks.worksheet as worksheet
    from llm_sra.task import Task

    [name] = [n for n, c in vars(worksheet).items() if isinstance(c, type) and issubclass(c, Task)]
    (tmp_path / "mine.py").write_text(TASK.replace("WorksheetTask", name))
    return make_run(tmp_path / "run", task=f"{tmp_path / 'mine.py'}:Mine")


def as_of_a_stranger(run: Run) -> Run:
    path = run.path / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["task_file"]["mark"] = "0" * 64
    path.write_text(yaml.safe_dump(config))
    return Run.open(run.path)


def test_ones_own_task_file_needs_no_flag_from_any_folder(
    own: Run, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert type(task_of_run(own, None)).__name__ == "Mine"


def test_a_changed_task_file_is_named_and_the_copy_is_played(
    own: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mine.py").write_text("raise SystemExit('the changed file ran')\n")
    assert type(task_of_run(own, None)).__name__ == "Mine"
    assert "mine.py has changed since" in caplog.text


def test_a_lost_task_file_is_found_in_the_run(own: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.py").unlink()
    assert type(task_of_run(own, None)).__name__ == "Mine"


def test_a_changed_copy_is_not_run(own: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.py").unlink()
    (own.path / "task" / "mine.py").write_text("raise SystemExit('ran')\n")
    with pytest.raises(RunError, match="no copy with the hash"):
        task_of_run(own, None)


def test_a_strangers_task_file_is_run_with_the_flag_alone(own: Run) -> None:
    stranger = as_of_a_stranger(own)
    with pytest.raises(RunError, match=rf"{own.path} wants to run a task .*mine\.py:Mine.*--trust_task"):
        task_of_run(stranger, None)
    assert type(task_of_run(stranger, None, trust_task=True)).__name__ == "Mine"


@pytest.mark.parametrize("spec", ["antigravity:Task", "/proc/self/cwd/x.py:Task", "x.py:Task", "os.path:Task"])
def test_a_task_that_a_run_names_is_not_run_unasked(own: Run, spec: str) -> None:
    stranger = Run(own.path, {**own.config, "task": spec}, own.heroes, None, own.task_file)
    with pytest.raises(RunError, match="--trust_task"):
        task_of_run(stranger, None)


def model_with_code(folder: Path, place: str, model_type: str) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    written = {"model_type": model_type} if place == "config.json" else {}
    (folder / place).write_text(json.dumps({**written, "auto_map": {"AutoModelForCausalLM": "evil.Model"}}))
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    return folder


@pytest.mark.parametrize("place", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize(("model_type", "says"), [("evil", True), ("evil", False), ("qwen2", True)])
def test_code_of_a_runs_model_is_refused_whatever_the_run_says(
    own: Run, tmp_path: Path, place: str, model_type: str, says: bool
) -> None:
    model = model_with_code(tmp_path / "model", place, model_type)
    run = Run(own.path, {**own.config, "model_name_or_path": str(model), "trust_remote_code": says}, own.heroes)
    with pytest.raises(RunError, match=rf"{own.path} wants to run Python .*evil\.Model.*--trust_remote_code"):
        may_run_code(run)
    assert may_run_code(run, trust_remote_code=True) and not (model / "ran").exists()


@pytest.mark.parametrize("command", ["eval", "play", "export"])
def test_commands_refuse_a_strangers_model_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    model = model_with_code(tmp_path / "model", "config.json", "evil")
    run = make_run(tmp_path / "run", trust_remote_code=True, model_name_or_path=str(model))
    more = {
        "eval": ["--roster", "worksheet_test", "--out", str(tmp_path / "out")],
        "play": [],
        "export": ["--policy", "first", "--out", str(tmp_path / "out")],
    }
    capsys.readouterr()
    assert main([command, "--run", str(run.path), *more[command]]) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said and "--trust_remote_code" in said and not (model / "ran").exists()


def test_a_run_does_not_say_where_an_evaluation_connects_or_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(
        tmp_path / "run", engine="server", vllm_server_base_url="http://evil.example", vllm_server_host="evil.example",
        vllm_server_port=1, engine_adapter_dir="/evil", push_to_hub=True, hub_model_id="evil/evil", hub_token="x",
        report_to=["wandb"], output_dir="/evil", rollout_batch_size=3,
    )  # fmt: skip
    seen: list[EngineOptions] = []

    def stands_in(*args: object, engine: EngineOptions, **kwargs: object) -> None:
        seen.append(engine)
        raise RunError("enough")

    monkeypatch.setattr("llm_sra.evaluate", stands_in)
    words = ["eval", "--run", str(run.path), "--roster", "worksheet_test", "--out", str(tmp_path / "out")]
    assert main(words) == main([*words, "--engine", "server"]) == 2
    given = ["--server", "http://mine:1", "--engine_adapter_dir", "/mine"]
    assert main([*words, "--engine", "server", *given]) == 2
    plain, served, mine = seen
    assert (plain.kind, plain.batch_size) == ("transformers", 3)
    assert (served.kind, served.servers, served.adapter_dir) == ("server", ("http://127.0.0.1:8000",), None)
    assert (mine.servers, mine.adapter_dir) == (("http://mine:1",), Path("/mine"))


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_recorded_replies_that_are_no_file_are_refused_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "replies.jsonl"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(UnavailableError, match="it is a pipe or a device"):
        Recorded("r", path, field="reply")


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match=r"\.lock"):
        FolderLock(tmp_path / "run")
    assert (tmp_path / "mine").read_text() == "mine"


SCRIPT = """from pathlib import Path
Path(__file__).with_name("ran").touch()

class Stranger:
    def reply(self, messages, rng):
        return "pass"
"""


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """A roster that names a script, a perturbed one and one that ships."""
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "roster.yaml").write_text(
        "partners:\n"
        "  - {name: s, kind: scripted, policy: 'script.py:Stranger'}\n"
        "  - {name: p, kind: perturbed, how: drop, of: {kind: scripted, policy: 'antigravity:Stranger'}}\n"
        "  - {name: l, kind: scripted, policy: lazy}\n"
        "  - {name: m, kind: scripted, policy: 'tasks.worksheet.partners:Lazy'}\n"
    )
    return tmp_path / "roster.yaml"


def test_a_rosters_scripts_are_named_and_not_run_without_the_flag(scripts: Path) -> None:
    said = rf"{scripts} wants to run the scripts of its partners, .*/script\.py:Stranger, antigravity:Stranger: read"
    with pytest.raises(RosterError, match=said + " them, then add --trust_scripts if they may run"):
        read_playable(scripts, trust_remote_code=True)
    entries = read_playable(scripts, trust_scripts=True)
    assert [entry.name for entry in entries] == ["s", "p", "l", "m"]
    assert not (scripts.parent / "ran").exists()  # reading runs nothing even then
    with PolicyLoader(Toy()) as loader:
        loader.partner(entries[0])
    assert (scripts.parent / "ran").exists()


@pytest.mark.parametrize("shipped", sorted(shipped_rosters()))
def test_rosters_that_ship_need_no_flag(shipped: str) -> None:
    assert read_playable(shipped) == read_roster(shipped)


def test_nothing_is_played_or_written_before_a_roster_is_refused(
    own: Run, scripts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = scripts.parent / "out"
    assert main(["eval", "--run", str(own.path), "--roster", str(scripts), "--out", str(out)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"llm-sra: RosterError: {scripts} wants to run the scripts") and "--trust_scripts" in line
    assert not out.exists() and not (scripts.parent / "ran").exists()


@pytest.mark.parametrize("field", ["dev_roster", "partners"])
def test_a_trainings_roster_is_refused_before_a_model_is_loaded_unless_the_recipe_says_so(
    scripts: Path, field: str
) -> None:
    flags = {field: scripts, "model_name_or_path": "no/such-model", "num_generations": 2, "arm": "srpo"}
    evaluating = {"eval_strategy": "steps", "eval_steps": 1} if field == "dev_roster" else {}
    with pytest.raises(RosterError, match=r"script\.py:Stranger, antigravity:Stranger.*--trust_scripts"):
        train_tiny(scripts.parent / "run", **flags, **evaluating)
    with pytest.raises(ModelError, match="no/such-model"):
        train_tiny(scripts.parent / "run", **flags, **evaluating, trust_scripts=True)
    assert not (scripts.parent / "ran").exists()


def test_a_comparison_asks_before_it_trains_and_passes_the_flag_on(
    scripts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", "--config", "worksheet/srpo", "--roster", str(scripts), "--out", str(scripts.parent / "out")]
    assert main([*words, "--print"]) == 2
    assert "--trust_scripts" in capsys.readouterr().err
    assert main([*words, "--print", "--trust_scripts"]) == 0
    train, evaluation, _ = capsys.readouterr().out.splitlines()
    assert "--trust_scripts true" in train and evaluation.endswith("--trust_scripts")


@pytest.mark.parametrize("says", [False, True])
@pytest.mark.parametrize("allowed", [False, True])
def test_the_python_of_a_rosters_model_runs_where_roster_and_command_say_so(
    tmp_path: Path, says: bool, allowed: bool
) -> None:
    model = model_with_code(tmp_path / "model", "config.json", "evil")
    config = json.loads((model / "config.json").read_text())
    config["auto_map"]["AutoConfig"] = "evil.Config"
    (model / "config.json").write_text(json.dumps(config))
    wants = ", trust_remote_code: true" if says else ""
    (tmp_path / "roster.yaml").write_text(f"partners: [{{name: m, kind: model, policy: '{model}'{wants}}}]")
    if says and not allowed:
        with pytest.raises(RosterError, match=rf"models of its partners, {model}: .*--trust_remote_code"):
            read_playable(tmp_path / "roster.yaml", trust_scripts=True)
    else:
        [entry] = read_playable(tmp_path / "roster.yaml", trust_remote_code=allowed)
        with PolicyLoader(Toy(), trust_remote_code=allowed) as loader, pytest.raises(Exception):  # noqa: B017  no model
            loader.partner(entry)
    assert (model / "ran").exists() == (says and allowed)


def test_the_page_on_trust_names_each_flag_of_the_commands() -> None:
    page = (ROOT / "docs" / "evaluate.md").read_text()
    section = page.split("## Runs and rosters of others")[1].split("\n## ")[0]
    flags = argparse.ArgumentParser(add_help=False)
    trust_flags(flags, roster=True)
    assert all(f"`{action.option_strings[0]}`" in section for action in flags._actions)
    for command in ("eval", "play", "export", "oracle"):
        known = importlib.import_module(f"recipes.commands.{command}").parser()._option_string_actions
        assert {"--trust_task", "--trust_remote_code"} <= set(known)
        assert not any(action.default for flag, action in known.items() if flag.startswith("--trust_"))


BOMB = "a0: &a0 [x,x,x,x,x,x,x,x]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 8)}]\n" for i in range(1, 12))
HOSTILE = {
    "an alias bomb": BOMB + "partners: [{name: *a11, kind: scripted, policy: lazy}]",
    "a partner of itself": "partners: [&self {name: a, kind: perturbed, how: drop, of: *self}]",
    "deep lists": "partners: " + "[" * 100_000,
    "deep mappings": "partners: [{name: a, kind: perturbed, how: drop, of: " + "{of: " * 500,
    "a number of many digits": "partners: [{name: a, kind: live, seeds: " + "1:" * 100_000 + "1}]",
    "a large file": "partners: []\n" + "#" * 2_000_000,
    "a value of no kind": "partners: [{name: !!bool x, kind: live}]",
    "a list as a name": "partners: [{name: [a, b], kind: live}]",
    "merge keys": "a: &a {k: v}\n"
    + "b0: &b0 {<<: [*a, *a]}\n"
    + "".join(f"b{i}: &b{i} {{<<: [{','.join([f'*b{i - 1}'] * 8)}]}}\n" for i in range(1, 12)),
    "an empty pattern": "partners: [{name: a, kind: recorded, policy: x, field: y, rewrite: {'"
    + "(|)" * 60
    + "(?!)': ''}}]",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_roster_is_refused_within_two_seconds(tmp_path: Path, text: str) -> None:
    (tmp_path / "roster.yaml").write_text(text)
    start = time.perf_counter()
    with pytest.raises(RosterError) as refused:
        read_roster(tmp_path / "roster.yaml")
    assert time.perf_counter() - start < 2.0 and len(str(refused.value)) < 1000


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*$", "(.*a){30}b", "(" * 500])
def test_a_catastrophic_pattern_of_an_adapter_is_refused_within_two_seconds(pattern: str) -> None:
    from peft import LoraConfig

    start = time.perf_counter()
    with pytest.raises(AdapterError, match="target_modules"):
        without_patterns(LoraConfig(target_modules=pattern), ["a" * 40 + "!"])
    assert time.perf_counter() - start < 2.0


@pytest.mark.parametrize(
    "change",
    [
        {"r": 10**9}, {"r": "8"}, {"layer_replication": [[0, 2]] * 1000}, {"rank_pattern": {"(a+)+": 2}},
        {"megatron_config": {"a": 1}, "megatron_core": "antigravity"}, {"init_lora_weights": "pissa"},
        {"modules_to_save": ["(a+)+"]},
    ],
)  # fmt: skip
def test_an_absurd_adapter_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    folder = make_run(tmp_path / "run").adapters / "first"
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    said = {
        "init_lora_weights": r"has init_lora_weights 'pissa', which changes the base",
        "layer_replication": r"has layer_replication, which is not supported: it repeats layers",
        "megatron_config": r"has megatron_config, which is not supported: it has PEFT import a module",
    }.get(next(iter(change)), "can be read: ")
    with pytest.raises(AdapterError, match=said):
        read_adapter_config(folder)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;x\x07", "\\x1b]0;x\\x07"),
        ("a\u202eb", "a\\u202eb"),
        ("a\u200bb\u2066", "a\\u200bb\\u2066"),
        ("\u3164", "\\u3164"),
    ],
)
def test_names_are_shown_as_text(text: str, shown: str) -> None:
    assert printable(text) == shown
