"""Whether a model can say what a task takes: its legal replies against the token limit of a reply."""

from llm_sra.models.renderer import Renderer
from llm_sra.task import Task


class ReplyLimitError(ValueError):
    """The token limit of a reply is too low for a legal one."""


def check_reply_limit(task: Task, renderer: Renderer, limit: int | None) -> None:
    """See that a model's tokenizer can write every legal reply that the task lists within the limit.

    Args:
        task: Its `legal_replies` are looked at; a task that lists none is not checked.
        renderer: Of the model.
        limit: Most tokens of a reply; the task's own if None. The token that ends a turn need not fit in.

    Raises:
        ReplyLimitError: If one cannot be written; names the longest, and the limit that it needs.
    """
    allowed = limit or task.max_reply_tokens
    needed = {reply: len(renderer.encode_text(reply)) for reply in task.legal_replies()}
    longest = max(needed, key=needed.__getitem__, default="")
    if needed.get(longest, 0) > allowed:
        raise ReplyLimitError(
            f"max_completion_length is {allowed}{'' if limit else ' (the own limit of the task)'}, but the legal reply "
            f"{longest!r} takes {needed[longest]} tokens of {renderer.tokenizer.name_or_path!r}: set it to "
            f"{needed[longest]} or more"
        )
