"""`llm-sra warm-start`: teach an adapter a task's replies by scripted play, as a start that all arms share.

Supervised learning by TRL's SFTTrainer. A training takes the adapter as its `initial_adapter`. With `--episodes` it is
taught what people said, as a partner that stands for them: the field's human proxy, by behavioural cloning.
"""

import argparse
import json
import random
import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.commands.train_help import takes_fields
from recipes.fields import check_early

if TYPE_CHECKING:
    from llm_sra.models.renderer import Renderer
    from llm_sra.task import Episode, Message, Task

IGNORED = -100
EPISODES = 64  # that are played at a time


def main(argv: Sequence[str] | None = None) -> Path:
    """Play, teach, and write the adapter.

    Args:
        argv: Arguments of the command line without the program's name; those of this process if None.

    Returns:
        The adapter's folder.

    Raises:
        AdapterError: If the initial adapter cannot be loaded, or is one of another base.
        ConfigError: If the recipe or a flag cannot be used.
        UserError: If the task has no such partner, the file no such person, or the folder holds something already.
    """
    args, flags = parser().parse_known_args(argv)
    _check(args)
    check_early(args.config, flags)  # before the imports below, which take seconds
    from trl import get_peft_config

    from llm_sra.errors import UserError
    from llm_sra.models.adapters import save_adapters
    from llm_sra.models.loading import load_model
    from llm_sra.models.renderer import Renderer
    from llm_sra.registry import load_task
    from llm_sra.trainer.explain import options_for
    from llm_sra.trainer.parse import parse

    model_args, config = parse(args.config, flags)
    assert not isinstance(config.task_args, str)
    if model_args.seat_models:
        raise UserError(
            "a warm start teaches one model, but seat_models names one for each seat: make a folder for each of them, "
            "with --seat_models '{}' --model_name_or_path MODEL; initial_adapter may have {seat} in its path"
        )
    options = options_for(config.task, config.task_args, [str(model_args.model_name_or_path)])
    task = load_task(config.task, options)
    said = _said(args.episodes, type(task).__name__, args.who) if args.episodes else []
    partners = [] if said else _partners(task, args.partners)
    base, tokenizer = load_model(
        model_args.model_name_or_path,
        dtype=model_args.dtype,
        revision=model_args.model_revision,
        trust_remote_code=config.trust_remote_code,
    )
    renderer = Renderer.of(tokenizer, vars(config))
    examples = _of_people(said, renderer, config.seed) if said else _examples(task, partners, renderer, config.seed)
    rows = list(islice(examples, args.steps * args.batch))
    lora: Any = get_peft_config(model_args)
    if model_args.initial_adapter:
        base, lora = _continued(base, Path(model_args.initial_adapter)), None
    base = _teach(base, tokenizer, rows, lora, config, args)
    save_adapters(base, args.out)
    whom: dict[str, Any] = {"people": args.who or "all", "replies": len(said)} if said else {"partners": partners}
    if model_args.initial_adapter:
        whom["initial_adapter"] = model_args.initial_adapter
    _keep_facts(args.out, base.get_base_model(), {"task": config.task, "task_args": options, **whom}, args)
    if said:
        print(f"taught:  {args.out}, {len(rows)} times one of {len(said)} replies of people")
        print(f"next:    a roster with {{name: proxy, kind: adapter, policy: {args.out}}}")
    else:
        print(f"taught:  {args.out}, {len(rows)} replies of {', '.join(partners)}")
        print(f"next:    llm-sra train --initial_adapter {args.out}, with the same model and LoRA options")
    return Path(args.out)


def parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(
        "llm-sra warm-start",
        description="Teach a LoRA adapter the replies of a task's scripted partners, as a start that all arms share: "
        "`llm-sra train --initial_adapter FOLDER`. Or what people said, as a partner that stands for them.",
        epilog="Further arguments are fields of a training: --task, --task_args, --model_name_or_path, --lora_r, "
        "--seed, --initial_adapter (an adapter that is taught further). --help-all lists all.",
    )
    takes_fields(parser)
    parser.add_argument("--config", help="recipe whose task, model and LoRA options are taken")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="new folder of the adapter")
    parser.add_argument("--steps", type=int, default=50, help="optimizer steps (default %(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="replies a step (default %(default)s)")
    parser.add_argument("--learning_rate", type=float, default=2e-4, help="falls linearly to 0 (default %(default)s)")
    parser.add_argument(
        "--partners",
        nargs="+",
        metavar="NAME",
        help="scripted partners, one drawn for each seat of an episode (default: the task's first one and the one that "
        "rests)",
    )
    parser.add_argument(
        "--episodes", type=Path, metavar="FILE",
        help="teach what people said instead: a file of `llm-sra play --keep` or `llm-sra table --keep`",
    )  # fmt: skip
    parser.add_argument("--who", metavar="NAME", help="with --episodes: only this person (default: all)")
    return parser


def _check(args: argparse.Namespace) -> None:
    """Refuse numbers that cannot be, flags without effect, and a folder that is in use."""
    from llm_sra.errors import UserError

    if args.steps < 1 or args.batch < 1:
        raise UserError(f"--steps and --batch must be 1 or more, got {args.steps} and {args.batch}")
    if args.episodes and args.partners:
        raise UserError("--episodes teaches what people said, --partners what scripts say: leave one out")
    if args.who and not args.episodes:
        raise UserError("--who is a person of --episodes FILE: add it")
    if args.out.exists() and any(args.out.iterdir()):
        raise UserError(f"{args.out} is not empty: name a new folder")


def _said(path: Path, task: str, who: str | None) -> "list[tuple[tuple[Message, ...], str]]":
    """What people saw and said, in the order in which it was kept.

    Raises:
        UserError: If the file cannot be read, holds another task's episodes, or nothing that the person said.
    """
    from llm_sra.episodes.people import check_task, read_people
    from llm_sra.errors import UserError

    try:
        episodes = read_people(path)
        check_task(path, episodes, task)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot learn from the episodes in {path}: {error}") from error
    said = [(view, turn.text) for one in episodes for _, turn, view in one.turns(who)]
    if not said:
        people = sorted({person for one in episodes for person in one.people.values()})
        raise UserError(f"{path} holds nothing that {who or 'people'} said; there are: {', '.join(people) or 'none'}")
    return said


def _of_people(
    said: "Sequence[tuple[tuple[Message, ...], str]]", renderer: "Renderer", seed: int
) -> Iterator[dict[str, list[int]]]:
    """What people saw and said, again and again, each time in another order."""
    rng = random.Random(f"people {seed}")
    while True:
        for view, text in rng.sample(said, len(said)):
            yield _row(view, text, renderer)


def _row(view: "Sequence[Message]", text: str, renderer: "Renderer") -> dict[str, list[int]]:
    """A prompt as agents see it in training, and what was said to it, ended as a turn ends."""
    end = renderer.ends.ids[:1] or (renderer.tokenizer.eos_token_id,)
    prompt, reply = list(renderer.render(view)), [*renderer.encode_text(text), *end]
    return {"input_ids": prompt + reply, "labels": [IGNORED] * len(prompt) + reply}


def _partners(task: "Task", names: Sequence[str] | None) -> list[str]:
    """The partners that are asked for; by default one that works and the one that rests, so that both are learnt."""
    from llm_sra.errors import UserError

    if not task.partners:
        raise UserError("a warm start needs a task with scripted partners, and this one names none in `partners`")
    chosen = list(dict.fromkeys(names or [next(iter(task.partners)), *([task.idle] if task.idle else [])]))
    if unknown := [name for name in chosen if name not in task.partners]:
        raise UserError(f"the task has no partner {unknown[0]!r}; there are: {', '.join(task.partners)}")
    return chosen


def _episodes(task: "Task", partners: Sequence[str], seed: int) -> Iterator["Episode"]:
    """Episodes of the train split without end, a partner drawn for each seat."""
    from llm_sra.playing import EpisodeSpec, play
    from llm_sra.policies import Match, Scripted

    rng = random.Random(f"warm start {seed}")
    problems = list(task.problems("train", None, seed))
    first = 0
    while True:
        specs = []
        for index in range(first, first + EPISODES):
            drawn = {seat: rng.choice(partners) for seat in task.seats}
            seated = {seat: Scripted(name, task.partners[name]()) for seat, name in drawn.items()}
            specs.append(EpisodeSpec(problems[index % len(problems)], Match(f"scripted {index}", seated)))
        yield from play(task, specs, {}, seed=seed)
        first += EPISODES


def _examples(task: "Task", partners: Sequence[str], renderer: "Renderer", seed: int) -> Iterator[dict[str, list[int]]]:
    """What partners saw and said."""
    rng = random.Random(f"replies {seed}")
    for episode in _episodes(task, partners, seed):
        turn = rng.choice(episode.turns)  # one of each episode: its turns are much alike
        yield _row(turn.view, turn.reply.text, renderer)


def _continued(base: Any, folder: Path) -> Any:
    """The base with a saved adapter that is taught further.

    Raises:
        AdapterError: If the folder holds no adapter of this base that can be loaded.
    """
    from peft import PeftModel

    from llm_sra.models.adapter_files import check_base, fingerprint, read_adapter_config, read_weights

    config = read_adapter_config(folder)
    check_base(folder, fingerprint(base), base.name_or_path)
    read_weights(folder, config)  # refuses what is damaged
    return PeftModel.from_pretrained(base, str(folder), is_trainable=True)


def _teach(base: Any, tokenizer: Any, rows: list[dict[str, list[int]]], lora: Any, config: Any, args: Any) -> Any:
    """The model with the adapter, a new one if there are LoRA settings, after one pass over the rows."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    with tempfile.TemporaryDirectory() as scratch:
        how = SFTConfig(
            output_dir=scratch,
            max_steps=args.steps,
            per_device_train_batch_size=args.batch,
            learning_rate=args.learning_rate,
            lr_scheduler_type="linear",
            seed=config.seed,
            use_cpu=config.use_cpu,
            bf16=config.bf16,
            gradient_checkpointing=config.gradient_checkpointing,
            max_length=None,
            logging_steps=10,
            save_strategy="no",
            report_to="none",
            disable_tqdm=config.disable_tqdm,
        )
        trainer = SFTTrainer(
            base, how, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, peft_config=lora
        )
        trainer.train()
    return trainer.model


def _keep_facts(folder: Path, base: Any, taught: dict[str, Any], args: Any) -> None:
    """Write beside the adapter what it was taught, and on which base."""
    from llm_sra.models.adapters import CARD, fingerprint

    facts = {"warm_start": {**taught, "steps": args.steps, "batch": args.batch, "learning_rate": args.learning_rate}}
    text = json.dumps({"base_fingerprint": fingerprint(base), **facts}, indent=1)
    (folder / CARD).write_text(text, encoding="utf-8")
