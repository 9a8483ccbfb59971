"""Order and shares: functions of the seed, whoever makes them."""

import numpy as np
import pytest

from train import TrainError
from train.data.sampler import Order, Share, held_out_batches


def order_of(clips=20, batch=8, *, seed=4):
    return Order(np.arange(clips), batch, seed=seed)


@pytest.mark.parametrize("batch", [7, 8])
@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 16])
@pytest.mark.parametrize("accumulate", [1, 2, 3, 20])
def test_ranks_and_parts_share_each_batch_whatever_their_number(batch, ranks, accumulate):
    for keys in order_of(batch=batch).steps_of(3):
        shares = [Share(rank, ranks, accumulate).of(keys) for rank in range(ranks)]
        assert {len(share) for share in shares} == {min(accumulate, batch)}
        assert all(part for share in shares for part in share)
        seen = [key for share in shares for part in share for key in part if key[1] >= 0]
        assert sorted(seen) == sorted(keys)
        sizes = [sum(clip >= 0 for _, clip in part) for share in shares for part in share]
        assert max(sizes) - min(sizes) <= 2
        # Rank 0, whose running figures of batch norm count, always has a share of its own.
        assert all(clip >= 0 for part in shares[0] for _, clip in part)


def test_an_epoch_can_begin_at_any_step_and_epochs_and_seeds_differ():
    order = order_of(batch=4)
    whole = list(order.steps_of(0))
    assert len(whole) == order.steps == 5
    assert list(order.steps_of(0, start=3)) == whole[3:]

    def clips(steps):
        return [[clip for _, clip in keys] for keys in steps]

    assert clips(order.steps_of(1)) != clips(whole)
    assert clips(order_of(batch=4, seed=5).steps_of(0)) != clips(whole)


def test_no_clip_comes_twice_in_an_epoch():
    clips = [clip for keys in order_of(23, 5).steps_of(0) for _, clip in keys]
    assert len(clips) == 20 == len(set(clips))


def test_evaluation_sees_every_clip_once():
    shared = [held_out_batches(np.arange(11), 3, share=Share(rank, 2)) for rank in range(2)]
    seen = sorted(clip for batches in shared for keys in batches for _, clip in keys)
    assert seen == list(range(11))


def test_a_batch_larger_than_the_set_is_refused():
    with pytest.raises(TrainError, match="batch of 30 is larger than the training set of 20 clips"):
        order_of(20, 30)
