"""SRPO in one file: two language-model agents that learn to stay useful with partners they have never met.

The paper is "Training Generalizable Collaborative Agents via Strategic Risk Aversion" (Qu et al., arXiv 2602.21515).
Read from top to bottom; it runs on a CPU: `python examples/srpo_loop.py --arm srpo`.

Agents that are trained together (`--arm ippo`) overfit to each other: where effort has a private cost, one of them
learns to rest, and with a partner that rests, too, the team fails. SRPO makes each agent, hero i, averse to what its
partner might do. In training an adversary phi_i sits in the partner's seat. With R_i the return of hero i, and pi_-i
its live partner, that is, the other hero as it is now:

    hero i           maximises  E[R_i] + eps H(pi_i)
    its adversary    maximises  E[-R_i] - (1/tau) KL(phi_i || pi_-i) + eps' H(phi_i)     (eps': the recipe's addition)

Both expectations are over episodes of the hero with its adversary, and both are updated every step from the same ones.
The KL is a tether: the adversary does what the live partner could be expected to do, not all that does harm. A small
tau is a short tether: as tau goes to 0 the adversary becomes the live partner, and SRPO becomes IPPO.

A step: `rollout` plays, `credit` says what each token is worth (`score`, `returns`, `advantages`), `update` learns. The
trainer (`llm_sra/trainer/`) gets the same advantages, losses and gradients: `tests/test_examples.py` compares them. It
alone has exact resume, micro-batches, several GPUs, vLLM, more seats, sampled partners with risk measures, PPO, the
KL's other direction and evaluation; it also keeps control tokens out of what agents say, which this file does not.
"""

import argparse
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer

from llm_sra.task import Outcome, Problem, ScriptedPartner
from tasks import worksheet

# The settings of recipes/worksheet/srpo.yaml. Returns, TAU and EPS are in units of the reward: a solved sheet pays 1.
TAU, EPS, ADVERSARY_EPS = 10.0, 0.01, 0.05
PROBLEMS, GROUP = 16, 8  # a step plays 16 problems 8 times each, shared by the matches: every arm has the same budget
MAX_TOKENS = 12  # of a reply; a line of the worksheet takes nine
UPDATES, CLIP = 2, 0.2  # optimizer steps on each rollout; how far a token's probability may move in them
LEARNING_RATE, ADVERSARY_LEARNING_RATE, MAX_GRAD_NORM = 4e-3, 6e-3, 1.0
LORA = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
BASE = Path(worksheet.__file__).parent / "models" / "pupil"  # a Qwen2 of 0.36 million parameters
TOKENIZER, TASK = AutoTokenizer.from_pretrained(BASE, padding_side="left"), worksheet.Worksheet()

# Who sits where: an adapter by its name, or a script. A hero's adapter has the name of its seat. So an adversary's
# live partner, the adapter that it is tethered to, has the name of the seat in which the adversary sits.
Match = Mapping[str, str | ScriptedPartner]
OF = "adversary-of-"
MATCHES: Mapping[str, Sequence[Mapping[str, str]]] = {
    "ippo": [{"first": "first", "second": "second"}],
    "srpo": [{"first": "first", "second": f"{OF}first"}, {"first": f"{OF}second", "second": "second"}],
}


class Turn(NamedTuple):
    """What one seat said at one turn: as text, and as tokens, those that it read and those that it sampled."""

    seat: str
    text: str
    prompt: list[int]
    reply: list[int]


class Episode(NamedTuple):
    """One problem played to its end; a seat's return is the sum of its rewards, private costs subtracted."""

    problem: str
    turns: list[Turn]
    returns: dict[str, float]
    outcome: Outcome


class Batch(NamedTuple):
    """What an adapter said in a step, N tokens in all, and what each of them is worth."""

    turns: list[Turn]
    old: Tensor  # (N,) log-probabilities before the update
    advantages: Tensor  # (N,) in units of the reward; an episode's tokens all have the same
    kl: float  # of an adversary to its live partner, in nats an episode; 0 for a hero


def load(adapters: Sequence[str]) -> tuple[PeftModel, torch.optim.Optimizer]:
    """One frozen base model, a LoRA adapter on it for each policy, and an optimizer with a group for each."""
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32), LORA, adapters[0])
    for adapter in adapters[1:]:
        model.add_adapter(adapter, LORA)  # a new adapter changes nothing yet
    groups = []
    for adapter in adapters:
        weights = [weight for name, weight in model.named_parameters() if f".{adapter}." in name]
        groups.append({"params": weights, "lr": ADVERSARY_LEARNING_RATE if adapter.startswith(OF) else LEARNING_RATE})
    return model, torch.optim.AdamW(groups, weight_decay=0.0)


@torch.no_grad()
def sample(model: PeftModel, adapter: str, seat: str, chats: Sequence[list[dict[str, str]]]) -> list[Turn]:
    """What an adapter says in a seat, one turn for each chat."""
    model.set_adapter(adapter)
    shape = {"add_generation_prompt": True, "padding": True, "return_dict": True, "return_tensors": "pt"}
    inputs = TOKENIZER.apply_chat_template(chats, **shape)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    ends = [TOKENIZER.eos_token_id, *TOKENIZER(TASK.stop[0], add_special_tokens=False)["input_ids"]]
    # Temperature 1 and no truncation: the loss takes log-probabilities under the distribution that was sampled from.
    how = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": MAX_TOKENS}
    output = model.generate(input_ids=ids, attention_mask=mask, eos_token_id=ends, **how)
    turns = []
    for prompt, there, reply in zip(ids, mask.bool(), output[:, ids.size(1) :].tolist(), strict=True):
        reply = reply[: next((i + 1 for i, token in enumerate(reply) if token in ends), None)]
        turns.append(Turn(seat, TOKENIZER.decode(reply, skip_special_tokens=True), prompt[there].tolist(), reply))
    return turns


def rollout(model: PeftModel, match: Match, problems: Sequence[Problem]) -> list[Episode]:
    """Play a match on every problem. Seats take turns, so each turn of all episodes is one batch of one policy."""
    rng = random.Random(0)  # for tasks and scripts that draw; neither the worksheet nor its lazy partner does
    states = [TASK.start(problem, rng) for problem in problems]
    turns: list[list[Turn]] = [[] for _ in problems]
    paid = [dict.fromkeys(TASK.seats, 0.0) for _ in problems]
    while seats := TASK.actors(states[0]):
        seat, policy = seats[0], match[seats[0]]
        chats = [[message.as_dict() for message in TASK.view(state, seat)] for state in states]
        if isinstance(policy, str):
            said = sample(model, policy, seat, chats)
        else:
            said = [Turn(seat, policy.reply(chat, rng), [], []) for chat in chats]
        for i, turn in enumerate(said):
            turns[i].append(turn)
            states[i], rewards = TASK.step(states[i], {seat: turn.text}, rng)
            paid[i] = {one: sofar + rewards[one].total for one, sofar in paid[i].items()}
    ended = zip(problems, turns, paid, states, strict=True)
    return [Episode(problem.id, said, sums, TASK.outcome(state)) for problem, said, sums, state in ended]


def score(model: PeftModel, adapter: str, turns: Sequence[Turn]) -> tuple[Tensor, Tensor]:
    """(N,) log-probabilities of what was said, token after token, and (N,) entropies of the adapter's choices there."""
    model.set_adapter(adapter)
    rows: list[list[int]] = []
    own: list[list[bool]] = []  # which tokens count: those that the seat sampled, not those that it read
    for turn in turns:
        if not rows or turn.prompt[: len(rows[-1])] != rows[-1]:
            rows.append([])
            own.append([])  # else the prompt goes on where the last reply ended: an episode is one sequence
        own[-1] += [False] * (len(turn.prompt) - len(rows[-1])) + [True] * len(turn.reply)
        rows[-1] = turn.prompt + turn.reply
    ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    said = pad_sequence([torch.tensor(row) for row in own], batch_first=True)
    mask = torch.arange(ids.size(1)) < torch.tensor([[len(row)] for row in rows])
    logits = model(input_ids=ids, attention_mask=mask.long()).logits[:, :-1]  # each predicts the next token
    logprobs = logits[said[:, 1:]].log_softmax(dim=-1)  # (N, vocabulary)
    return logprobs.gather(1, ids[said][:, None]).squeeze(1), -(logprobs.exp() * logprobs).sum(dim=1)


def returns(episodes: Sequence[Episode], adapter: str, kl: Tensor, tau: float) -> Tensor:
    """(E,) R_i for hero i, and -R_i - KL/tau for its adversary: the tether is part of its reward."""
    of_hero = torch.tensor([episode.returns[adapter.removeprefix(OF)] for episode in episodes])
    return -of_hero - kl / tau if adapter.startswith(OF) else of_hero


def advantages(returns: Tensor, group: int) -> Tensor:
    """(E,) return - mean return of its group: its neighbours, episodes of the same problem and match.

    Not divided by a standard deviation, as GRPO's are: eps and 1/tau would be multiples of it, which is another game.
    """
    groups = returns.view(-1, group)
    return (groups - groups.mean(dim=1, keepdim=True)).flatten()


@torch.no_grad()
def credit(model: PeftModel, match: Mapping[str, str], episodes: Sequence[Episode], group: int) -> dict[str, Batch]:
    """What each adapter of a match has to learn from its episodes, group after group."""
    batches = {}
    for seat, adapter in match.items():
        mine = [(i, turn) for i, episode in enumerate(episodes) for turn in episode.turns if turn.seat == seat]
        turns = [turn for _, turn in mine]
        episode_of = torch.tensor([i for i, turn in mine for _ in turn.reply])  # (N,)
        old, kl = score(model, adapter, turns)[0], torch.zeros(len(episodes))
        if adapter.startswith(OF):
            # KL(phi || pi) of an episode, estimated on the adversary's own samples (k1): the sum of log phi - log pi
            # over all tokens that it said in it. Both are scored here, on the same tokens after the same prompts.
            live = score(model, seat, turns)[0]
            kl = kl.index_add(0, episode_of, old - live)
        worth = advantages(returns(episodes, adapter, kl, TAU), group)
        batches[adapter] = Batch(turns, old, worth[episode_of], kl.mean().item())
    return batches


def loss(logprobs: Tensor, entropies: Tensor, old: Tensor, advantages: Tensor, eps: float) -> Tensor:
    """PPO's clipped objective and the entropy bonus, of (N,) tensors, to be minimised.

    Both are means over the adapter's tokens (TRL's `dapo`): with one divisor eps stays in units of the reward.
    """
    ratio = (logprobs - old).exp()
    clipped = torch.minimum(ratio * advantages, ratio.clamp(1 - CLIP, 1 + CLIP) * advantages)
    return -(clipped + eps * entropies).mean()


def update(model: PeftModel, optimizer: torch.optim.Optimizer, batches: Mapping[str, Batch]) -> dict[str, float]:
    """Update all adapters `UPDATES` times, heroes and adversaries alike; returns the losses of the last time."""
    losses = {}
    for _ in range(UPDATES):
        for adapter, batch in batches.items():
            logprobs, entropies = score(model, adapter, batch.turns)
            eps = ADVERSARY_EPS if adapter.startswith(OF) else EPS
            value = loss(logprobs, entropies, batch.old, batch.advantages, eps)
            value.backward()  # type: ignore[no-untyped-call]
            losses[adapter] = value.item()
        for one in optimizer.param_groups:  # a norm for each adapter: one over all would couple the agents
            torch.nn.utils.clip_grad_norm_(one["params"], MAX_GRAD_NORM)
        optimizer.step()
        optimizer.zero_grad()
    return losses


def main() -> None:
    """Train both agents; show how they do together, and each with a partner that never works."""
    parser = argparse.ArgumentParser(description="SRPO, or IPPO, in one file.")
    parser.add_argument("--arm", choices=MATCHES, default="srpo")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    rng, matches = random.Random(options.seed), MATCHES[options.arm]
    model, optimizer = load([adapter for match in matches for adapter in match.values()])
    for step in range(1, options.steps + 1):
        batches: dict[str, Batch] = {}
        played: list[Episode] = []
        for match in matches:
            problems = rng.sample(TASK.problems("train"), PROBLEMS // len(matches))
            episodes = rollout(model, match, [problem for problem in problems for _ in range(GROUP)])
            batches |= credit(model, match, episodes, GROUP)
            played += episodes
        update(model, optimizer, batches)
        solved, last = fmean(episode.outcome.solved for episode in played), played[-1]
        nats = ", ".join(f"{batch.kl:.2f}" for adapter, batch in batches.items() if adapter.startswith(OF)) or "-"
        talk = "; ".join(f"{match[turn.seat]}: {turn.text}" for turn in last.turns)
        print(f"step {step:3} | solved {solved:.2f} | kl {nats} | {last.problem} | {talk}", flush=True)
    lazy = TASK.partners["lazy"]()
    for first, second in (("first", "second"), ("first", lazy), (lazy, "second")):
        episodes = rollout(model, {"first": first, "second": second}, TASK.problems("test", 64))
        title = " with ".join(who if isinstance(who, str) else "lazy" for who in (first, second))
        lines = ", ".join(f"{seat} {fmean(e.outcome.effort[seat] for e in episodes):.1f}" for seat in TASK.seats)
        print(f"{title:17} | solved {fmean(e.outcome.solved for e in episodes):.2f} | lines written: {lines}")


if __name__ == "__main__":
    main()
