"""What a best response to each partner of a roster earns: the file beside the roster, and whether it still holds.

`llm-sra best-response` trains and plays them; `eval.proximity` divides by them. A best response is learned within a
budget, so what it earns is a lower bound of what could be earned.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from llm_sra.errors import NoFileError
from llm_sra.evaluation.records import Record
from llm_sra.files import to_json, write_whole, writing
from llm_sra.partners.contents import entry_digest
from llm_sra.partners.rosters import Entry, file_beside
from llm_sra.task import Task
from llm_sra.untrusted import checked, one_line, parse_json, read_text

ENDING = ".best.json"  # of the file beside a roster
LARGEST = 16 << 20  # bytes
LIVE = "it is each run's own partner, so it has no best response of its own"
logger = logging.getLogger(__name__)


class BestResponseError(ValueError):
    """A file of best responses cannot be used; says what was expected."""


@dataclass(frozen=True)
class Earned:
    """What a best response earns in one seat.

    Attributes:
        seat: Where it sits; the partner has all other seats.
        decoding: `greedy` or `sampled`.
        n: Number of problems.
        own_return: Mean return: shared and own rewards minus its private cost.
        team_reward: Mean shared reward.
        solve_rate: Share of problems solved, in [0, 1].
        returns: The return of each problem, in the order of `BestResponses.ids`.
    """

    seat: str
    decoding: str
    n: int
    own_return: float
    team_reward: float
    solve_rate: float
    returns: tuple[float, ...] = ()

    @classmethod
    def of(cls, record: Record, returns: Sequence[float]) -> "Earned":
        """From a record of a best response with its partner, and the returns that it counts."""
        return cls(
            record.seat, record.decoding, record.n, record.own_return, record.team_reward, record.solve_rate,
            tuple(round(float(one), 6) for one in returns),
        )  # fmt: skip

    @classmethod
    def read(cls, item: Mapping[str, Any]) -> "Earned":
        """From an object of the file.

        Raises:
            KeyError, TypeError, ValueError: If it is not one.
        """
        return cls(
            seat=checked("seat", item["seat"], str),
            decoding=checked("decoding", item["decoding"], str),
            n=checked("n", item["n"], int),
            own_return=float(checked("own_return", item["own_return"], float)),
            team_reward=float(checked("team_reward", item["team_reward"], float)),
            solve_rate=float(checked("solve_rate", item["solve_rate"], float)),
            returns=tuple(float(checked("returns", one, float)) for one in item.get("returns", ())),
        )


@dataclass(frozen=True)
class BestResponse:
    """The best responses to one partner, one in each seat.

    Attributes:
        entry: Hash of the partner's entry and files, and of the task, when they were trained; see `entry_digest`.
        budget: What made them: `steps`, `episodes`, `seed`, `model`, `learning_rate`, `entropy_coef`.
        earned: What they earn.
    """

    entry: str
    budget: Mapping[str, Any]
    earned: tuple[Earned, ...]

    @classmethod
    def read(cls, item: Mapping[str, Any]) -> "BestResponse":
        """From an object of the file.

        Raises:
            KeyError, TypeError, ValueError: If it is not one.
        """
        budget = checked("budget", item["budget"], Mapping)
        if not all(isinstance(value, str | int | float) for value in budget.values()):
            raise ValueError("`budget` must hold texts and numbers alone")
        return cls(
            checked("entry", item["entry"], str), budget, tuple(Earned.read(one) for one in item["earned"])
        )  # fmt: skip


@dataclass(frozen=True)
class BestResponses:
    """The best responses to the partners of one roster.

    Attributes:
        task: Name of the task; of a file's, the file's name and its class.
        task_args: Its options.
        split: Split of the problems that they played.
        seed: Seed of those problems and of every reply's chance.
        problems: How many were asked for.
        ids: Ids of those that were played, in their order.
        partners: By the partner's name.
        unused: By the partner's name, why its best responses are not used; filled by `usable`.
    """

    task: str
    task_args: Mapping[str, Any]
    split: str
    seed: int
    problems: int
    ids: tuple[str, ...] = ()
    partners: Mapping[str, BestResponse] = field(default_factory=dict)
    unused: Mapping[str, str] = field(default_factory=dict)

    def earned(self, partner: str, seat: str, decoding: str) -> Earned | None:
        """What the best response to a partner earns; None if that is not known."""
        made = self.partners.get(partner)
        found = [one for one in made.earned if (one.seat, one.decoding) == (seat, decoding)] if made else []
        return found[0] if found else None

    @classmethod
    def read(cls, item: Mapping[str, Any]) -> "BestResponses":
        """From the object that a file holds.

        Raises:
            KeyError, TypeError, ValueError: If it is not one.
        """
        partners = checked("partners", item["partners"], Mapping)
        unused = checked("unused", item.get("unused", {}), Mapping)
        return cls(
            task=checked("task", item["task"], str),
            task_args=checked("task_args", item["task_args"], Mapping),
            split=checked("split", item["split"], str),
            seed=checked("seed", item["seed"], int),
            problems=checked("problems", item["problems"], int),
            ids=tuple(checked("ids", one, str) for one in item.get("ids", ())),
            partners={str(name): BestResponse.read(one) for name, one in partners.items()},
            unused={str(name): checked("unused", reason, str) for name, reason in unused.items()},
        )


def short_task(task: object) -> str:
    """A task's name without the folder of its file, which differs from machine to machine."""
    return str(task).rsplit("/", 1)[-1]


def read_best_responses(path: Path) -> BestResponses:
    """Read a file of best responses.

    Raises:
        BestResponseError: If it is missing, or not what `llm-sra best-response` writes.
    """
    if not path.is_file():
        raise BestResponseError(f"no {path}: expected a file that `llm-sra best-response` writes")
    try:
        return BestResponses.read(parse_json(read_text(path, LARGEST)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BestResponseError(
            f"{path} is not what `llm-sra best-response` writes: {type(error).__name__} {one_line(error)}"
        ) from error


def write_best_responses(path: Path, responses: BestResponses) -> None:
    """Write a file of best responses whole; its folder is made if missing.

    Raises:
        WriteError: If the disk does not take it.
    """
    text = to_json(asdict(responses), indent=1) + "\n"
    with writing("the best responses", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)


def find_best_responses(roster: str | Path | None, given: str | Path | None) -> BestResponses | None:
    """The best responses to a roster's partners: those that are named, else those beside it, if there are any.

    Raises:
        BestResponseError: If they cannot be used, or are named without a roster.
    """
    if given is not None:
        if roster is None:
            raise BestResponseError(f"{given} holds best responses to a roster's partners: name the roster, too")
        return read_best_responses(Path(given))
    if roster is None:
        return None
    try:
        beside = file_beside(roster, ENDING)
    except NoFileError:
        return None  # reading the roster says so
    return read_best_responses(beside) if beside.is_file() else None


def usable(
    found: BestResponses, task: Task, name: str, task_args: Mapping[str, Any] | None, entries: Sequence[Entry]
) -> BestResponses:
    """Those of the best responses that belong to this evaluation's partners, with the reason for each that does not.

    A warning says which are there but do not hold any more.

    Args:
        found: What a file holds.
        task: The task that is evaluated.
        name: Its name in the runs.
        task_args: Its options.
        entries: The roster's.
    """
    other = _other_task(found, name, task_args)
    unused = {}
    for entry in entries:
        if reason := other or _why_not(found, task, entry):
            unused[entry.name] = reason
    if other:
        logger.warning("the best responses beside the roster are not used: %s", other)
    else:
        _warn_of_stale({name: reason for name, reason in unused.items() if name in found.partners})
    names = [entry.name for entry in entries if entry.name not in unused]
    return replace(found, partners={one: found.partners[one] for one in names}, unused=unused)


def _warn_of_stale(unused: Mapping[str, str]) -> None:
    for reason in dict.fromkeys(unused.values()):
        names = [name for name, why in unused.items() if why == reason]
        logger.warning("best responses to %s are not used: %s", one_line(", ".join(names)), reason)


def _other_task(found: BestResponses, name: str, task_args: Mapping[str, Any] | None) -> str:
    ours, theirs = (short_task(name), dict(task_args or {})), (found.task, dict(found.task_args))
    if ours == theirs:
        return ""
    return f"made for task {theirs[0]} with options {theirs[1]}, this is {ours[0]} with {ours[1]}"


def _why_not(found: BestResponses, task: Task, entry: Entry) -> str:
    """Why a partner's best response is not used; empty if it is."""
    if entry.innermost.kind == "live":
        return LIVE
    if entry.name not in found.partners:
        return "none was trained"
    try:
        now = entry_digest(entry, task)
    except (OSError, ValueError, KeyError) as error:
        return f"the partner cannot be read now: {one_line(error)[:200]}"
    changed = "the partner's entry or files, or the task, changed since it was trained: run llm-sra best-response again"
    return "" if now == found.partners[entry.name].entry else changed
