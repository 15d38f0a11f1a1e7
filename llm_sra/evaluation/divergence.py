"""How far a partner is from the training partner: the KL divergence, estimated from what the partner said.

The training partner is whom an agent was trained with: the run's own agents in the other seats. Both probabilities are
of the same tokens after the same prompt, among the same choices; the training partner's is at temperature 1, as in
sampled evaluations.
"""

from collections.abc import Mapping, Sequence

from llm_sra.engines import Engine, EngineError
from llm_sra.engines.transformers import TransformersEngine
from llm_sra.evaluation.matches import Cell, seated
from llm_sra.partners.rosters import SELF_PLAY
from llm_sra.policies import EnginePolicy, Policy, Wrapper
from llm_sra.task import Episode, Task, Turn

TrainingPartners = Mapping[str, EnginePolicy]  # by seat, whom an agent was trained with


def comparable(policy: Policy, training_partner: EnginePolicy) -> bool:
    """Whether a policy draws its tokens from the training partner's model, so that both give them a probability."""
    if isinstance(policy, Wrapper):
        return policy.keeps_tokens and comparable(policy.inner, training_partner)
    return isinstance(policy, EnginePolicy) and policy.engine == training_partner.engine


def training_partners(cell: Cell) -> TrainingPartners | None:
    """The training partner in each of the partner's seats where the two can be compared.

    None for greedy play and self-play, in which nothing is compared.
    """
    if cell.decoding != "sampled" or cell.partner == SELF_PLAY:
        return None
    own = seated(cell.team)
    others = (seat for seat in own if seat != cell.seat)
    return {seat: own[seat] for seat in others if comparable(cell.match.seats[seat], own[seat])}


def divergences(
    task: Task, episodes: Sequence[Episode], compared: Sequence[TrainingPartners], engines: Mapping[str, Engine]
) -> list[dict[str, float]]:
    """KL(partner ‖ training partner) of each episode's partners, from the one sample that the episode is.

    The k1 estimator: Σ log p(token) - log q(token) over all that a partner said, in nats; its mean over episodes is
    the KL of whole episodes' replies. A partner that was sampled at another temperature counts as another policy.

    Args:
        task: Has the choices, if there are any.
        episodes: Sampled ones; a greedy reply has no probability.
        compared: For each episode, the training partners by seat; seats that are not named are left out.
        engines: By name; they must run on weights in this process.

    Returns:
        For each episode, nats by seat.

    Raises:
        EngineError: If an engine runs elsewhere.
    """
    found: list[dict[str, float]] = [{seat: 0.0 for seat in partners} for partners in compared]
    todo: dict[tuple[str, str | None, tuple[str, ...]], list[tuple[int, Turn]]] = {}
    for i, (episode, partners) in enumerate(zip(episodes, compared, strict=True)):
        for seat, policy in partners.items():
            for turn in episode.turns_of(seat):
                if turn.reply.token_ids:
                    todo.setdefault((policy.engine, policy.adapter, task.choices_of(seat)), []).append((i, turn))
    for (name, adapter, words), turns in todo.items():
        engine = engines[name]
        if not isinstance(engine, TransformersEngine):
            raise EngineError("a divergence needs the model in this process: --engine transformers")
        choices = engine.renderer.single_tokens(words)
        said = [(turn.prompt_ids, turn.reply.token_ids) for _, turn in turns]
        for (i, turn), logprob in zip(turns, engine.logprobs(said, adapter, choices), strict=True):
            found[i][turn.seat] += sum(turn.reply.logprobs) - logprob
    return found
