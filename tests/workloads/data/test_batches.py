"""Who sees which example when: by example ids."""

import itertools

import pytest
import torch

from workloads.data._batches import Batches, InMemory, plan_epoch


def ids(num_examples):
    return InMemory({"id": torch.arange(num_examples)})


def epoch(batches):
    return [batch["id"].tolist() for batch in batches]


def test_an_epoch_holds_every_example_once_in_batches_of_like_size():
    plan = plan_epoch(103, 10, seed=0, epoch=0, shuffle=True)
    assert sorted(torch.cat(plan).tolist()) == list(range(103))
    assert {len(batch) for batch in plan} == {9, 10}


def test_order_depends_on_seed_and_epoch_alone():
    first, again = Batches(ids(50), 8, seed=3, shuffle=True), Batches(ids(50), 8, seed=3, shuffle=True)
    torch.manual_seed(1)
    a = epoch(first)
    torch.manual_seed(2)
    assert epoch(again) == a
    assert epoch(first) != a
    assert epoch(Batches(ids(50), 8, seed=4, shuffle=True)) != a


@pytest.mark.parametrize("stop_after", [1, 3, 6])
def test_a_resumed_epoch_is_that_of_an_uninterrupted_run(stop_after):
    whole = Batches(ids(50), 8, seed=3, shuffle=True)
    log = [epoch(whole) for _ in range(3)]

    stopped = Batches(ids(50), 8, seed=3, shuffle=True)
    seen = [epoch(stopped)]
    iterator = iter(stopped)
    part = [next(iterator)["id"].tolist() for _ in range(stop_after)]
    state = stopped.state_dict()

    resumed = Batches(ids(50), 8, seed=3, shuffle=True)
    resumed.load_state_dict(state)
    seen += [part + epoch(resumed), epoch(resumed)]
    assert seen == log


def test_a_loader_saved_at_the_end_of_an_epoch_goes_on_with_the_next():
    whole = Batches(ids(20), 5, seed=0, shuffle=True)
    first, second = epoch(whole), epoch(whole)
    one = Batches(ids(20), 5, seed=0, shuffle=True)
    assert epoch(one) == first
    resumed = Batches(ids(20), 5, seed=0, shuffle=True)
    resumed.load_state_dict(one.state_dict())
    assert epoch(resumed) == second


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("shuffle", [True, False])
def test_ranks_share_out_the_batches_of_one_process(world_size, shuffle):
    alone = epoch(Batches(ids(101), 16, seed=5, shuffle=shuffle))
    ranks = [
        epoch(Batches(ids(101), 16, seed=5, shuffle=shuffle, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    assert {len(rank) for rank in ranks} == {len(alone)}  # equally many steps, or a collective would hang
    for k, batch in enumerate(alone):
        parts = [set(rank[k]) for rank in ranks]
        assert set.union(*parts) == set(batch)
        assert sum(map(len, parts)) == len(batch)


def test_other_workers_go_on_where_the_former_were_and_each_example_is_seen_once():
    def go_on(world_size, state=None, number=None):
        """Some batches of an epoch, each over all ranks; and the place after them."""
        ranks = [Batches(ids(101), 16, seed=5, shuffle=True, rank=r, world_size=world_size) for r in range(world_size)]
        for rank in ranks if state else ():
            rank.load_state_dict(state)
        seen = []
        for parts in itertools.islice(zip(*ranks, strict=True), number):
            seen.append(sorted(torch.cat([part["id"] for part in parts]).tolist()))
        return seen, ranks[0].state_dict()

    whole, _ = go_on(1)
    first, state = go_on(2, number=2)
    second, state = go_on(1, state, number=3)
    third, _ = go_on(3, state)
    assert first + second + third == whole
    assert (len(first), len(second), len(third)) == (2, 3, 2)


def test_random_numbers_of_a_batch_are_the_same_after_a_resume():
    def draws(batches):
        return [torch.rand(2).tolist() for _ in batches]

    whole = draws(Batches(ids(40), 8, seed=1, shuffle=True))
    resumed = Batches(ids(40), 8, seed=1, shuffle=True)
    resumed.load_state_dict({"epoch": 0, "next_batch": 2})
    torch.manual_seed(99)
    assert draws(resumed) == whole[2:]
    other_rank = draws(Batches(ids(40), 8, seed=1, shuffle=True, rank=1, world_size=2))
    assert other_rank[0] != whole[0]


def test_buckets_put_like_lengths_together_and_lose_nothing():
    lengths = torch.randint(1, 1000, (5000,), generator=torch.Generator().manual_seed(0))
    plan = plan_epoch(5000, 20, seed=0, epoch=0, shuffle=True, lengths=lengths)
    assert sorted(torch.cat(plan).tolist()) == list(range(5000))
    padded = sum(len(batch) * int(lengths[batch].max()) for batch in plan)
    unsorted = plan_epoch(5000, 20, seed=0, epoch=0, shuffle=True)
    assert padded < 1.05 * int(lengths.sum())
    assert sum(len(batch) * int(lengths[batch].max()) for batch in unsorted) > 1.8 * int(lengths.sum())
    means = [float(lengths[batch].float().mean()) for batch in plan[:6]]
    assert means != sorted(means)  # short and long batches are mixed


@pytest.mark.parametrize(
    ("num_examples", "batch_size", "world_size", "fault"),
    [(0, 4, 1, "empty"), (10, 0, 1, "batch_size"), (3, 8, 4, "fewer workers"), (9, 2, 4, "larger data.batch_size")],
)
def test_batches_that_cannot_be_are_refused(num_examples, batch_size, world_size, fault):
    with pytest.raises(ValueError, match=fault):
        Batches(ids(num_examples), batch_size, world_size=world_size)


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="different lengths"):
        InMemory({"a": torch.zeros(3), "b": torch.zeros(4)})
