"""Maps by hand, the slice of every frame, and a picture."""

import sys

import cv2
import numpy as np
import pytest
import torch

from train import TrainError
from train.evaluate.attention import AttentionRow, attention_maps, draw, over_frames


def test_two_channels_by_hand():
    conv5 = torch.tensor([[[[[1.0, -2.0], [0.0, 3.0]]], [[[2.0, 1.0], [0.0, -1.0]]]]])
    assert conv5.shape == (1, 2, 1, 2, 2)
    assert attention_maps(conv5).tolist() == [[[[0.5, 0.5], [0.0, 1.0]]]]


def test_each_clip_has_its_own_scale_over_all_its_slices():
    conv5 = torch.zeros(3, 4, 2, 7, 7)
    conv5[0, :, 0, 1, 1], conv5[0, :, 1, 2, 2] = 2.0, 1.0
    conv5[1, 3, 1, 5, 6] = 1e-3
    maps = attention_maps(conv5)
    assert maps[0, 0, 1, 1] == 1
    assert maps[0, 1, 2, 2] == 0.25
    assert maps[1, 1, 5, 6] == 1
    assert not maps[2].any()


def test_half_precision_does_not_overflow():
    conv5 = torch.full((1, 256, 2, 7, 7), 300.0, dtype=torch.float16)
    maps = attention_maps(conv5)
    assert maps.dtype == torch.float32
    assert (maps == 1).all()


def test_frames_take_their_half_of_the_clip():
    maps = torch.stack([torch.full((7, 7), 0.25), torch.full((7, 7), 0.75)])[None]
    large = over_frames(maps, frames=16, size=112)
    assert large.shape == (1, 16, 112, 112)
    assert (large[0, :8] == 0.25).all()
    assert (large[0, 8:] == 0.75).all()


@pytest.mark.parametrize(("frames", "slices"), [(4, [0, 0, 1, 2]), (2, [0, 1]), (3, [0, 1, 2])])
def test_the_slice_is_frame_times_slices_over_frames(frames, slices):
    maps = torch.arange(3.0)[None, :, None, None].expand(1, 3, 2, 2)
    assert over_frames(maps, frames=frames, size=2)[0, :, 0, 0].tolist() == slices


def test_enlarging_is_bilinear():
    maps = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])
    # Pixel centres of four lie at -1/4, 1/4, 3/4 and 5/4 of the distance between those of two.
    assert over_frames(maps, frames=1, size=4)[0, 0].tolist() == [[0, 0.25, 0.75, 1]] * 4


def row(name, *, column, motion=1.0):
    attention = np.zeros((112, 112), np.float32)
    attention[:, column : column + 30] = 1
    moving = np.zeros((112, 112))
    moving[40:60] = motion
    frame = np.full((112, 112, 3), (255, 0, 0), np.uint8)
    return AttentionRow(name, frame, attention, moving, moving / 2)


def test_the_picture_has_a_row_per_clip(tmp_path):
    path = tmp_path / "attention.png"
    draw([row("a/b.avi", column=10)], path)
    low = cv2.imread(str(path)).shape[0]
    draw([row("a/b.avi", column=10), row("5$ or 6$.avi", column=70, motion=0.0)], path)
    picture = cv2.imread(str(path))
    assert picture.shape[0] > 1.6 * low
    red = (picture == (0, 0, 255)).all(axis=2)
    assert red.sum() > 2 * 200 * 200  # the frames of both rows, in their own colours
    assert [file.name for file in tmp_path.iterdir()] == ["attention.png"]


def test_what_cannot_be_drawn_is_told(tmp_path, monkeypatch):
    with pytest.raises(TrainError, match="no clip to draw"):
        draw([], tmp_path / "x.png")
    with pytest.raises(TrainError, match="missing.* cannot be written"):
        draw([row("a", column=0)], tmp_path / "missing" / "x.png")
    with pytest.raises(TrainError, match="x.nothing cannot be written"):
        draw([row("a", column=0)], tmp_path / "x.nothing")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(TrainError, match="pip install matplotlib"):
        draw([row("a", column=0)], tmp_path / "x.png")
