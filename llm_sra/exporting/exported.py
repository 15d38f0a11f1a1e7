"""What a model card is about, and how its parts write names that may come from strangers."""

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from llm_sra.evaluation.records import Record, Summary
from llm_sra.evaluation.single.results import Single
from llm_sra.exporting.choices import Choices
from llm_sra.exporting.example import Example
from llm_sra.exporting.generation import Generation
from llm_sra.registry import find_model, model_name
from llm_sra.runs import Run
from llm_sra.untrusted import as_markdown, one_line, printable


@dataclass(frozen=True)
class Exported:
    """An export.

    Attributes:
        run: That trained the policy.
        policy: Name of the adapter.
        rank: Rank of the adapter.
        merged: Whether it is a plain model.
        where: How others name the export: a repository of the hub, or a folder.
        evaluation: What an evaluation says about the run; None if it has none.
        asked: How its prompts differ from what the base's own chat template writes.
        about: The task in words, a paragraph each.
        example: What it was asked, and what it replied.
        choices: Its words, where its replies are chosen from some: one list, or one for each seat.
        generation: How its replies are drawn, where they are not choices.
        single: What lm-eval says of it and of its base; None if that was not measured.
    """

    run: Run
    policy: str
    rank: int
    merged: bool
    where: str
    evaluation: Summary | None
    asked: tuple[str, ...] = ()
    about: tuple[str, ...] = ()
    example: Example | None = None
    choices: tuple[Choices, ...] = ()
    generation: Generation | None = None
    single: Single | None = None

    @property
    def allowed(self) -> Choices | None:
        """The words of the example's seat."""
        seat = self.example.seat if self.example else ""
        return next((each for each in self.choices if each.seat in ("", seat)), None)

    @property
    def base(self) -> str:
        """The base model: the name of one that ships, else as the run names it."""
        return model_name(find_model(self.run.model_of(self.policy)))

    @property
    def base_on_hub(self) -> str | None:
        """The base model's repository; None for a folder, which the hub refuses in a header, and for one that ships."""
        try:
            validate_repo_id(self.base)
        except HFValidationError:
            return None
        return None if self.ships or Path(self.base).is_dir() else self.base

    @property
    def ships(self) -> bool:
        """Whether the base model comes with llm-sra, and so is not on the hub under its name."""
        return find_model(self.base) != self.base

    @property
    def base_shown(self) -> str:
        """The base model for a reader: without the path of the machine that trained."""
        return self.base_on_hub or f"path/to/{Path(self.base).name}"

    @property
    def task(self) -> str:
        """The task's name; of a file, the class."""
        return str(self.run.config["task"]).rsplit(":")[-1]

    @property
    def seats(self) -> tuple[str, ...]:
        """The seats that the policy was trained to sit in; none for an adversary."""
        return tuple(seat for seat, name in self.run.heroes.items() if name == self.policy)

    @property
    def records(self) -> tuple[Record, ...]:
        """The evaluation's records of the policy's own seats."""
        found = self.evaluation.records if self.evaluation else ()
        return tuple(record for record in found if record.seat in self.seats)


def literal(text: str) -> str:
    """A string of Python in one line."""
    return printable(json.dumps(text, ensure_ascii=False))


def word(text: str) -> str:
    """A word of a command line, in one line."""
    return shlex.quote(one_line(text))


def cell(value: Any) -> str:
    """A value in backticks that cannot break out of them or of its cell: names come from rosters and from tasks."""
    return one_line(value).replace("|", "\\|").replace("`", "'").replace("<", "&lt;")


def prose(text: str) -> str:
    """A paragraph that shows as it is, but for what stands in backticks."""
    parts = re.split(r"(`[^`\n]+`)", text)
    return "".join(one_line(part) if part.startswith("`") else _spaced(part) for part in parts)


def _spaced(text: str) -> str:
    """Text as Markdown that keeps a space at its ends."""
    if not text.strip():
        return text
    return f"{' ' * text[0].isspace()}{as_markdown(text)}{' ' * text[-1].isspace()}"
