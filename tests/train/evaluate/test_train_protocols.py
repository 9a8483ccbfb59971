"""Protocols: which clips, which videos, and hashes that tell them apart."""

from dataclasses import replace

import numpy as np
import pytest

from train import TrainError
from train.evaluate.protocols import PROTOCOLS, Protocol


def test_hashes_differ_where_settings_do_and_not_by_name():
    hashes = {name: p.record("retrieve")["hash"] for name, p in PROTOCOLS.items()}
    assert len(set(hashes.values())) == len(PROTOCOLS)
    assert replace(PROTOCOLS["ours"], name="mine").record("retrieve")["hash"] == hashes["ours"]


def test_only_what_a_command_looks_at_decides_its_hash():
    ours, coclr = PROTOCOLS["ours"], PROTOCOLS["coclr"]  # these differ in retrieval alone
    assert ours.record("scenes", c=1.0)["hash"] == coclr.record("scenes", c=1.0)["hash"]
    assert ours.record("scenes", c=1.0)["hash"] != ours.record("scenes", c=0.1)["hash"]
    assert ours.record("evaluate")["hash"] != ours.record("similarity")["hash"]


@pytest.mark.parametrize("frames", [16, 17, 25, 40, 163, 300])
def test_clips_are_those_of_vcop_where_there_is_one_at_every_frame(frames):
    """Its code, datasets/ucf101.py: int(i - 8) for i in linspace(8, frames - 8, 10)."""
    starts = [int(place - 8) for place in np.linspace(8, frames - 8, 10)]
    assert PROTOCOLS["vcop"].chosen(frames - 15) == sorted(set(starts))


def test_all_clips_are_taken_where_there_are_fewer():
    assert PROTOCOLS["vcop"].chosen(3) == [0, 1, 2]
    assert PROTOCOLS["ours"].chosen(3) == [0, 1, 2]
    assert Protocol("one", clips=1).chosen(7) == [0]


def test_as_many_videos_are_lost_as_are_known_to_be():
    assert 3783 - PROTOCOLS["vcop"].kept(3783) == 7  # UCF101, test list 1
    assert 1530 - PROTOCOLS["vcop"].kept(1530) == 2  # HMDB51
    assert PROTOCOLS["ours"].kept(3783) == 3783


def test_what_makes_no_sense_is_refused():
    with pytest.raises(TrainError, match="averages probabilities or logits"):
        Protocol("x", average="votes")
    with pytest.raises(TrainError, match="clips from 0 on"):
        Protocol("x", clips=-1)
