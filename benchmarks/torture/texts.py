"""Texts that a stranger could say, or give as a name, through all that takes them in and shows them.

A prompt has no more turns than it was given, a terminal no control character, a table no further cell, a page no
further tag; and what is kept of a reply reads back as it was.
"""

import io
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from benchmarks.torture.tally import Limit, Tally

CONTROL = (
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "[INST]",
    "[/INST]", "</s>", "<s>", "<start_of_turn>", "<end_of_turn>", "<|assistant|>", "<|end|>", "<|channel|>", "<think>",
    "</think>", "<tool_call>", "<|begin_of_text|>", "<0x0A>", "\u2581", "<pad>", "<unk>", "<|message|>", "<|return|>",
)  # fmt: skip
TURNS = (
    "\nassistant\n",
    "\nuser: ",
    "system\n",
    "Human: ",
    "### Response:\n",
    "\n\n",
    "left (left)  apple\n",
    "    right (x)  ",
)
TERMINAL = (
    "\x1b]0;x\x07", "\x1b[2J", "\x1b[31m", "\r", "\b\b\b", "\x00", "\x9b2J", "\u202e", "\u2066", "\u200b", "\ufeff",
    "\u3164", "\U000e0041", "\ud800", "\udfff", "\u2028", "\x85", "\x7f", "[bold red]", "[link=x]", "[/]",
)  # fmt: skip
MARKUP = (
    "</script>", "<script>alert(1)</script>", "<!--", "-->", "<img src=x onerror=alert(1)>", "\" onload=\"x", "'",
    "&lt;", "&#x3c;", "]]>", "|", "\\|", "\\", "`", "```\n", "**", "[a](javascript:x)", "[x]: http://y", "# ", "- ",
    "$x_{", "}$", "$$", "{{ x }}", "{% raise %}", "%s", "{0}", "__class__", "http://a.b", "\n|---|\n", "~~", "_",
)  # fmt: skip
PLAIN = ("a", "é", "🙂", "漢", " ", "1+2=3", "pass", "apple", "x" * 300, "\n", "\t", "\u0301")
KINDS = (CONTROL, TURNS, TERMINAL, MARKUP, PLAIN)
# Templates and tokenizers of tests/real_templates.py.
FAMILIES = (
    ("qwen2.5", "bytes of qwen"), ("qwen3", "bytes of qwen"), ("llama3.1", "bytes"), ("gemma2", "gemma"),
    ("phi3", "llama legacy"), ("mistral-v0.3", "llama legacy"), ("gpt-oss", "bytes"),
)  # fmt: skip
BATCH = 50  # texts on a page
COLUMN = 28  # characters of a terminal's line that name who speaks
TURN_LINES = [["left", "(y)"], ["right", "(x)"]]
Check = Callable[[str], str | None]


def hostile_texts(seed: int) -> Iterator[str]:
    """Texts without end, each of some pieces."""
    rng = random.Random(seed)
    while True:
        pieces = [rng.choice(rng.choice(KINDS)) for _ in range(rng.randrange(1, 9))]
        if rng.random() < 0.2:  # pieces of pieces, which may join to one
            at = rng.randrange(len(pieces))
            cut = rng.randrange(len(pieces[at]) + 1)
            pieces[at] = pieces[at][:cut] + rng.choice(CONTROL) + pieces[at][cut:]
        yield "".join(pieces)


def try_texts(seed: int, limit: Limit) -> Iterator[Tally]:
    """Put texts through each place that takes them in.

    Args:
        seed: Of the texts.
        limit: Texts for each place.

    Yields:
        A count for each place.
    """
    places = [
        ("prompts of seven families", "no control token, no turn more", prompts(), 1),
        ("replies and what is kept of them", "read back as they were said", replies(), 1),
        (
            "names and replies in the terminal",
            "one line for a name, one column for a reply, nothing that controls or hides",
            terminal(),
            1,
        ),
        ("names in Markdown", "one cell, no tag, no control character", markdown(), 1),
        ("names in pictures", "no mathematics, one line", labels(), 1),
        ("names and replies in the page", "no tag or attribute more; read back as data", page(), BATCH),
    ]
    for what, promise, check, batch in places:
        tally = Tally("hostile texts", what, promise, limit.count)
        texts = hostile_texts(seed)
        while not limit.reached(tally.tried):
            taken = [next(texts) for _ in range(min(batch, limit.count - tally.tried))]
            wrong = check("\x1e".join(taken) if batch > 1 else taken[0])
            tally.add(wrong, len(taken))
        yield tally


def prompts() -> Check:
    """Renders a conversation with the text in each role."""
    from real_templates import tokenizer_of

    from llm_sra.models.renderer import Renderer
    from llm_sra.playing.turns import clean_text
    from llm_sra.task import Message

    renderers = [Renderer(tokenizer_of(*family)) for family in FAMILIES]
    number = iter(range(1 << 60))

    def conversation(text: str) -> list[Any]:
        return [Message("user", text), Message("assistant", text), Message("user", "go on")]

    def check(text: str) -> str | None:
        index = next(number) % len(FAMILIES)
        renderer, said = renderers[index], clean_text(text, 2000)
        control = {  # runs of blanks are words, and what has no token is the unknown one
            index
            for index, token in renderer.tokenizer.added_tokens_decoder.items()
            if token.content.strip(" \t\r\n\u2581") and index != renderer.tokenizer.unk_token_id
        }
        found, expected = (
            [token for token in renderer.render(conversation(each)) if token in control] for each in (said, "x")
        )
        return None if found == expected else f"{FAMILIES[index][0]}: {text!r} makes control tokens"

    return check


def replies() -> Check:
    """Cleans a reply, keeps it as a line of the store, and reads that."""
    from llm_sra.episodes import EpisodeRecord, TurnRecord
    from llm_sra.files import parse_line, to_json
    from llm_sra.playing.turns import clean_text

    def check(text: str) -> str | None:
        said = clean_text(text, 200)
        if len(said) > 200 or said != clean_text(said, 200):
            return f"{text!r} is not cleaned at once"
        said.encode("utf-8")
        turns = (TurnRecord("left", 0, said),)
        episode = EpisodeRecord(text, {"left": text}, False, {"left": 1.0}, {}, turns, {})
        line = to_json(episode.line()).encode("utf-8", "backslashreplace")
        kept = parse_line(line)
        same = kept is not None and EpisodeRecord.read(kept).turns == turns and line.count(b"\n") == 0
        return None if same else f"{text!r} is not read as it was kept"

    return check


def terminal() -> Check:
    """Shows a turn with a name and a reply as `llm-sra play` and `llm-sra watch` do."""
    from rich.console import Console, Group

    from llm_sra.episodes import EpisodeRecord, TurnRecord
    from recipes.commands.play import turn_line
    from recipes.watching.frame import episode_lines

    words = (TurnRecord("left", 0, "pass"), TurnRecord("right", 1, "pass"))

    def printed(*parts: Any) -> str:
        console = Console(file=io.StringIO(), width=100, highlight=False, color_system=None)
        console.print(Group(*parts))
        text: str = console.file.getvalue()  # type: ignore[attr-defined]
        return text

    def check(text: str) -> str | None:
        turns = (TurnRecord("left", 0, text), TurnRecord("right", 1, text))
        episode = EpisodeRecord(text, {"left": text, "right": "x"}, False, {}, {}, turns, {}, match=text, step=1)
        played = printed(turn_line("left", text, text, "", "red"), turn_line("right", "x", text, "", "red"))
        watched = printed(*episode_lines(episode, {"left": "a"}, 5, 30))
        for shown in (played, watched):
            if bad := [c for c in shown if not c.isprintable() and c != "\n"]:
                return f"{text!r} prints {bad[0]!r}"
        # A name may well be that of another seat, but makes no line; a reply stays in its column, and makes no turn.
        said = printed(turn_line("left", "y", text, "", "red"), turn_line("right", "x", text, "", "red"))
        begins = [line[:COLUMN] for line in said.splitlines() if line[:COLUMN].strip()]
        if [each.split() for each in begins] != TURN_LINES:
            return f"{text!r} forges a turn"
        named = EpisodeRecord(text, {"left": text, "right": "x"}, False, {text: 1.0}, {}, words, {}, match=text, step=1)
        watched = printed(*episode_lines(named, {"left": "a"}, 5, 30))
        played = printed(turn_line("left", text, "pass", "", "red"))
        made = watched.rstrip().count("\n"), played.rstrip().count("\n")  # a title, two turns and a verdict; one turn
        return None if made == (4, 0) else f"{text!r} as a name makes a line"

    return check


def markdown() -> Check:
    """Writes a table with the text in every place."""
    from eval.grid import Grid, grid_markdown

    def check(text: str) -> str | None:
        lines = grid_markdown(Grid(text, ("partner", text), (((text, "0.5"),),), (text,))).splitlines()
        if len(lines) != 7 and text.strip():
            return f"{text!r} makes {len(lines)} lines of 7"
        whole = "\n".join(lines)
        if bad := [c for c in whole if not c.isprintable() and c != "\n"]:
            return f"{text!r} writes {bad[0]!r}"
        cells = {len(re.sub(r"\\.", "", line).split("|")) for line in lines[2:5]}
        return None if cells == {4} and "<" not in whole else f"{text!r} breaks out of its cell"

    return check


def labels() -> Check:
    """Asks matplotlib whether it would read a label as mathematics."""
    from matplotlib.text import Text

    from eval.labels import as_label

    def check(text: str) -> str | None:
        label = as_label(text)
        shown, is_math = Text()._preprocess_math(label)  # type: ignore[attr-defined]
        wrong = is_math or any(not c.isprintable() for c in shown) or label.startswith("_")
        return f"{text!r} is drawn as {label!r}" if wrong else None

    return check


def page() -> Check:
    """Writes a page with texts as sentences, cells, captions and episodes."""
    from eval.grid import Grid
    from eval.report.episodes import EpisodeSample, script_json
    from eval.report.page import page as write_page
    from eval.report.sections import Section

    def tags(texts: Sequence[str]) -> list[Any]:
        grid = Grid(texts[0], ("a", "b"), (tuple((text, text) for text in texts),), tuple(texts))
        store = EpisodeSample(script_json({"rows": list(texts)}), len(texts), len(texts), 1, False)
        sections = [
            Section("s", texts[0], tuple(texts), texts[0], tables=(grid,)),
            Section("t", texts[0], missing=texts[0]),
        ]
        html = write_page(texts[0], sections, store)
        if bad := [c for c in html if not c.isprintable() and c != "\n"]:
            raise ValueError(f"the page holds {bad[0]!r}")
        seen = _Page()
        seen.feed(html)
        if json.loads(seen.episodes) != {"rows": [as_utf16(text) for text in texts]}:
            raise ValueError("the episodes are not read as they were")
        return seen.tags

    def check(text: str) -> str | None:
        texts = text.split("\x1e")
        try:
            # A cell's class depends on how long it is.
            same = tags(texts) == tags(["x" * len(each) if len(each) < 15 else "x" * 60 for each in texts])
        except ValueError as error:
            return f"{error}: {texts!r}"
        return None if same else f"the page has other tags: {texts!r}"

    return check


def as_utf16(text: str) -> str:
    r"""A text as a page's script holds it: two surrogates side by side, `\ud800\udfff`, are the character of both."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


class _Page(HTMLParser):
    """The tags of a page, the names of their attributes, and its data."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.episodes = ""
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs if name != "class")))
        self._inside = tag == "script" and ("id", "episodes") in attrs

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        self.episodes += data * self._inside


def add_tests() -> None:
    """Let the modules of tests/ be imported: tiny models, and the templates of real families."""
    import sys

    folder = str(Path(__file__).resolve().parent.parent.parent / "tests")
    if folder not in sys.path:
        sys.path.insert(0, folder)
