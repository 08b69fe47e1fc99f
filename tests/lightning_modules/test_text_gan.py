"""The GAN of text: likelihood by hand, draws by the probabilities they have, rewards of beginnings, soft tokens."""

import pytest
import torch
import torch.nn.functional as F

from lightning_modules.shared.decoding import END, PAD, START
from lightning_modules.shared.line_generator import LineGenerator, pick
from lightning_modules.text_gan import ConvolutionalReader, RecurrentReader, TextGAN, advantages, rewards  # fmt: skip


@pytest.fixture
def generator():
    torch.manual_seed(0)
    network = LineGenerator(9, 4, 5, ends=True)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_()
    return network


def test_likelihood_is_the_sum_over_places_of_what_a_step_says(generator):
    lines = torch.tensor([[5, 6, END, PAD], [8, 8, 7, 5]])
    (token, state), expected = generator.start(2), []
    for place in range(4):
        logits, state = generator.step(generator.embedding(token), state)
        token = lines[:, place]
        expected.append(-logits.log_softmax(dim=1)[torch.arange(2), token])
    expected = torch.stack(expected, dim=1).masked_fill(lines == PAD, 0.0)
    assert torch.allclose(generator.nlls(lines), expected, atol=1e-5)
    assert generator.nll(lines).item() == pytest.approx(expected.sum().item() / 7, rel=1e-5)


def test_what_is_drawn_comes_as_often_as_it_is_likely(generator):
    lines = generator.draw(20_000, 3)
    token, state = generator.start(1)
    logits, state = generator.step(generator.embedding(token), state)
    expected = logits.softmax(dim=1)[0]
    assert torch.allclose(lines[:, 0].bincount(minlength=9) / 20_000, expected, atol=0.015)
    likeliest = int(expected.argmax())
    logits, _ = generator.step(generator.embedding(torch.tensor([likeliest])), state)
    after = lines[lines[:, 0] == likeliest, 1].bincount(minlength=9).float()
    if likeliest != END:
        assert torch.allclose(after / after.sum(), logits.softmax(dim=1)[0], atol=0.03)
    assert not ((lines == START) | (lines == 1)).any()
    behind_end = (lines[:, :-1] == END) | (lines[:, :-1] == PAD)
    assert (lines[:, 1:][behind_end] == PAD).all() and (lines[:, 1:][~behind_end] != PAD).all()


def test_a_line_of_an_oracle_never_ends():
    network = LineGenerator(9, 4, 5, ends=False)
    assert not ((network.draw(2000, 4) == END) | (network.draw(2000, 4) == PAD)).any()


def test_draws_are_decided_by_their_generator(generator):
    seeded = [generator.draw(5, 6, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(seeded[0], seeded[1]) and not torch.equal(seeded[0], seeded[2])
    cold = generator.draw(50, 6, temperature=1e-3)
    assert (cold == cold[0]).all()


def test_both_ways_to_pick_follow_the_probabilities():
    logits = torch.tensor([0.1, 0.2, 0.7]).log().repeat(30_000, 1)
    for generator in (None, torch.Generator().manual_seed(0)):
        shares = pick(logits, generator).bincount(minlength=3) / 30_000
        assert torch.allclose(shares, torch.tensor([0.1, 0.2, 0.7]), atol=0.01)


def test_a_token_is_worth_what_follows_from_it(generator):
    """With a reader that counts one token, worth can be worked out: what stands there, and what is to be expected."""
    torch.manual_seed(1)
    wanted = 6
    lines = torch.tensor([[5, 6, 6, 7], [8, 5, 7, 8], [6, 5, END, PAD]])

    def counts(some):
        return (some == wanted).sum(dim=1).float()

    worth = rewards(generator, counts, lines, num_rollouts=4000)
    assert torch.equal(worth[:, -1], counts(lines))
    assert worth[2, 2:].tolist() == [1.0, 1.0]  # the line has ended: nothing follows
    # After three tokens one more is drawn: expected is what stands there and the probability of the wanted one.
    (token, state) = generator.start(2)
    for place in range(3):
        _, state = generator.step(generator.embedding(token), state)
        token = lines[:2, place]
    logits, _ = generator.step(generator.embedding(token), state)
    expected = counts(lines[:2, :3]) + logits.softmax(dim=1)[:, wanted]
    assert torch.allclose(worth[:2, 2], expected, atol=0.03)
    # And after one token, by a count of all ways to go on.
    ways = torch.cartesian_prod(*[torch.arange(9)] * 3)
    whole = torch.cat([lines[:1, :1].repeat(len(ways), 1), ways], dim=1)
    ended = ((whole == END).cumsum(dim=1) - (whole == END).long()) > 0
    valid = ((whole == PAD) == ended).all(dim=1) & (whole != 1).all(dim=1)
    whole = whole[valid]
    chance = (-generator.nlls(whole)[:, 1:].sum(dim=1)).exp()
    assert chance.sum().item() == pytest.approx(1.0, abs=1e-4)
    assert worth[0, 0].item() == pytest.approx((chance * counts(whole)).sum().item(), abs=0.04)


def test_a_token_s_advantage_is_what_it_adds():
    reward = torch.tensor([[0.2, 0.5, 0.5], [0.6, 0.3, 0.4]])
    inside = torch.tensor([[True, True, False], [True, True, True]])
    plain = torch.tensor([[-0.2, 0.3, 0.0], [0.2, -0.3, 0.1]])
    expected = plain / (plain.square().sum() / 5).sqrt()
    assert torch.allclose(advantages(reward, inside), expected, atol=1e-6)


def test_soft_tokens_are_one_hot_when_cold_and_carry_the_gradient(generator):
    torch.manual_seed(0)
    soft = generator.draw_soft(6, 4, temperature=1e-2)
    assert soft.shape == (6, 4, 9) and torch.allclose(soft.sum(dim=2), torch.ones(6, 4), atol=1e-5)
    assert soft.amax(dim=2).mean() > 0.95
    generator.zero_grad()
    (generator.draw_soft(6, 4, 1.0) * torch.arange(9)).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in generator.parameters())


@pytest.mark.parametrize("kind", [ConvolutionalReader, RecurrentReader])
def test_a_reader_takes_hard_and_soft_tokens_alike(kind):
    reader = kind(9, 4, (1, 2, 3), 5, 0.0).eval()
    lines = torch.randint(4, 9, (3, 6))
    assert torch.allclose(reader(lines), reader(F.one_hot(lines, 9).float()), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"filter_widths": (7,)}, "model.filter_widths: expected widths from 1 to the 6 tokens of a line"),
        ({"num_rollouts": 0}, "model.num_rollouts: expected at least 1"),
        ({"temperature": 0.0}, "model.temperature: expected more than 0"),
        ({"pretrain_epochs": -1}, "model.pretrain_epochs: expected at least 0"),
        ({"discriminator_dropout": 1.0}, "model.discriminator_dropout: expected a fraction"),
    ],
)
def test_values_out_of_range_are_refused(options, fault):
    with pytest.raises(ValueError, match=fault):
        TextGAN(9, 6, True, **options)
