"""Uploads to the hub, held against a server of this machine that speaks its endpoints."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from fake_hub import TOKEN, FakeHub
from support import ROOT, make_run

from llm_sra.exporting.hub import HubError, check_repository
from llm_sra.runs import Run

# The module's file alone: the package would load torch, which an upload does not need.
PUSH = f"""
import runpy, sys
from pathlib import Path
print(runpy.run_path({str(ROOT / "llm_sra" / "exporting" / "hub.py")!r})["push"](Path(sys.argv[1]), *sys.argv[2:]))
"""
COMMAND = "import sys\nfrom recipes.cli import main\nsys.exit(main())"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    server = FakeHub(public=("me/known",))
    yield server
    server.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Something like an export."""
    made = tmp_path / "exported"
    made.mkdir()
    (made / "README.md").write_text("---\nlibrary_name: peft\n---\n\n# card\n")
    (made / "adapter_model.safetensors").write_bytes(bytes(range(256)) * 4)
    return made


def asked_with(
    url: str, tmp_path: Path, program: str, arguments: Sequence[object], token: str | None = TOKEN, offline: str = "0"
) -> subprocess.CompletedProcess[str]:
    """Run a program whose hub is at `url`, with everything of huggingface_hub logged."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    environment |= {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": offline}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_DEBUG": "1", "HF_HUB_VERBOSITY": "debug", "PYTHONPATH": str(ROOT)}
    environment |= {"HF_TOKEN": token} if token else {}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert TOKEN not in done.stdout + done.stderr
    return done


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode
    return done.stderr.strip().splitlines()[-1]


def test_an_export_is_uploaded_as_it_lies_on_disk(hub: FakeHub, tmp_path: Path) -> None:
    run: Run = make_run(tmp_path / "study" / "run")
    out = tmp_path / "out"
    flags = ["export", "--run", run.path, "--policy", "first", "--out", out, "--push_to_hub", "me/first", "--private"]
    done = asked_with(hub.url, tmp_path, COMMAND, flags)
    assert done.returncode == 0, done.stderr
    assert f"exported: {out}\npushed:   me/first\n" in done.stdout
    assert hub.files["me/first"] == {path.name: path.read_bytes() for path in out.iterdir()}
    assert {"README.md", "adapter_config.json", "adapter_model.safetensors"} <= set(hub.files["me/first"])
    assert hub.private == {"me/known": False, "me/first": True}
    assert "PUT blob" in hub.asked and "POST /api/validate-yaml" in hub.asked
    card = (out / "README.md").read_text()
    assert "--lora-modules first=me/first \\\n" in card and "--generation-config me/first\n" in card


def test_a_public_repository_that_is_there_takes_a_public_upload_and_no_private_one(
    hub: FakeHub, folder: Path, tmp_path: Path
) -> None:
    done = asked_with(hub.url, tmp_path, PUSH, [folder, "me/known", "private"])
    assert "not pushed to me/known: it exists already and is public, and --private was asked for" in error_of(done)
    assert hub.files == {}
    done = asked_with(hub.url, tmp_path, PUSH, [folder, "me/known"])
    assert done.stdout.strip() == f"{hub.url}/me/known", done.stderr
    assert hub.files["me/known"]["adapter_model.safetensors"] == bytes(range(256)) * 4


@pytest.mark.parametrize(
    ("repository", "token", "offline", "message"),
    [
        ("me/new", None, "0", "no token. Set HF_TOKEN or run `hf auth login`"),
        ("me/new", "another", "0", "'401 Unauthorized'"),
        ("others/new", TOKEN, "0", "403 Forbidden: You don't have the rights"),
        ("me/new", TOKEN, "1", "offline mode"),
    ],
)
def test_what_the_hub_refuses_is_said_and_the_export_stays(
    hub: FakeHub, folder: Path, tmp_path: Path, repository: str, token: str | None, offline: str, message: str
) -> None:
    said = error_of(asked_with(hub.url, tmp_path, PUSH, [folder, repository], token, offline))
    assert re.search(f"HubError: not pushed to {repository}: .*{re.escape(message)}", said)
    assert said.endswith(f"the export is whole in {folder}; later: hf upload {repository} {folder}")
    assert hub.files == {} and (folder / "README.md").is_file()


def test_without_a_network_the_export_stays(folder: Path, tmp_path: Path) -> None:
    gone = FakeHub()
    gone.stop()
    said = error_of(asked_with(gone.url, tmp_path, PUSH, [folder, "me/new"]))
    assert "not pushed to me/new: " in said and "Connection refused" in said and f"whole in {folder}" in said


def test_a_header_that_the_hub_refuses_is_named(hub: FakeHub, folder: Path, tmp_path: Path) -> None:
    (folder / "README.md").write_text("---\nbase_model: ./here\n---\n\n# card\n")
    said = error_of(asked_with(hub.url, tmp_path, PUSH, [folder, "me/new"]))
    assert '"base_model" with value "./here" is not valid' in said and hub.files == {}


@pytest.mark.parametrize("name", ["a b", "me/you/they", "", "me/-x-"])
def test_a_name_that_is_none_is_refused_before_anything_is_exported(name: str) -> None:
    with pytest.raises(HubError, match="--push_to_hub wants NAMESPACE/NAME"):
        check_repository(name)
