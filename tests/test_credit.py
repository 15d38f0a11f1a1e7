import math

import pytest
import torch

from llm_sra.objectives import exact_tether, group_advantages, groups_without_variance, tethered_return


def test_advantages_are_returns_less_the_mean_of_their_own_group() -> None:
    returns = torch.tensor([[1.0, 0.0, 0.5], [-0.3, -0.3, 0.9]])
    # Means: (1 + 0 + 0.5) / 3 = 0.5 and (-0.3 - 0.3 + 0.9) / 3 = 0.1; nothing is divided by.
    expected = torch.tensor([[0.5, -0.5, 0.0], [-0.4, -0.4, 0.8]])
    assert torch.allclose(group_advantages(returns), expected, atol=1e-6)


def test_group_scaling_divides_each_group_by_its_own_standard_deviation() -> None:
    returns = torch.tensor([[3.0, 1.0, 2.0], [10.0, 30.0, 20.0]])
    # Sample standard deviations: sqrt((1 + 1 + 0) / 2) = 1 and sqrt((100 + 100 + 0) / 2) = 10, plus 1e-4.
    expected = torch.tensor([[1 / 1.0001, -1 / 1.0001, 0.0], [-10 / 10.0001, 10 / 10.0001, 0.0]])
    assert torch.allclose(group_advantages(returns, "group"), expected, atol=1e-6)


def test_batch_scaling_divides_all_groups_by_the_same_number() -> None:
    returns = torch.tensor([[1.0, 0.0], [5.0, 1.0]])
    # Centred: 0.5, -0.5, 2, -2; over 4 + 1e-4.
    expected = torch.tensor([[0.5, -0.5], [2.0, -2.0]]) / 4.0001
    assert torch.allclose(group_advantages(returns, "batch", batch_std=4.0), expected, atol=1e-7)


def test_the_three_scalings_differ() -> None:
    returns = torch.tensor([[1.0, 0.0], [5.0, 1.0]])
    none, group, batch = (group_advantages(returns, scale, 4.0) for scale in ("none", "group", "batch"))
    assert (none - group).abs().max() > 0.1
    assert (none - batch).abs().max() > 0.1
    assert (group - batch).abs().max() > 0.1


def test_a_group_without_variance_gives_zero_under_every_scaling() -> None:
    returns = torch.full((1, 4), 0.7)
    for scale in ("none", "group", "batch"):
        assert group_advantages(returns, scale, batch_std=0.0).abs().max() < 1e-3


@pytest.mark.parametrize("shape", [(4,), (3, 1), (2, 2, 2)])
def test_returns_that_are_no_groups_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shape"):
        group_advantages(torch.zeros(shape))


def test_batch_scaling_without_its_number_is_refused() -> None:
    with pytest.raises(ValueError, match="whole batch"):
        group_advantages(torch.zeros(1, 2), "batch")


def test_share_of_groups_from_which_nothing_can_be_learned() -> None:
    # Two of four: the third spreads by 0.01, the fourth by 1.
    returns = torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.5, 0.51], [0.0, 1.0]])
    assert groups_without_variance(returns) == 0.5


def test_an_adversary_gets_minus_the_heros_return_less_its_divergence_over_tau() -> None:
    hero = torch.tensor([1.0, -0.3, 0.0])
    adversary = torch.tensor([-2.0, -5.0, -3.0])  # log probabilities, in nats
    partner = torch.tensor([-4.0, -5.0, -1.0])
    # -1 - (-2 + 4) / 2 = -2;  0.3 - 0 / 2 = 0.3;  0 - (-3 + 1) / 2 = +1
    assert torch.allclose(tethered_return(hero, adversary, partner, 2.0), torch.tensor([-2.0, 0.3, 1.0]))


def test_a_larger_tau_is_a_weaker_tether() -> None:
    # Twice as likely under the adversary as under the partner: log 2 nats. Returned: -(log 2) / tau.
    costs = [-tethered_return(torch.zeros(()), torch.tensor(math.log(2)), torch.zeros(()), t) for t in (0.1, 1.0, 10.0)]
    assert torch.allclose(torch.stack(costs), torch.tensor([6.93147, 0.693147, 0.0693147]), rtol=1e-5)


@pytest.mark.parametrize("tau", [0.0, -1.0])
def test_there_is_no_adversary_without_risk_aversion(tau: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        tethered_return(torch.zeros(1), torch.zeros(1), torch.zeros(1), tau)


def logits_of(*probabilities: float) -> torch.Tensor:
    """(1, 1, V); shifted, since logits are only known up to a constant."""
    return torch.tensor(probabilities).log().view(1, 1, -1) + 3.0


def test_the_exact_tether_is_the_divergence_from_partner_to_adversary() -> None:
    # KL(π ‖ φ) = 0.5 log(0.5 / 0.25) + 0.5 log(0.5 / 0.75) = 0.5 log(4 / 3) = 0.14384
    # The other direction, 0.25 log(0.25 / 0.5) + 0.75 log(0.75 / 0.5) = 0.13081, is another number.
    kl = exact_tether(partner_logits=logits_of(0.5, 0.5), adversary_logits=logits_of(0.25, 0.75))
    assert kl.shape == (1, 1)
    assert kl.item() == pytest.approx(0.5 * math.log(4 / 3), abs=1e-6)


def test_half_of_a_certain_partners_mass_costs_log_two() -> None:
    kl = exact_tether(partner_logits=logits_of(1.0 - 1e-9, 1e-9), adversary_logits=logits_of(0.5, 0.5))
    assert kl.item() == pytest.approx(math.log(2), abs=1e-6)


def test_the_exact_tether_is_zero_at_the_partner_and_pulls_the_adversary_alone() -> None:
    partner, adversary = logits_of(0.5, 0.5).requires_grad_(), logits_of(0.25, 0.75).requires_grad_()
    assert exact_tether(partner, partner).item() == pytest.approx(0.0, abs=1e-7)
    exact_tether(partner, adversary).sum().backward()
    assert partner.grad is None
    # d KL / d logits of φ = φ - π: descending it takes mass from the token of which φ has too much.
    assert torch.allclose(adversary.grad, torch.tensor([[[-0.25, 0.25]]]), atol=1e-6)
