"""A model's chat template as it is asked here: adapted to what tasks send, on one fixed day.

A template that refuses a system role, or neighbours of one role, is changed in the one usual way, in its own language:
so training, evaluation and export ask alike. This module makes text; `renderer` makes token ids of it.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from llm_sra.task import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DAY = "2025-01-01"  # given to templates that ask for today's date, unless a configuration names another day
DATE_STRING = "%d %b %Y"  # as Llama writes it: 01 Jan 2025
RESERVED = ("messages", "tools", "documents", "add_generation_prompt", "strftime_now", "raise_exception")
_CALL = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")

# What a template does not do by itself. The last `{{- '' }}` keeps jinja from eating a line break that begins the
# template proper.
_SYSTEM = """\
{%- if messages and messages[0]['role'] == 'system' -%}
{%- if messages | length > 1 and messages[1]['role'] == 'user' -%}
{%- set messages = [{'role': 'user', 'content': messages[0]['content'] + '\\n\\n' + messages[1]['content']}] \
+ messages[2:] -%}
{%- else -%}
{%- set messages = [{'role': 'user', 'content': messages[0]['content']}] + messages[1:] -%}
{%- endif -%}
{%- endif -%}
{{- '' }}"""
_JOIN = """\
{%- set joined_by_role = namespace(messages=[]) -%}
{%- for message in messages -%}
{%- set last = joined_by_role.messages[-1] if joined_by_role.messages else {'role': ''} -%}
{%- if last['role'] == message['role'] -%}
{%- set together = {'role': last['role'], 'content': last['content'] + '\\n' + message['content']} -%}
{%- set joined_by_role.messages = joined_by_role.messages[:-1] + [together] -%}
{%- else -%}
{%- set joined_by_role.messages = joined_by_role.messages + [message] -%}
{%- endif -%}
{%- endfor -%}
{%- set messages = joined_by_role.messages -%}
{{- '' }}"""
SYSTEM_FIRST = "it has no system role: the system text goes into the first user message, above a blank line"
JOINED = "its roles must alternate: neighbouring messages of one role are joined by a line break"


class TemplateError(ValueError):
    """A model's chat template cannot frame the messages of a task."""


class ChatTemplate:
    """One model's template, with its arguments.

    Args:
        tokenizer: A tokenizer with a chat template.
        arguments: Further arguments of the template, such as `enable_thinking`.
        day: Today's date, for templates that ask for it: YYYY-MM-DD.

    Attributes:
        source: What the template says, as it is asked.
        adapted: What was changed, in words.
        given: The arguments that it was made with.
        arguments: All that it is asked with.

    Raises:
        TemplateError: If there is no template, it does not use an argument, or the day is none.
    """

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", arguments: Mapping[str, Any] | None = None, day: str = DAY
    ) -> None:
        self.name = str(tokenizer.name_or_path)
        self._tokenizer = tokenizer
        self.source = _source(tokenizer)
        self.given = dict(arguments or {})
        self.arguments = dict(self.given)
        self.adapted: tuple[str, ...] = ()
        self.day, self._date = day, read_day(day)
        self._check_arguments()
        asks_for_string = re.search(r"\bdate_string\b", self.source) and not re.search(
            r"\bset\s+date_string\b", self.source
        )
        if asks_for_string and "date_string" not in self.arguments:
            self.arguments["date_string"] = self._date.strftime(DATE_STRING)

    @property
    def depends_on_day(self) -> bool:
        """Whether it asks for today's date."""
        return "strftime_now" in self.source or "date_string" in self.arguments

    @property
    def notes(self) -> tuple[str, ...]:
        """What somebody must know who asks the model elsewhere, in words; nothing for most models."""
        given = [f"{name} is {json.dumps(value)}" for name, value in self.given.items()]
        return (*self.adapted, *given, *([f"today's date is {self.day}"] if self.depends_on_day else []))

    def put_system_first(self) -> None:
        """From now on, move a system text into the first user message."""
        self.source, self.adapted = _SYSTEM + self.source, (*self.adapted, SYSTEM_FIRST)

    def join_neighbours(self) -> None:
        """From now on, join neighbouring messages of one role."""
        # What moves a system text stands first: its neighbour is then joined, too.
        at = len(_SYSTEM) if SYSTEM_FIRST in self.adapted else 0
        self.source = self.source[:at] + _JOIN + self.source[at:]
        self.adapted = (*self.adapted, JOINED)

    def text(self, messages: Sequence[Message], prompt: bool = True) -> str:
        """Messages as the template writes them.

        Args:
            messages: Their text is taken as it is.
            prompt: Whether the beginning of a reply follows.

        Raises:
            TemplateError: If it refuses them.
        """
        arguments = dict(self.arguments)
        if "strftime_now" in self.source:  # else transformers gives it a clock
            arguments["strftime_now"] = self._date.strftime
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    [message.as_dict() for message in messages],
                    chat_template=self.source,
                    tokenize=False,
                    add_generation_prompt=prompt,
                    **arguments,
                )
            )
        except Exception as error:
            roles = [message.role for message in messages]
            raise TemplateError(
                f"the chat template of {self.name!r} refuses the roles {roles}: {' '.join(str(error).split())}. "
                "Take a model whose template has them, or set another `chat_template` on the tokenizer and save it"
            ) from error

    def alone(self) -> str:
        """The template with its arguments and its day written into it, so that any chat API asks in the same way."""
        source = _CALL.sub(lambda call: repr(self._date.strftime(call[2])), self.source)
        if not self.arguments:
            return source
        lines = (
            f"{{%- if {name} is not defined -%}}{{%- set {name} = {value!r} -%}}{{%- endif -%}}"
            for name, value in self.arguments.items()
        )
        return "".join(lines) + "{{- '' }}" + source

    def _check_arguments(self) -> None:
        for name, value in self.arguments.items():
            if name in RESERVED or not re.search(rf"\b{re.escape(str(name))}\b", self.source):
                raise TemplateError(
                    f"chat_template_kwargs sets {name!r}, which the chat template of {self.name!r} does not take: "
                    "expected a variable of that template, such as enable_thinking or date_string where it has them. "
                    "Correct the name, or leave it out for this model"
                )
            try:
                json.dumps(value)
            except (TypeError, ValueError) as error:
                raise TemplateError(
                    f"chat_template_kwargs: {name} must be plain data (text, a number, true, false, a list or a "
                    f"mapping), got {value!r}"
                ) from error


def _source(tokenizer: "PreTrainedTokenizerBase") -> str:
    if not tokenizer.chat_template:
        raise TemplateError(
            f"the tokenizer of {tokenizer.name_or_path!r} has no chat template: use an instruction-tuned model, or "
            "set `chat_template` on the tokenizer and save it with the model"
        )
    try:
        return str(tokenizer.get_chat_template())
    except ValueError as error:
        raise TemplateError(
            f"the tokenizer of {tokenizer.name_or_path!r} has several chat templates and none is called `default`: "
            "set the one to use as `chat_template` on the tokenizer and save it with the model"
        ) from error


def read_day(day: str) -> date:
    """The date that a text names.

    Raises:
        TemplateError: If it is none.
    """
    try:
        return date.fromisoformat(day)
    except (TypeError, ValueError):
        raise TemplateError(f"template_date must be a date, YYYY-MM-DD, got {day!r}") from None
