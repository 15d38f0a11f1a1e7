"""How far a partner is from the one that an agent was trained beside: KL, from what the partner said.

Both probabilities are of the same tokens after the same words, among the same choices; the usual partner's is at
temperature 1, as in sampled evaluations.
"""

from collections.abc import Mapping, Sequence

from llm_sra.engines import Engine, EngineError
from llm_sra.engines.transformers import TransformersEngine
from llm_sra.evaluation.matches import Cell, seated
from llm_sra.partners.rosters import SELF_PLAY
from llm_sra.policies import EnginePolicy, Policy, Wrapper
from llm_sra.task import Episode, Task, Turn

Usual = Mapping[str, EnginePolicy]  # by seat, the policy that an agent was trained beside there


def comparable(policy: Policy, usual: EnginePolicy) -> bool:
    """Whether a policy draws its tokens from the model that the usual partner has, so that both give them a chance."""
    if isinstance(policy, Wrapper):
        return policy.keeps_tokens and comparable(policy.inner, usual)
    return isinstance(policy, EnginePolicy) and policy.engine == usual.engine


def usual_partners(cells: Sequence[Cell]) -> dict[int, Usual]:
    """By the `id` of a match, who sat in the partner's seats when the agent was trained, if they can be compared.

    Greedy cells and self-play have none.
    """
    found: dict[int, Usual] = {}
    for cell in cells:
        if cell.decoding == "sampled" and cell.partner != SELF_PLAY:
            own = seated(cell.agents)
            others = (seat for seat in own if seat != cell.seat)
            found[id(cell.match)] = {s: own[s] for s in others if comparable(cell.match.seats[s], own[s])}
    return found


def divergences(
    task: Task, episodes: Sequence[Episode], usual: Sequence[Usual], engines: Mapping[str, Engine]
) -> list[dict[str, float]]:
    """KL(partner ‖ usual partner) of each episode's partners, from the one sample that the episode is.

    The k1 estimator: Σ log p(token) - log q(token) over all that a partner said, in nats; its mean over episodes is
    the KL of whole episodes' replies. What was drawn at another temperature is a partner of its own.

    Args:
        task: Has the choices, if there are any.
        episodes: Sampled ones; a greedy reply has no chance to speak of.
        usual: For each episode, whom to compare with, by seat; seats that are not named are left out.
        engines: By name; they must run on weights that are here.

    Returns:
        For each episode, nats by seat.

    Raises:
        EngineError: If an engine runs elsewhere.
    """
    found: list[dict[str, float]] = [{seat: 0.0 for seat in whom} for whom in usual]
    todo: dict[tuple[str, str | None], list[tuple[int, Turn]]] = {}
    for i, (episode, whom) in enumerate(zip(episodes, usual, strict=True)):
        for seat, policy in whom.items():
            for turn in episode.turns_of(seat):
                if turn.reply.token_ids:
                    todo.setdefault((policy.engine, policy.adapter), []).append((i, turn))
    for (name, adapter), turns in todo.items():
        engine = engines[name]
        if not isinstance(engine, TransformersEngine):
            raise EngineError("a divergence needs the model in this process: --engine transformers")
        choices = engine.renderer.single_tokens(task.choices)
        said = [(turn.prompt_ids, turn.reply.token_ids) for _, turn in turns]
        for (i, turn), logprob in zip(turns, engine.logprobs(said, adapter, choices), strict=True):
            found[i][turn.seat] += sum(turn.reply.logprobs) - logprob
    return found
