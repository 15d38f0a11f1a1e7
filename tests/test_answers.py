"""How an answer may be written, and that no text takes long to read."""

import json
import random
import re
import time
from fractions import Fraction
from pathlib import Path

import pytest
from answers_table import WRITINGS
from support import ROOT

from tasks.gsm8k.answers import final_answer
from tasks.gsm8k.answers_report import main, reports

ROWS = [
    pytest.param(text, answer, id=f"{kind}: {text!a}"[:70]) for kind, rows in WRITINGS.items() for text, answer in rows
]


def test_the_table_has_at_least_150_ways_of_writing_each_once() -> None:
    texts = [text for rows in WRITINGS.values() for text, _ in rows]
    assert len(texts) == len(set(texts)) >= 150


@pytest.mark.parametrize(("text", "answer"), ROWS)
def test_a_writing_is_read_as_the_table_says(text: str, answer: str | None) -> None:
    assert final_answer(text) == (None if answer is None else Fraction(answer))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("#### 18", "18"),
        ("#### 41. Wait, again: #### 42", "42"),
        ("#### \u221218", "-18"),
        ("#### \u201318", "-18"),
        ("#### \ufe6318", "-18"),
        ("#### 18 000", "18000"),
        ("#### 18\u202f000", "18000"),
        ("#### 18'000", "18000"),
        ("#### 18_000", "18000"),
        ("#### 1.8e3", "1800"),
        ("#### 3 million", "3000000"),
        ("#### 18 dollars", "18"),
        ("#### 18 (9 * 2)", "18"),
        ("**#### 18**", "18"),
        ("#### 18\n#### number", "18"),
        ("#### 18\n#### Step 2: check", "18"),
        ("#### 18\nThe answer is 20.", "18"),
        ("#### 1{,}800", None),
        ("#### 1{,}\\!800", None),
        ("#### 1\\,800", None),
        ("#### 1,\\!800", None),
        ("#### 1~800", None),
        ("#### 3 * 6 = 18", None),
        ("#### 41\n#### Correction: 42", None),
        ("#### 41\n#### Answer: 42\n#### number", None),
        ("#### 42\n#### Answer: 42", "42"),
        ("#### 41\n#### Answer: 42\n#### 43", "43"),
        ("#### 41\nWait, it is 42.", "41"),
        ("#### 41\n#### 3 * 6 = 18", None),  # what the reply ends with is no number
        ("#### 3 \\times 6", None),
        ("#### 18 = 9 * 2", None),
        ("#### x = 18", None),
        ("#### 5 cents = $0.05", None),
        ("#### 1/2", None),
        ("#### 1 1/2", None),
        ("#### 1\\frac{1}{2}", None),
        ("#### 18,50", None),
        ("#### 18 20", None),
        ("#### 15-20", None),
        ("#### 15 or 20", None),
        ("#### 3:30", None),
        ("#### 18\u00b2", None),
        ("#### 4\u0662", None),
        ("#### 41, no, 42", None),
        ("#### 1 hour 30 minutes", None),
        ("#### 18 and a half", None),
        ("#### (18)", None),
        ("#### **18**", None),
        ("#### Answer: 18", None),
        ("#### Step 2: check", None),
        ("for example #### 7.5", None),
        ("The answer is 18.", None),
        ("\\boxed{18}", None),
        ("18", None),
    ],
)
def test_strictly_read_only_a_plain_number_after_four_hashes_counts(text: str, answer: str | None) -> None:
    assert final_answer(text, strict=True) == (None if answer is None else Fraction(answer))


def test_a_number_means_the_same_strictly_and_leniently_where_it_is_read_strictly() -> None:
    read = 0
    for text, answer in (row for rows in WRITINGS.values() for row in rows):
        strict = final_answer(text, strict=True)
        if strict is not None:
            read += 1
            assert answer is not None and strict == Fraction(answer), text
    assert read > 80


HOSTILE = (
    "1", " ", "#", "#### ", "#### 1 ", "#### x1 ", "#### 3 * 6 = ", "(", "{", "}", "\\boxed{", "\\boxed{1}", "\\frac{",
    "\\frac{1}{2}", "answer: 1 ", "answer is x 1 2\n", "answer\n", "A: 1 or 2\n", "a ", "a. ", ".", "1.", "1,",
    "1 000 ", "-", "--1", "$", "<", "<<1", "*", "**1", "~~", "`", "_", "1/", "^", "\n", "\n\n1", "=", "1=", "\\text{",
    "\\", "\\,", "Step 1: ", "1. a\n", "#### 1. a\n", "e.g. #### 1 ", "wait 1 ", "no, 1", "1 or ", "1 a b c d ",
    "not 1 ",
    "\u0664",
    "\u00bd", "\u2212", "\u2009", "<answer>", "1 million ", "1e99", "Rs. ", "2x=", "answer - ", "| 1 ", "- 1\n",
    "\u2014",
)  # fmt: skip


def seconds(text: str, strict: bool) -> float:
    """Processor time of one reading, the least of three: the machine may be busy."""
    taken = []
    for _ in range(3):
        start = time.process_time()
        final_answer(text, strict)
        taken.append(time.process_time() - start)
    return min(taken)


@pytest.mark.parametrize("piece", HOSTILE, ids=ascii)
def test_8192_characters_take_less_than_50_ms_whatever_they_are(piece: str) -> None:
    final_answer("#### 3 * 6")  # imports sympy
    for before, after in (
        ("", ""),
        ("#### ", ""),
        ("#### 1", ""),
        ("answer is 1 ", ""),
        ("\\boxed{", "}"),
        ("x ", "\n"),
    ):
        room = 8192 - len(before) - len(after)
        text = before + (piece * (room // len(piece) + 1))[:room] + after
        for strict in (False, True):
            assert seconds(text, strict) < 0.05, (before, after, strict)


def test_random_calculations_take_less_than_50_ms_and_come_to_what_they_come_to() -> None:
    final_answer("#### 3 * 6")
    rng = random.Random(0)
    for _ in range(200):
        left, right, factor = (rng.randrange(1, 1000) for _ in range(3))
        assert final_answer(f"#### ({left} + {right}) * {factor} / 8") == Fraction((left + right) * factor, 8)
        soup = "#### 1" + "".join(rng.choice("0123456789+-*/().,^= x") for _ in range(rng.randrange(120)))
        assert seconds(soup, strict=False) < 0.05, soup


@pytest.mark.parametrize("piece", ["#### 1 ", "\\boxed{1", "answer: x 1 2\n", "\\frac{1}{2}", "1 or ", "(1 + "])
def test_ten_times_the_text_takes_about_ten_times_as_long(piece: str) -> None:
    final_answer("#### 3 * 6")
    short, long = (seconds(piece * (length // len(piece)), strict=False) for length in (40_000, 400_000))
    assert long < 30 * short + 0.01  # 100 times, were it quadratic


def test_a_report_counts_agreement_and_replies_without_an_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"question": "a", "ground_truth": "A: 18", "m": {"solution": "A: 18", "is_correct": True}},
        {"question": "b", "ground_truth": "A: 18", "m": {"solution": "A: 20", "is_correct": True}},
        {"question": "c", "ground_truth": "A: 18", "m": {"solution": "no idea", "is_correct": False}},
    ]
    path = tmp_path / "solutions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    [report] = reports(path)
    assert (report.model, report.replies, report.agree, report.none, report.right) == ("m", 3, 2, 1, 1)
    main([str(path)])
    assert "m" in capsys.readouterr().out.splitlines()[-1].split()


@pytest.mark.parametrize(("text", "message"), [("{", "line 1 is not JSON"), ('{"question": "a"}', "line 1: expected")])
def test_a_report_on_another_file_says_what_was_expected(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "solutions.jsonl"
    with pytest.raises(SystemExit, match=f"cannot read .*{path.name}"):
        main([str(path)])
    path.write_text(text)
    with pytest.raises(SystemExit, match=message):
        main([str(path)])


def test_reader_and_file_agree_on_every_recorded_reply(gsm8k_folder: Path) -> None:
    path = gsm8k_folder / "example_model_solutions.jsonl"
    if not path.is_file():
        pytest.skip(f"no {path}")
    assert {r.model: (r.replies, r.agree, r.none, r.right) for r in reports(path)} == {
        "6b_finetuning": (1319, 1319, 3, 286),
        "6b_verification": (1319, 1319, 0, 515),
        "175b_finetuning": (1319, 1319, 5, 458),
        "175b_verification": (1319, 1319, 0, 742),
    }


def table_of_the_page() -> list[tuple[str, str, str]]:
    """Writing and what is read, of every row of the page's tables; `⏎` there is a new line."""
    page = (ROOT / "docs" / "gsm8k-answers.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `` (.+?) `` \| (\S+) \| (\S+) \|$", page, re.MULTILINE)
    return [(text.replace("⏎", "\n").replace("\\|", "|"), lenient, strict) for text, lenient, strict in rows]


def test_the_page_says_what_is_read() -> None:
    rows = table_of_the_page()
    assert len(rows) > 40
    for text, *said in rows:
        read = [final_answer(text), final_answer(text, strict=True)]
        assert said == ["none" if value is None else str(value) for value in read], text
