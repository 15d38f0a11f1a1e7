"""The cells of a comparison, its commands, and the running of its trainings by a program that stands in for them."""

import itertools
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console
from support import ROOT, make_run

from llm_sra.runs import RunError
from llm_sra.runs.locks import FolderLock
from llm_sra.trainer.parse import ConfigError, parse
from llm_sra.trainer.speed import Speed
from recipes.cli import main
from recipes.comparing import training
from recipes.comparing.cells import Cell, ComparisonError, check_cells, fields_of, make_cells, state_of
from recipes.comparing.training import TrainingError, Trainings
from recipes.comparing.whole import Comparison, compare, remove
from recipes.terminal import run_command

# In the place of llm-sra: writes what a training leaves, notes when it began and ended, and fails for one arm.
FAKE = """
import sys, time
from pathlib import Path
flags = dict(zip(sys.argv[2::2], sys.argv[3::2]))
out = Path(flags["--output_dir"])
began = time.time()
time.sleep(0.3)
if flags.get("--arm") == "adversary":
    sys.exit("llm-sra: NumberError: step 3: not a number")
out.mkdir(parents=True, exist_ok=True)
(out / "config.yaml").write_text("{}")
(out / "adapters").mkdir(exist_ok=True)
(out / "times").write_text(f"{began} {time.time()}")
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "fake.py"
    program.write_text(FAKE)
    monkeypatch.setattr(training, "PROGRAM", (sys.executable, str(program)))
    monkeypatch.setattr(training, "PAUSE", 0.02)
    return program


def names(cells: list[Cell]) -> list[str]:
    return [cell.name for cell in cells]


# -- cells -----------------------------------------------------------------------------------------------------------


def test_arms_are_put_over_the_recipe_for_each_seed() -> None:
    cells = make_cells(["worksheet/srpo"], ["ippo", "srpo"], [1, 2], {"max_steps": "3"})
    assert names(cells) == ["ippo-seed1", "srpo-seed1", "ippo-seed2", "srpo-seed2"]
    assert cells[2] == Cell("ippo-seed2", "worksheet/srpo", {"arm": "ippo", "seed": 2, "max_steps": "3"}, "ippo")
    assert cells[0].command(Path("o")) == shlex.split(
        "train --config worksheet/srpo --output_dir o/ippo-seed1 --resume_from_checkpoint true --disable_tqdm true "
        "--arm ippo --seed 1 --max_steps 3"
    )


def test_recipes_are_named_by_as_many_of_their_last_parts_as_tell_them_apart() -> None:
    assert names(make_cells(["worksheet/ippo", "worksheet/srpo"])) == ["ippo", "srpo"]
    assert names(make_cells(["a/mine.yaml", "b/other.yaml"], seeds=[7])) == ["mine-seed7", "other-seed7"]
    several = make_cells(["gsm8k/qwen3-0.6b/ippo", "gsm8k/qwen2.5-0.5b-instruct/ippo"], seeds=[1])
    assert names(several) == ["qwen3-0.6b-ippo-seed1", "qwen2.5-0.5b-instruct-ippo-seed1"]
    both = make_cells(["kitchen/srpo", "tag/srpo"], ["ippo", "srpo"])
    assert names(both) == ["kitchen-srpo-ippo", "kitchen-srpo-srpo", "tag-srpo-ippo", "tag-srpo-srpo"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((["a", "a"],), "--config has a twice"),
        ((["a"], ["ippo", "ippo"]), "--arms has ippo twice"),
        ((["a"], [], [1, 2, 1]), "--seeds has 1 twice"),
        ((["a"], [], [], {"seed": "3"}), "use --seeds 3"),
        ((["a"], [], [], {"output_dir": "x"}), "--output_dir is set for each training"),
        ((["a/x.yaml", "a/x.yml"],), "cannot be told apart"),
    ],
)
def test_cells_that_would_be_the_same_or_a_field_that_is_set_here_are_refused(given: tuple, message: str) -> None:
    with pytest.raises(ComparisonError, match=message):
        make_cells(*given)


def test_recipe_and_flags_are_checked_before_anything_is_trained(tmp_path: Path) -> None:
    assert check_cells(make_cells(["worksheet/srpo"], ["ippo"], [1]), tmp_path) == {"ippo-seed1": 80}
    with pytest.raises(ConfigError, match="arm must be one of ippo, srpo"):
        check_cells(make_cells(["worksheet/srpo"], ["ipo"]), tmp_path)
    with pytest.raises(ConfigError, match="did you mean 'tau'"):
        check_cells(make_cells(["worksheet/srpo"], flags={"tua": "3"}), tmp_path)


def test_a_comparison_reads_the_recipe_of_each_cell_once(
    tmp_path: Path, fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def counted(recipe: str, flags: list[str]) -> object:
        asked.append(flags[flags.index("--seed") + 1])
        return parse(recipe, flags)

    monkeypatch.setattr("llm_sra.trainer.parse.parse", counted)
    compare(Comparison(make_cells(["worksheet/srpo"], seeds=[1, 2]), tmp_path / "out", None), Console(quiet=True))
    assert asked == ["1", "2"] and state_of(tmp_path / "out" / "srpo-seed2").finished


def test_a_comparison_that_is_interrupted_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(self: Trainings) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainings, "run", interrupted)
    asked = Comparison(make_cells(["worksheet/srpo"]), tmp_path / "out", None)
    assert run_command(compare, asked, Console(quiet=True)) == 130
    assert capsys.readouterr().err == "llm-sra: interrupted; the same command goes on from here\n"


@pytest.mark.parametrize(
    ("function", "command"),
    [
        ("llm_sra.evaluate", ["eval", "--roster", "worksheet_test"]),
        ("recipes.comparing.responding.best_responses", ["best-response", "--roster", "worksheet_test"]),
        ("recipes.comparing.generating.generate", ["strangers", "--task", "worksheet"]),
    ],
)
def test_other_commands_that_keep_what_is_done_say_so_too(
    function: str,
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*what: object, **how: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(function, interrupted)
    run = ["--run", str(make_run(tmp_path / "run").path)] if command[0] == "eval" else []
    assert main([*command, *run, "--out", str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err.endswith("llm-sra: interrupted; the same command goes on from here\n")


# -- what is there ---------------------------------------------------------------------------------------------------


def test_a_training_with_other_settings_does_not_pass_for_the_one_that_is_asked_for(tmp_path: Path) -> None:
    run = make_run(tmp_path / "ippo-seed1", seed=42)
    base = {"model_name_or_path": run.config["model_name_or_path"], "lora_r": run.config["lora_r"]}
    base |= {"lora_alpha": run.config["lora_alpha"], "arm": "ippo"}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({**base, "task": "worksheet"}))
    check_cells([Cell("ippo-seed1", str(recipe))], tmp_path)
    assert state_of(tmp_path / "ippo-seed1").finished
    with pytest.raises(ComparisonError, match=r"other settings \(learning_rate 1e-06, now 0\.1; tau 10, now 3\)"):
        check_cells([Cell("ippo-seed1", str(recipe), {"tau": 3.0, "learning_rate": 0.1})], tmp_path)
    with pytest.raises(ComparisonError, match="is a run: name another folder"):
        check_cells([Cell("new", str(recipe))], tmp_path / "ippo-seed1")


def test_a_folder_with_other_files_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "srpo").mkdir()
    (tmp_path / "srpo" / "thesis.txt").write_text("mine")
    with pytest.raises(ComparisonError, match="holds other files"):
        check_cells(make_cells(["worksheet/srpo"]), tmp_path)


def test_how_far_a_training_is(tmp_path: Path) -> None:
    assert state_of(tmp_path).words == "to train"
    (tmp_path / "config.yaml").write_text("{}")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "solve_rate": 0}\n{"step": 2, "solve_rate": 0}\n')
    assert state_of(tmp_path).words == "goes on (step 2 was reached)"
    (tmp_path / "adapters").mkdir()
    assert state_of(tmp_path).words == "finished, kept"
    (tmp_path / "metrics.jsonl").write_text('{"stop": 1}\n')
    with pytest.raises(RunError, match="step is None"):
        state_of(tmp_path)


# -- running ---------------------------------------------------------------------------------------------------------


def test_so_many_at_a_time_are_trained_and_finished_ones_are_kept(tmp_path: Path, fake: Path) -> None:
    cells = make_cells(["worksheet/srpo"], ["ippo"], range(1, 6))
    kept = tmp_path / "out" / "ippo-seed3"
    (kept / "adapters").mkdir(parents=True)
    (kept / "config.yaml").write_text("{}")
    shown = Console(record=True, file=(tmp_path / "shown").open("w"), width=100)
    Trainings(cells, tmp_path / "out", {}, 2, console=shown).run()
    assert not (kept / "times").exists()
    spans = [tuple(map(float, path.read_text().split())) for path in sorted((tmp_path / "out").glob("*/times"))]
    assert len(spans) == 4
    together = max(sum(begin <= at < end for begin, end in spans) for at, _ in spans)
    assert together == 2
    text = shown.export_text()
    assert text.count("trained: ") == 4 and "; 3 of 5 left" in text and "kept" not in text


def test_one_that_fails_leaves_the_others_and_its_error_is_told(tmp_path: Path, fake: Path) -> None:
    cells = make_cells(["worksheet/srpo"], ["adversary", "ippo"], [1, 2])
    with pytest.raises(
        TrainingError, match=r"2 of 4 trainings failed, the others are kept\. adversary-seed1: NumberErr"
    ):
        Trainings(cells, tmp_path / "out", {}, console=Console(quiet=True)).run()
    assert {path.parent.name for path in (tmp_path / "out").glob("*/adapters")} == {"ippo-seed1", "ippo-seed2"}
    assert "step 3: not a number" in (tmp_path / "out" / "adversary-seed2.log").read_text()


def test_the_time_left_is_that_of_trainings_of_the_same_setting(tmp_path: Path) -> None:
    cells = make_cells(["worksheet/srpo"], ["ippo", "srpo"], [1, 2, 3])

    def speed_of(name: str, seconds: float) -> None:
        (tmp_path / name).mkdir()
        known = Speed(10, 10, seconds, 10 * seconds / 3600, None, 1.0, None, 1, "", True)
        (tmp_path / name / "speed.json").write_text(json.dumps(known.__dict__))

    steps = dict.fromkeys(names(cells), 10)
    assert Trainings(cells, tmp_path, steps).seconds_left() is None
    speed_of("ippo-seed1", 2.0)
    assert Trainings(cells, tmp_path, steps).seconds_left() == pytest.approx(6 * 20)
    speed_of("srpo-seed1", 5.0)
    for name in ("ippo-seed1", "srpo-seed1", "srpo-seed2"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "config.yaml").write_text("{}")
    for name in ("ippo-seed1", "srpo-seed1"):
        (tmp_path / name / "adapters").mkdir()
    (tmp_path / "srpo-seed2" / "metrics.jsonl").write_text('{"step": 4}\n')
    # IPPO's two take 20 s each, SRPO's second one 6 of its 10 steps of 5 s, its third 50 s.
    assert Trainings(cells, tmp_path, steps).seconds_left() == pytest.approx(20 + 20 + 30 + 50)
    assert Trainings(cells, tmp_path, steps, jobs=2).seconds_left() == pytest.approx(60)
    assert Trainings(cells, tmp_path, steps, jobs=6).seconds_left() == pytest.approx(50)  # the longest


def test_each_training_has_a_gpu_and_its_share_of_the_processor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    trainings = Trainings([], tmp_path, {}, jobs=3)
    environments = [trainings._environment(slot) for slot in range(3)]
    assert [e["CUDA_VISIBLE_DEVICES"] for e in environments] == ["4", "6", "4"]
    assert {e["OMP_NUM_THREADS"] for e in environments} == {"4"}
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert trainings._environment(0)["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert Trainings([], tmp_path, {})._environment(0)["CUDA_VISIBLE_DEVICES"] == ""


def test_a_signal_ends_the_trainings_too(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from recipes.comparing import training
from recipes.comparing.cells import make_cells
training.PROGRAM = ({sys.executable!r}, "-c", "import os, sys, time; print(os.getpid(), flush=True); time.sleep(600)")
training.Trainings(make_cells(["a"], ["ippo"], [1, 2]), Path({str(tmp_path)!r}), {{}}, 2).run()
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", program], env=env, stderr=subprocess.PIPE, text=True)
    logs = [tmp_path / f"ippo-seed{seed}.log" for seed in (1, 2)]
    deadline = time.monotonic() + 120
    while not all(log.is_file() and log.read_text() for log in logs) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "the same command goes on from here" in errors
    for log in logs:
        with pytest.raises(ProcessLookupError):
            os.kill(int(log.read_text().split()[0]), 0)


# -- the commands ----------------------------------------------------------------------------------------------------

ASKED = ["compare", "--config", "worksheet/srpo", "--arms", "ippo", "srpo", "--seeds", "1", "2", "--tau", "3"]


def test_print_writes_the_single_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main([*ASKED, "--roster", "worksheet_dev", "--out", str(out), "--print"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["train"] * 4 + ["eval", "report"]
    assert lines[0] == (
        f"llm-sra train --config worksheet/srpo --output_dir {out}/ippo-seed1 --resume_from_checkpoint true "
        "--disable_tqdm true --arm ippo --seed 1 --tau 3"
    )
    runs = " ".join(f"{out}/{arm}-seed{seed}" for seed in (1, 2) for arm in ("ippo", "srpo"))
    assert lines[4].startswith(f"llm-sra eval --run {runs} --out {out}/eval --roster worksheet_dev --problems 64 ")
    assert lines[4].endswith(" --cross_play")
    assert lines[5] == f"llm-sra report {runs} --eval {out}/eval --out {out}/report --roster worksheet_dev"
    assert not out.exists()


def test_the_slurm_array_runs_one_command_a_task_and_last_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*ASKED, "--roster", "worksheet_dev", "--out", str(tmp_path / "my out"), "--print"]
    assert main(arguments) == 0
    commands = capsys.readouterr().out.splitlines()
    assert main([*arguments, "slurm"]) == 0
    script = tmp_path / "array.sh"
    script.write_text(capsys.readouterr().out)
    assert "#SBATCH --array=0-3\n" in script.read_text()
    shim = tmp_path / "bin" / "llm-sra"
    shim.parent.mkdir()
    shim.write_text(f"#!{sys.executable}\nimport shlex, sys\nprint('llm-sra', shlex.join(sys.argv[1:]))\n")
    shim.chmod(0o755)

    def task(number: int) -> "subprocess.CompletedProcess[str]":
        env = {**os.environ, "PATH": f"{shim.parent}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": str(number)}
        return subprocess.run(["bash", str(script)], env=env, capture_output=True, text=True)

    assert [task(number).stdout.splitlines() for number in range(4)] == [[command] for command in commands[:4]]
    assert task(4).stdout.splitlines() == commands[4:]
    assert task(5).returncode == 2 and "expected 0 to 4" in task(5).stderr


BAD = [
    (["--arms", "ipo", "srpo"], "arm must be one of ippo, srpo"),
    (["--arms", "ippo", "ippo"], "--arms has ippo twice"),
    (["--arms", "ippo", "--seeds", "1", "1"], "--seeds has 1 twice"),
    (["--arms", "ippo", "srpo", "--roster", "worksheet_tset"], "no roster worksheet_tset"),
    (["--arms", "ippo", "srpo", "--roster", "{tmp}/broken.yaml"], "RosterError"),
    (["--arms", "ippo", "srpo", "--tua", "3"], "did you mean 'tau'"),
    (["--arms", "ippo", "srpo", "--tau", "3", "--tau", "4"], "--tau is given twice"),
    (["--arms", "ippo", "srpo", "--task_args", '{{"turn": 8}}'], "no option 'turn'; did you mean 'turns'"),
    (["--arms", "ippo", "srpo", "--jobs", "0"], "--jobs and --problems must be 1 or more"),
    (["--arms", "ippo", "srpo", "--arm", "ippo"], "use --arms ippo"),
    (["--arms", "ippo"], "nobody to play with"),
    (["--arms", "ippo", "srpo", "--no-cross_play"], "nobody to play with"),
    (["--config", "tag/srpo", "--roster", "tag_dev"], "worksheet-srpo and tag-srpo cannot play with each other"),
    (["--config", "worksheet/spro"], "no recipe worksheet/spro"),
]


def test_again_removes_what_a_comparison_left_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "srpo")
    (tmp_path / "srpo.log").write_text("")
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "mine.py").write_text("mine")
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.html").write_text("")
    words = ["compare", "--config", "worksheet/srpo", "--roster", "worksheet_dev", "--out", str(tmp_path), "--again"]
    assert main([*words, "--tua", "3"]) == 2  # nothing is removed for a command that cannot be run
    assert run.path.is_dir() and (tmp_path / "report").is_dir()
    comparison = Comparison(make_cells(["worksheet/srpo"]), tmp_path, None)
    lock = FolderLock(run.path)
    with pytest.raises(ComparisonError, match="Nothing was removed"):
        remove(comparison)
    assert (run.path / "adapters").is_dir()
    lock.release()
    remove(comparison)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["eval", "mine.py"]


@pytest.mark.parametrize("printing", [(), ("--print",)])
@pytest.mark.parametrize(("flags", "message"), BAD, ids=lambda value: " ".join(value) if type(value) is list else "")
def test_what_the_user_can_mend_is_one_line_and_nothing_is_written(
    flags: list[str], message: str, printing: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.yaml").write_text("partners: 3\n")
    out = tmp_path / "out"
    asked = ["compare", "--config", "worksheet/srpo", "--out", str(out), *printing]
    assert main([*asked, *(flag.format(tmp=tmp_path) for flag in flags)]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not out.exists()


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("mine")
    assert main([*ASKED, "--roster", "worksheet_dev", "--out", str(tmp_path / "out")]) == 2
    assert "is a file: name a folder with --out" in capsys.readouterr().err


def test_the_orders_of_flags_do_not_matter() -> None:
    pairs = itertools.permutations([["--arms", "ippo", "srpo"], ["--seeds", "1"], ["--tau=3"]])
    from recipes.commands.compare import parser

    for pair in pairs:
        args, further = parser().parse_known_args(["--config", "a", "--out", "o", *itertools.chain(*pair)])
        assert (args.config, args.arms, args.seeds, fields_of(further)) == (["a"], ["ippo", "srpo"], [1], {"tau": "3"})
