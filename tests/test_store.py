"""The store of episodes: what is kept, what a key depends on, and what kills, full disks and other users do to it."""

import errno
import json
import logging
import math
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest
from support import make_bank, qwen2_folder, scramble

from llm_sra.episodes import EpisodeRecord, TurnRecord
from llm_sra.evaluation.store import Store, StoreError, episode_key
from llm_sra.partners.identity import describe, digest, source_digest
from llm_sra.partners.loader import PolicyLoader
from llm_sra.partners.rosters import Entry
from llm_sra.policies import ChatClient, Endpoint, EnginePolicy, Perturbed, Policy, Recorded, Scripted
from llm_sra.task import Problem, Reward, Sampling
from tasks.worksheet import Worksheet
from tasks.worksheet.partners import Late, Lazy

PLAYED = EpisodeRecord(
    problem="1+2+3",
    policies={"first": "study/one:first", "second": "lazy"},
    solved=False,
    effort={"first": 2, "second": 0.0},
    metrics={"wrong": 0.1},
    turns=(TurnRecord("first", 0, "1+2=3\u2028é", "stop", 5, -0.25), TurnRecord("second", 1, "pass")),
    rewards={"first": (Reward(cost=0.1), Reward(team=1.0)), "second": (Reward(), Reward(team=1.0))},
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store with two episodes."""
    store = Store(tmp_path / "store", "worksheet")
    store.append({"aa": PLAYED, "bb": replace(PLAYED, solved=True)})
    store.close()
    return tmp_path / "store"


def read(folder: Path, *keys: str) -> dict[str, EpisodeRecord]:
    store = Store(folder, "worksheet")
    try:
        return store.read(keys)
    finally:
        store.close()


def test_what_is_read_is_exactly_what_was_appended(folder: Path) -> None:
    assert read(folder, "aa", "bb", "cc") == {"aa": PLAYED, "bb": replace(PLAYED, solved=True)}
    assert read(folder, "bb") == {"bb": replace(PLAYED, solved=True)}


def test_a_line_that_a_kill_cut_off_is_noted_skipped_and_never_joined(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder / "process-0.jsonl"
    torn = path.read_bytes()[:-20]
    path.write_bytes(torn)
    store = Store(folder, "worksheet")
    with caplog.at_level(logging.WARNING):
        assert set(store.read(["aa", "bb"])) == {"aa"}
    assert "1 unreadable (line 2)" in caplog.text
    store.append({"bb": PLAYED})
    store.append({"cc": PLAYED})
    store.close()
    assert path.read_bytes().startswith(torn + b"\n")  # appended to, not rewritten
    assert read(folder, "aa", "bb", "cc") == {"aa": PLAYED, "bb": PLAYED, "cc": PLAYED}


def test_of_3000_single_bit_flips_none_is_read_as_a_different_episode(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    path = folder / "process-0.jsonl"
    kept = {"aa": PLAYED, "bb": replace(PLAYED, solved=True)}
    whole, rng, store = path.read_bytes(), random.Random(0), Store(folder, "worksheet", process=1)
    noticed = 0
    for _ in range(3000):
        at, bit = rng.randrange(len(whole)), rng.randrange(8)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
        found = store.read(["aa", "bb"])
        assert found.items() <= kept.items(), f"bit {bit} of byte {at}"
        noticed += found != kept
    store.close()
    assert noticed > 2900  # the others are in the checksum's own name


@pytest.mark.parametrize("where", ["turns", "solved", "metrics", "rewards", "key", "crc32"])
def test_a_line_that_changed_on_the_disk_is_counted_and_the_others_are_kept(
    folder: Path, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder / "process-0.jsonl"
    first, second = path.read_bytes().splitlines(keepends=True)
    changed = {
        "turns": (b"1+2=3", b"1+2=2"),
        "solved": (b'"solved": false', b'"solved": true'),
        "metrics": (b'"wrong": 0.1', b'"wrong": 0.3'),
        "rewards": (b"[1.0, 0.0, 0.0]", b"[1.0, 8.0, 0.0]"),
        "key": (b'"key": "aa"', b'"key": "ac"'),
        "crc32": (b'"crc32": "', b'"crc32": "0'),
    }[where]
    assert changed[0] in first
    path.write_bytes(first.replace(*changed) + second)
    assert read(folder, "aa", "bb", "ac") == {"bb": replace(PLAYED, solved=True)}
    assert "1 unreadable (line 1): cut off by a kill, or changed on the disk" in caplog.text


@pytest.mark.parametrize(
    ("episode", "place"),
    [
        (replace(PLAYED, metrics={"wrong": math.nan}), "metrics.wrong is nan"),
        (replace(PLAYED, effort={"first": math.inf, "second": 0.0}), "effort.first is inf"),
        (replace(PLAYED, rewards={**PLAYED.rewards, "first": (Reward(own=-math.inf),)}), "rewards.first.0.1 is -inf"),
        (replace(PLAYED, turns=(replace(PLAYED.turns[0], mean_logprob=math.nan),)), "turns.0.mean_logprob is nan"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_number_that_json_does_not_have_is_refused_by_its_name_and_nothing_is_written(
    folder: Path, episode: EpisodeRecord, place: str
) -> None:
    before, store = (folder / "process-0.jsonl").read_bytes(), Store(folder, "worksheet")
    with pytest.raises(ValueError, match=f"{place}: expected a finite number"):
        store.append({"cc": PLAYED, "dd": episode})
    store.close()
    assert (folder / "process-0.jsonl").read_bytes() == before


@pytest.mark.parametrize("line", ["[]", '"text"', "{}", '{"key": "zz"}', '{"key": 3}', "{" * 9999, "\x00\x00", "null"])
def test_lines_that_are_no_episodes_are_noted_and_cost_no_other(
    folder: Path, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder / "process-0.jsonl"
    path.write_bytes(line.encode() + b"\n" + path.read_bytes())
    assert set(read(folder, "aa", "bb", "zz")) == {"aa", "bb"}
    if line != '{"key": 3}':  # of no key that is wanted: it is passed over
        assert "unreadable (line 1)" in caplog.text


def test_a_full_disk_loses_no_whole_line_and_says_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, write = Store(folder, "worksheet"), os.write

    def full(file: int, content: bytes) -> int:
        if len(content) < 100:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, content[:-50])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(OSError, match=r"No space left.*every whole line is kept.*process-0") as error:
            store.append({"cc": PLAYED})
    assert error.value.errno == errno.ENOSPC
    store.append({"dd": PLAYED})
    store.close()
    assert set(read(folder, "aa", "bb", "cc", "dd")) == {"aa", "bb", "dd"}


def test_a_store_of_an_earlier_version_opens(tmp_path: Path) -> None:
    (tmp_path / "about.json").write_text('{"format": 1, "task": "worksheet"}\n')
    (tmp_path / "process-0.jsonl").write_text(
        '{"key": "aa", "problem": "1+2+3", "players": {"first": "study/one:first", "second": "lazy"}, "solved": false, '
        '"effort": {"first": 2, "second": 0.0}, "metrics": {"wrong": 0.1}, "turns": [["first", 0, "1+2=3\\u2028é", 5, '
        '-0.25, "stop"], ["second", 1, "pass", 0, null, "stop"]], "rewards": {"first": [[0.0, 0.0, 0.1], '
        '[1.0, 0.0, 0.0]], "second": [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]}}\n',
        encoding="utf-8",
    )
    assert read(tmp_path, "aa") == {"aa": PLAYED}


def test_a_folder_of_another_task_is_refused(folder: Path) -> None:
    with pytest.raises(StoreError, match=r'"task": "worksheet".*"task": "gsm8k".*choose another'):
        Store(folder, "gsm8k")
    (folder / "about.json").write_text("{")
    with pytest.raises(StoreError, match="is not JSON"):
        Store(folder, "worksheet")


def test_two_evaluations_at_a_time_are_refused_and_two_processes_of_one_are_not(folder: Path) -> None:
    one, two = Store(folder, "worksheet"), Store(folder, "worksheet", process=1)
    with pytest.raises(StoreError, match="another evaluation writes"):
        Store(folder, "worksheet")
    two.append({"cc": PLAYED})
    assert set(one.read(["aa", "cc"])) == {"aa", "cc"}
    one.close()
    two.close()
    Store(folder, "worksheet").close()


# -- keys ------------------------------------------------------------------------------------------------------------


def test_a_key_depends_on_everything_that_is_in_it() -> None:
    setting, seats, problem = {"seed": 0, "split": "test"}, {"first": "aa", "second": "bb"}, Problem("p", {"a": [1]})
    key = episode_key(setting, "m", seats, problem)
    assert key == episode_key(dict(reversed(setting.items())), "m", dict(seats), Problem("p", {"a": (1,)}))
    others = [
        episode_key({**setting, "seed": 1}, "m", seats, problem),
        episode_key(setting, "n", seats, problem),
        episode_key(setting, "m", {"first": "bb", "second": "aa"}, problem),
        episode_key(setting, "m", seats, Problem("q", problem.data)),
        episode_key(setting, "m", seats, Problem("p", {"a": [2]})),
    ]
    assert len({key, *others}) == 6


def nothing(policy: EnginePolicy) -> dict[str, str]:
    return {"adapter": str(policy.adapter)}


def client(url: str = "http://127.0.0.1:9/v1", **options: float) -> ChatClient:
    return ChatClient(url, **options)  # type: ignore[arg-type]


def test_policies_are_told_apart_by_what_they_would_say_and_not_by_their_names(tmp_path: Path) -> None:
    for name, reply in (("a", "1"), ("b", "2"), ("c", "1")):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"question": "q", "reply": reply}))
    hot, lazy = Sampling(2.0), Scripted("x", Lazy())
    unlike: list[Policy] = [
        EnginePolicy("x", adapter="a"),
        EnginePolicy("x", adapter="b"),
        EnginePolicy("x", adapter="a", sampling=hot),
        EnginePolicy("x", adapter="a", fixed_seed=1),
        lazy,
        Scripted("x", Late()),
        Scripted("x", Late(4)),
        Recorded("x", tmp_path / "a.jsonl", field="reply"),
        Recorded("x", tmp_path / "b.jsonl", field="reply"),
        Perturbed("x", lazy, "drop", 0.5),
        Perturbed("x", lazy, "drop", 0.6),
        Perturbed("x", Scripted("x", Late()), "drop", 0.5),
        Endpoint("x", "m", client()),
        Endpoint("x", "n", client()),
        Endpoint("x", "m", client("http://127.0.0.1:8/v1")),
        Endpoint("x", "m", client(), sampling=hot),
    ]
    found = [digest(describe(policy, nothing)) for policy in unlike]
    assert len(set(found)) == len(unlike)
    alike: list[Policy] = [
        EnginePolicy("y", adapter="a"),
        Scripted("y", Lazy()),
        Recorded("y", tmp_path / "c.jsonl", field="reply"),
        Endpoint("y", "m", client(timeout=3.0, retries=0)),
    ]
    assert [digest(describe(policy, nothing)) for policy in alike] == [found[0], found[4], found[7], found[12]]


def test_policies_have_the_identities_under_which_earlier_versions_kept_their_episodes() -> None:
    greedy = {"adapter": "a", "sampling": [0.0, 1.0, 0], "luck": 3}
    policy = EnginePolicy("x", adapter="a", sampling=Sampling(0.0), fixed_seed=3)
    assert digest(describe(policy, nothing)) == digest(greedy) == "d62cc58f6cd60978"  # pragma: allowlist secret
    perturbed = {"of": greedy, "how": "drop", "probability": 0.5, "seed": 0, "temperature": None, "text": None}
    assert digest(describe(Perturbed("x", policy, "drop", 0.5), nothing)) == digest(perturbed)
    hosted = {"url": "http://127.0.0.1:9/v1", "model": "m", "max_tokens": 6, "stop": ["\n"], "warmth": 0.5}
    endpoint = Endpoint("x", "m", client(), max_tokens=6, stop=("\n",), temperature=0.5)
    assert digest(describe(endpoint, nothing)) == digest({**hosted, "sampling": [1.0, 1.0, 0]})


def test_a_users_script_is_another_once_its_file_is(tmp_path: Path) -> None:
    def identity(text: str, folder: str = "a") -> str:
        path = tmp_path / folder / "mine.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"class Shout:\n    def reply(self, messages, rng):\n        return {text!r}\n")
        loader = PolicyLoader(Worksheet())
        return loader.identity(loader.partner(Entry("x", "scripted", f"{path}:Shout"))["first"])

    assert identity("NO") == identity("NO", "b") != identity("YES")


def test_a_script_is_another_once_a_module_of_the_package_around_it_is(tmp_path: Path) -> None:
    def identity() -> str:
        loader = PolicyLoader(Worksheet())
        return loader.identity(loader.partner(Entry("x", "scripted", f"{tmp_path / 'one/mine.py'}:Shout"))["first"])

    (tmp_path / "one").mkdir()
    for name in ("__init__.py", "one/__init__.py", "shared.py"):
        (tmp_path / name).write_text("")
    (tmp_path / "one/mine.py").write_text("class Shout:\n    def reply(self, messages, rng):\n        return 'NO'\n")
    before = identity()
    (tmp_path / "shared.py").write_text("WORD = 'NO'\n")
    assert identity() != before


def test_a_script_is_another_once_a_file_beside_it_is_that_can_change_what_it_says(tmp_path: Path) -> None:
    def identity() -> str:
        loader = PolicyLoader(Worksheet())
        return loader.identity(loader.partner(Entry("x", "scripted", f"{tmp_path / 'mine.py'}:Shout"))["first"])

    def write(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    write("__init__.py", "")
    write("mine.py", "class Shout:\n    def reply(self, messages, rng):\n        return 'NO'\n")
    write("words/animals.txt", "fox")
    before = identity()
    for name in ("README.md", "models/a/weights", "runs/b/config.yaml", "__pycache__/mine.pyc", ".hidden/c"):
        write(name, "x")
    assert identity() == before
    write("words/animals.txt", "cow")
    assert identity() != before


def test_what_has_no_file_has_no_source() -> None:
    assert source_digest(int) == ""


def test_an_adapter_is_told_by_its_weights_and_its_scale(tmp_path: Path) -> None:
    bank = make_bank(qwen2_folder(), ["agent"])
    for name in ("one", "moved"):
        bank.save(tmp_path / name)
    config = tmp_path / "moved" / "agent" / "adapter_config.json"
    bank.save(tmp_path / "louder")
    louder = tmp_path / "louder" / "agent" / "adapter_config.json"
    louder.write_text(json.dumps({**json.loads(config.read_text()), "lora_alpha": 99}))
    scramble(bank, "agent", seed=5)
    bank.save(tmp_path / "trained")
    loader = PolicyLoader(Worksheet())
    found = {}
    for name in ("one", "moved", "louder", "trained"):
        policy = loader.partner(Entry(name, "adapter", str(tmp_path / name / "agent")))["first"]
        found[name] = loader.identity(policy)
    assert found["one"] == found["moved"]
    assert len(set(found.values())) == 3
