"""The wheel holds all that a clone can use, and its commands work from a folder of the user's own."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support import ROOT

PACKAGES = ("llm_sra", "tasks", "recipes", "eval", "accelerate_configs")
QUICK = [
    "--max_steps",
    "1",
    "--problems_per_step",
    "2",
    "--num_generations",
    "2",
    "--use_cpu",
    "true",
    "--bf16",
    "false",
]
SCRIPT = """
import llm_sra

records = llm_sra.evaluate(["run"], "worksheet_test", "report", problems=1, decodings=["greedy"])
print(sorted({record.partner for record in records}))
"""


def files_of(folder: Path) -> set[str]:
    """What ships of a package: every file but Python's caches."""
    found = (path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(ROOT)) for path in found}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: setuptools would take up what an earlier build left in `build/`."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", out]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, copy], check=True)
    [made] = out.glob("*.whl")
    return made


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == set.union(*(files_of(Path(name)) for name in PACKAGES))
    for name in (
        "llm_sra/py.typed",
        "accelerate_configs/cpu.yaml",
        "recipes/worksheet/srpo.yaml",
        "recipes/gsm8k/qwen2.5-0.5b-instruct/srpo.yaml",
        "eval/rosters/worksheet_test.yaml",
        "eval/report/page.html.jinja",
        "tasks/worksheet/models/pupil/model.safetensors",
    ):
        assert name in held


Run = Callable[..., str]


@pytest.fixture(scope="module")
def run(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a program of an environment that has the wheel, from an empty folder; gives what it prints.

    The environment sees the packages of this one, but not this checkout: an editable installation is found by a .pth
    file, which Python reads in its own folder alone.
    """
    folder, work = tmp_path_factory.mktemp("venv"), tmp_path_factory.mktemp("work")
    venv.create(folder, with_pip=False)
    site = next(folder.glob("lib/python3.*/site-packages"))
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = folder / "bin" / "python"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "ACCELERATE_"))}
    environment |= {"PATH": f"{folder / 'bin'}{os.pathsep}{environment['PATH']}", "HF_HUB_OFFLINE": "1"}

    def call(*command: str | Path) -> str:
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    call(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--ignore-installed", wheel)
    assert Path(call(python, "-c", "import llm_sra; print(llm_sra.__file__)").strip()).is_relative_to(site)
    return call


@pytest.mark.slow
def test_the_commands_and_functions_work_from_a_wheel(run: Run) -> None:
    listed = run("llm-sra", "list")
    for name in ("worksheet/srpo", "worksheet_test", "worksheet/pupil", "multi_gpu"):
        assert f"\n  {name}\n" in listed
    trained = run("llm-sra", "train", "--config", "worksheet/srpo", *QUICK, "--output_dir", "run")
    assert "--roster worksheet_test" in trained
    assert "'diligent'" in run("python", "-c", SCRIPT)
    config = run("llm-sra", "list", "accelerate_configs", "--path", "cpu").strip()
    assert (Path(config).parent.name, Path(config).is_file()) == ("accelerate_configs", True)
    launch = ["python", "-m", "accelerate.commands.launch", "--config_file", config, "-m", "recipes.train"]
    launched = run(*launch, "--config", "worksheet/srpo", *QUICK, "--output_dir", "launched")
    assert "trained:" in launched
