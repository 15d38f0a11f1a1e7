"""The benchmarks' programs run, and count what they compare; what they measure is no test's business."""

import json
import random
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from benchmarks import growth, rollout, step
from benchmarks.fixed import Fixed
from benchmarks.measure import Job, Result, in_turn, median, ratio, run, target
from benchmarks.models import PUPIL, parameters, write_tiny

SHAPE = {"problems": 2, "generations": 2, "turns": 1, "tokens": 4, "micro_batch": 4, "steps": 2}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "tiny"
    write_tiny(folder)
    return folder


def measured(tiny: Path, who: str) -> Result:
    if who == "pure":  # watches no class, so it needs no process of its own
        from benchmarks.drivers import pure

        return pure({**SHAPE, "model": str(tiny)})
    return run(Job("benchmarks.drivers", {**SHAPE, "model": str(tiny), "who": who}))


@pytest.mark.parametrize("who", ["ours", "pure", "trl"])
def test_each_variant_generates_and_trains_the_same_number_of_tokens(tiny, who):
    done = measured(tiny, who)
    # 2 problems x 2 episodes x 2 seats = 8 replies of 4 tokens: none ends by itself
    assert (done.generated, done.trained, len(done.seconds)) == (32, 32, 1)
    assert done.read == 8 * 19  # "Q: 10+10+10" is 11 tokens, its frame 8
    assert 0 < done.outside < 1 and min(done.parts.values()) > 0


@pytest.mark.skipif(not find_spec("comlrl"), reason="needs the extra `bench`")
@pytest.mark.parametrize("lora", [False, True])
def test_comlrl_generates_as_much_and_leaves_out_the_last_token_of_a_reply(tiny, lora):
    done = run(Job("benchmarks.comlrl", {**SHAPE, "model": str(tiny), "lora": lora}))
    assert (done.generated, done.trained, done.read) == (32, 24, 8 * 19)


@pytest.mark.skipif(not find_spec("comlrl"), reason="needs the extra `bench`")
def test_comlrl_plays_turns_as_a_tree(tiny):
    done = run(Job("benchmarks.comlrl", {**SHAPE, "model": str(tiny), "lora": False, "turns": 2, "problems": 1}))
    assert done.generated == 12 * 4  # 2 replies, then 2 after each of them, of two agents


def test_an_engine_plays_the_same_replies_in_one_batch_and_in_turn(tiny):
    [job] = rollout.jobs(tiny, episodes=8, tokens=4, steps=2, turns=1, engines=["transformers"]).values()
    done = run(job)
    assert done.generated == 8 * 2 * 4
    assert set(done.numbers) == {"1 in a batch", "2 in a batch", "4 in a batch", "4 in turn"}


def test_as_many_replies_in_trees_as_in_whole_episodes():
    jobs = step.six_turns(Path(), 1, tokens=1, micro_batch=1, steps=1)
    ours, theirs = jobs["ours"].settings, jobs["CoMLRL"].settings
    assert ours["problems"] * ours["generations"] * 12 == 504
    assert theirs["problems"] * 2 * sum(2**turn for turn in range(1, 7)) == 504  # two agents, 2 + 4 + ... + 64 replies


def test_the_fixed_task_only_appends_to_what_a_seat_sees():
    task, rng = Fixed(turns=2), random.Random(0)
    state = task.start(task.problems("train")[0], rng)
    before = list(task.view(state, "left"))
    state, rewards = task.step(state, {"left": "x", "right": "y"}, rng)
    assert [(m.role, m.content) for m in task.view(state, "left")[1:]] == [("assistant", "x"), ("user", "y")]
    assert list(task.view(state, "left"))[:1] == before
    assert rewards["left"] == rewards["right"]


def test_the_large_models_shape_is_the_published_one():
    assert parameters(24) == 494_032_768  # as the hub says of Qwen2.5-0.5B


def test_ratios_are_taken_within_rounds():
    ours, theirs = [Result([1.0]), Result([8.0]), Result([3.0])], [Result([2.0]), Result([4.0]), Result([3.0])]
    assert ratio(ours, theirs, lambda run: run.step) == 1.0  # of 0.5, 2 and 1
    assert median(ours, lambda run: run.step) == 3.0


def test_targets_say_whether_they_are_met():
    assert target("x", 1.0, 1.0).endswith("(at most 1.00: met)")
    assert target("x", 1.4, 1.5, at_least=True).endswith("(at least 1.50: MISSED)")


def test_what_is_not_installed_is_left_out_and_said(capsys):
    assert in_turn({"peer": Job("nothing", {}, "surely_not_installed")}, 1) == {}
    assert "left out, surely_not_installed is not installed: peer" in capsys.readouterr().out


def test_a_variant_that_fails_says_why():
    with pytest.raises(SystemExit, match="No module named"):
        run(Job("benchmarks.nothing", {}))


def test_what_is_reported_of_a_step_comes_from_its_variants():
    def took(seconds: float, trained: int, peak: float) -> list[Result]:
        parts = {"generation": seconds / 2, "forward": seconds / 4, "backward": 0.0}
        return [Result([seconds], 1, 2, trained, peak, parts, {"adapter_mib": 10.0})]

    results = {"ours": took(2.0, 100, 210.0), "pure": took(1.0, 100, 1.0), "TRL": took(4.0, 100, 170.0)}
    results["CoMLRL"] = took(5.0, 50, 700.0)
    lines = step.verdicts(results, 4.0, memory=True)
    assert "over that of TRL: 0.50 (at most 1.00: met)" in lines
    assert "the tether's own forwards: 2.00 (at most 1.10: MISSED)" in lines
    assert "outside the model: 0.25 (at most 0.10: MISSED)" in lines
    assert "times faster than CoMLRL, by trained token: 5.00 (at least 4.00: met)" in lines  # 100 ms over 20 ms
    assert "three more adapters' 30 MiB: 1.05 (at most 1.05: met)" in lines  # 210 over 170 + 30
    assert "over CoMLRL's: 0.30 (at most 0.40: met)" in lines
    assert "| CoMLRL | 5.00 | 1 | 2 | 50 | 100.000 | 0.20 | 25.0 % | 700 |" in step.describe("x", results)


def test_growth_beyond_linear_is_named_and_explained():
    def took(seconds: float) -> growth.Measured:
        return growth.Measured({part: [seconds / 4] for part in growth.PARTS}, 1.0)

    times = dict(zip(growth.VARIANTS, (1.0, 2.0, 3.0, 1.0), strict=True))
    lines = growth.explain([{name: took(seconds) for name, seconds in times.items()}]).splitlines()
    assert ["WORSE THAN LINEAR" in line for line in lines] == [False, True, False]
    assert "square of the turns" in lines[1]


def test_the_embedded_model_itself_is_left_as_it_is(tiny):
    assert json.loads((PUPIL / "config.json").read_text())["eos_token_id"] == 2
    assert json.loads((tiny / "config.json").read_text())["eos_token_id"] == 190


def test_operations_are_counted_by_part_and_with_the_innermost():
    from benchmarks.profile import Parts

    steps = Parts(count=True)
    x = torch.ones(2, 3)
    with steps.within("train"):
        _ = x + x
        with steps.within("generate"):
            _ = (x * x).view(6)
            _ = x.t()
        _ = x - x
    _ = x + x  # of no part
    assert steps.operations is not None
    assert dict(steps.operations.all) == {"train": 2, "generate": 3}
    assert dict(steps.operations.launched) == {"train": 2, "generate": 1}


def test_a_steps_operations_are_those_of_its_parts_and_take_no_time_from_others(tiny):
    for who, trained in (("ours", 32), ("trl", 32)):
        done = run(Job("benchmarks.profile", {**SHAPE, "model": str(tiny), "who": who, "count": True}))
        assert done.trained == trained
        assert all(
            0 < done.numbers[f"{part}, no views"] < done.numbers[part] for part in ("generate", "score", "train")
        )
        assert 0 < sum(done.parts.values()) < sum(done.seconds)


def test_a_family_is_tried_in_every_column_and_the_page_has_a_row_for_each(monkeypatch):
    from benchmarks import families

    monkeypatch.setattr(families, "find_spec", lambda name: None)
    name, *cells = families.row("SmolLM2").strip("| ").split(" | ")
    assert name == "SmolLM2" and len(cells) == len(families.COLUMNS)
    assert re.fullmatch(r"yes, \de-\d\d", cells[3])
    assert [*cells[:3], *cells[4:]] == ["yes", "yes", "yes", "yes", "not tried"]
    page = (Path(__file__).parent.parent / "docs" / "models.md").read_text().partition("## Kinds of adapters")[0]
    assert f"| family | {' | '.join(families.COLUMNS)} |" in page
    assert re.findall(r"^\| ([A-Z][\w .-]+?) \| yes", page, re.MULTILINE) == list(families.FAMILIES)


def test_a_kind_of_adapter_is_tried_both_ways_and_the_page_has_a_row_for_each():
    from benchmarks import adapter_kinds

    [kind] = [one for one in adapter_kinds.KINDS if one.name == "single tokens"]
    row = adapter_kinds.row(kind)
    assert row == "| single tokens | no field for it | yes, on a base of its own |"
    page = (Path(__file__).parent.parent / "docs" / "models.md").read_text().partition("## Kinds of adapters")[2]
    assert row in page
    assert re.findall(r"^\| (.+?) \| (?:yes|refused|no field)", page, re.MULTILINE) == [
        one.name for one in adapter_kinds.KINDS
    ]


def test_what_fails_in_a_family_is_said_in_its_row(monkeypatch):
    from benchmarks import families

    monkeypatch.setitem(families.FAMILIES, "Broken", ("NoSuch", "qwen3", "bytes", {}))
    monkeypatch.setattr(families, "find_spec", lambda name: None)
    assert families.row("Broken").startswith("| Broken | no: AttributeError: module transformers has no attribute")
