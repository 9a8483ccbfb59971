"""Losses and their targets, against slow NumPy written from the label rules, and by properties."""

import itertools

import cv2
import numpy as np
import pytest
import torch

import labelgen
from labelgen import LABELS, flip_labels
from labelgen.labels.motion import _orientation_bin
from labelgen.labels.partitions import PARTITIONS
from train import TrainError
from train.data.loader import Batch
from train.metrics import NO_LABEL
from train.recipe import LOSSES, task_columns
from train.tasks.losses import make_loss
from train.tasks.statistics import CropStatistics
from train.values import neighbours

CPU = torch.device("cpu")
BRANCHES = list(task_columns(("motion", "appearance")).values())
TOP, LEFT = 5, 20


def cut(maps):
    """(F, 128, 171) -> (F, 114, 114): the crop at (TOP, LEFT) with its rim."""
    padded = np.pad(maps, ((0, 0), (1, 1), (1, 1)), mode="edge")
    return padded[:, TOP : TOP + 114, LEFT : LEFT + 114]


@pytest.fixture(scope="module")
def clips():
    """Three clips: frames, flow, labels of one crop."""
    rng = np.random.default_rng(3)
    made = []
    for _ in range(3):
        frames = rng.integers(0, 256, (16, 16, 22, 3)).repeat(8, 1).repeat(8, 2)[:, :, :171]
        frames = frames.astype(np.uint8)
        # Smooth, so that no direction lies on the border of two bins, where a flip is not exact.
        coarse = rng.normal(0, 1, (15, 2, 16, 22))
        flow = (
            np.stack(
                [
                    [cv2.resize(c, (171, 128), interpolation=cv2.INTER_CUBIC) for c in pair]
                    for pair in coarse
                ]
            )
            .astype(np.float16)
            .astype(np.float32)
        )
        labels = labelgen.clip_labels(frames, flow, np.array([(TOP, LEFT)]))[0]
        made.append((frames, flow, labels))
    return made


def batch_of(clips, *, timed=True):
    frames, fields, labels = [], [], []
    for images, flow, of_crop in clips:
        maps = [labelgen.motion_boundaries(flow)]
        maps += [flow.reshape(-1, 128, 171)] if timed else []
        frames.append(images[:, TOP : TOP + 112, LEFT : LEFT + 112])
        fields.append(cut(np.concatenate(maps)))
        labels.append(of_crop)
    stacked = [torch.from_numpy(np.stack(part)) for part in (frames, labels, fields)]
    return Batch(*stacked, list(range(len(clips))))


def predicted_for(loss, clips=3, seed=0, **kind):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(clips, sum(loss.outputs), generator=generator, **kind)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_finite_differences(name, clips):
    loss = make_loss(name, BRANCHES, device=CPU)
    targets = loss.targets(batch_of(clips[:1]))
    predicted = predicted_for(loss, 1, dtype=torch.float64, requires_grad=True)
    if name == "mse":
        targets = targets._replace(wanted=targets.wanted.double())
    weights = torch.linspace(0.5, 2, 27, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda p: (loss.losses(p, targets) * weights).sum(), predicted, atol=1e-5, fast_mode=False
    )


@pytest.mark.parametrize("name", LOSSES)
def test_a_sample_that_is_not_to_count_costs_nothing(name, clips):
    loss = make_loss(name, BRANCHES, device=CPU)
    batch = batch_of(clips)
    batch.answers[1] = NO_LABEL
    predicted = predicted_for(loss).requires_grad_()
    losses = loss.losses(predicted, loss.targets(batch))
    losses.sum().backward()
    assert losses.any(dim=1).tolist() == [True, False, True]
    assert predicted.grad.any(dim=1).tolist() == [True, False, True]


def test_plain_targets_are_the_labels_themselves(clips):
    targets = make_loss("ce", BRANCHES, device=CPU).targets(batch_of(clips))
    assert (targets.wanted.sum(2) == 1).all()
    assert (targets.wanted.argmax(2) + 1 == targets.labels).all()


def test_soft_targets_are_the_neighbours_of_the_labels(clips):
    targets = make_loss("ce-soft", BRANCHES, device=CPU).targets(batch_of(clips))
    weights = neighbours(range(27))
    for clip in range(3):
        for column in range(27):
            true = int(targets.labels[clip, column])
            assert torch.equal(targets.wanted[clip, column], weights[column, true - 1])


def afar(logits):
    """A frame's logit: its own output, and 4 times a mean of those near it."""
    shared = np.zeros_like(logits)
    for frame in range(15):
        near = np.exp(-np.abs(np.arange(15) - frame) / 3)
        shared[:, frame] = logits[:, frame] + 4 * (logits * near).sum(1) / near.sum()
    return shared


@pytest.mark.parametrize("name", ["ce", "ce-soft"])
def test_a_softmax_per_label(name, clips):
    loss = make_loss(name, BRANCHES, device=CPU)
    predicted = predicted_for(loss)
    targets = loss.targets(batch_of(clips))
    losses, said = loss.losses(predicted, targets), loss.read(predicted, targets)
    first = 0
    for column, (_, values) in enumerate(LABELS):
        logits = 4 * predicted[:, first : first + values].double().numpy()
        if LABELS[column].name.endswith("_frame"):
            logits = afar(logits)
        shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        wanted = targets.wanted[:, column, :values].numpy()
        np.testing.assert_allclose(losses[:, column], -(wanted * np.log(shares)).sum(1), rtol=1e-4)
        np.testing.assert_allclose(
            said.expected[:, column], shares @ np.arange(1, values + 1), rtol=1e-4
        )
        assert said.value[:, column].tolist() == (1 + shares.argmax(1)).tolist()
        true = targets.labels[:, column].long().numpy() - 1
        np.testing.assert_allclose(
            said.surprise[:, column], -np.log(shares[np.arange(3), true]), rtol=1e-4
        )
        first += values
    assert first == sum(loss.outputs)


def slow_motion(flow):
    """(2, 28, 8): mean magnitude of a crop's blocks by direction, pixel by pixel."""
    maps = labelgen.motion_boundaries(flow)[:, TOP : TOP + 112, LEFT : LEFT + 112].astype(float)
    found = np.zeros((2, 28, 8))
    for c in range(2):
        x, y = maps[2 * c], maps[2 * c + 1]
        direction = np.floor(np.degrees(np.arctan2(-y, x)) % 360 / 45).astype(int) % 8
        masks = np.concatenate([p.masks for p in PARTITIONS])
        for b, mask in enumerate(masks):
            found[c, b] = np.bincount(direction[mask], np.hypot(x, y)[mask], 8) / mask.sum()
    return found


def sharp(values):
    return values**4 / (values**4).sum(-1, keepdims=True)


def test_statistics_of_blocks_equal_slow_ones(clips):
    batch, statistics = batch_of(clips), CropStatistics(CPU)
    motion, pairs = statistics.motion(batch.fields), statistics.pairs(batch.fields)
    colours = statistics.colours(batch.frames)
    for clip, (frames, flow, _) in enumerate(clips):
        np.testing.assert_allclose(motion[clip], slow_motion(flow), atol=1e-5)
        for pair in range(15):
            u, v = np.split(labelgen.motion_boundaries(flow[pair : pair + 1]), 2)
            for c, (x, y) in enumerate((u, v)):
                inside = np.hypot(x, y)[TOP : TOP + 112, LEFT : LEFT + 112].mean()
                assert pairs[clip, c, pair].item() == pytest.approx(inside, rel=1e-4)
        crop = frames[:, TOP : TOP + 112, LEFT : LEFT + 112].astype(int)
        octant = 4 * (crop[..., 2] < 128) + 2 * (crop[..., 0] >= 128) + (crop[..., 1] >= 128)
        masks = np.concatenate([*(p.masks for p in PARTITIONS), np.ones((1, 112, 112), bool)])
        for b, mask in enumerate(masks):
            shares = np.bincount(octant[:, mask].ravel(), minlength=8) / (16 * mask.sum())
            np.testing.assert_allclose(colours[clip, b], shares, atol=1e-5)


def slow_targets(frames, flow, labels):
    """What is wanted of each of the 27 labels, block by block."""
    motion, near = slow_motion(flow), neighbours(range(27)).double().numpy()
    crop = frames[:, TOP : TOP + 112, LEFT : LEFT + 112].astype(int)
    octant = 4 * (crop[..., 2] < 128) + 2 * (crop[..., 0] >= 128) + (crop[..., 1] >= 128)
    wanted, first = [], 0
    for partition in PARTITIONS:
        blocks = range(first, first + len(partition.masks))
        for c in range(2):
            moved = motion[c, blocks].sum(1)
            things = [p * sharp(motion[c, b]) for p, b in zip(sharp(moved), blocks, strict=True)]
            wanted += [sharp(moved), np.array(things)]
        first += len(blocks)
    for c in range(2):
        pairs = [labelgen.motion_boundaries(flow[t : t + 1])[2 * c : 2 * c + 2] for t in range(15)]
        inside = [np.hypot(*p)[TOP : TOP + 112, LEFT : LEFT + 112].mean() for p in pairs]
        wanted.append(sharp(np.array(inside, float)))
    for partition in PARTITIONS:
        for _ in ("greatest", "least"):
            row = near[len(wanted), labels[len(wanted)] - 1, : len(partition.masks)]
            counts = [np.bincount(octant[:, m].ravel(), minlength=8) for m in partition.masks]
            wanted += [row, row[:, None] * sharp(np.array(counts, float))]
    return [*wanted, sharp(np.bincount(octant.ravel(), minlength=8).astype(float))]


def test_directions_on_the_edges_of_bins_are_those_of_the_labels():
    """Whole numbers, of which many lie at multiples of 45 degrees."""
    flow = np.random.default_rng(0).integers(-2, 3, (15, 2, 128, 171)).astype(np.float32)
    maps = labelgen.motion_boundaries(flow)
    maps = np.sign(maps) * (np.arange(171) // 4 % 3).astype(np.float32)
    fields = torch.from_numpy(cut(maps))[None]
    motion = CropStatistics(CPU).motion(fields)[0].double()
    inner = maps[:, TOP : TOP + 112, LEFT : LEFT + 112]
    for c in range(2):
        x, y = inner[2 * c], inner[2 * c + 1]
        whole = [[_orientation_bin(*at) for at in zip(*row, strict=True)]
                 for row in zip(x, -y, strict=True)]  # fmt: skip
        wanted = np.bincount(np.ravel(whole), np.hypot(x, y).ravel(), 8) / 112**2
        np.testing.assert_allclose(motion[c, :16].mean(0), wanted, rtol=1e-5)


@pytest.mark.parametrize(("top", "left"), [(0, 0), (16, 59), (0, 59), (7, 31)])
def test_crops_at_the_edges_of_the_frame_have_their_own_labels(clips, top, left):
    frames, flow, _ = clips[0]
    labels = labelgen.clip_labels(frames, flow, np.array([(top, left)]))[0]
    maps = np.concatenate([labelgen.motion_boundaries(flow), flow.reshape(-1, 128, 171)])
    padded = np.pad(maps, ((0, 0), (1, 1), (1, 1)), mode="edge")
    batch = Batch(
        torch.from_numpy(frames[None, :, top : top + 112, left : left + 112].copy()),
        torch.from_numpy(labels[None]),
        torch.from_numpy(padded[None, :, top : top + 114, left : left + 114].copy()),
        [0],
    )
    loss = make_loss("statistics", BRANCHES, device=CPU)
    targets = loss.targets(batch)
    assert (loss.read(predicting(loss, targets), targets).value == targets.labels).all()


def test_colours_that_tie_are_the_first_as_in_the_labels():
    rng = np.random.default_rng(0)
    (columns,) = task_columns(("appearance/grid",)).values()
    loss = make_loss("statistics", [columns], device=CPU)
    for _ in range(8):
        # Of each block of the grid half is of one colour and half of another, wherever.
        colours = rng.permutation(list(itertools.product((0, 255), repeat=3)))[:2]
        halves = np.repeat([0, 1], 16 * 28 * 28 // 2)
        blocks = [rng.permutation(halves).reshape(16, 28, 28) for _ in range(16)]
        crop = np.block([[blocks[4 * y + x] for x in range(4)] for y in range(4)])
        frames = np.zeros((16, 128, 171, 3), np.uint8)
        frames[:, TOP : TOP + 112, LEFT : LEFT + 112] = colours[crop]
        flow = np.zeros((15, 2, 128, 171), np.float32)
        labels = labelgen.clip_labels(frames, flow, np.array([(TOP, LEFT)]))[0]
        batch = batch_of([(frames, flow, labels)], timed=False)
        wanted = loss.targets(batch).wanted
        for column, target in zip(columns, wanted, strict=True):
            if target.ndim == 3:
                place = int(labels[column - 1]) - 1
                assert target[0, place].argmax() + 1 == labels[column]


def test_targets_of_statistics_are_those_of_slow_numpy(clips):
    targets = make_loss("statistics", BRANCHES, device=CPU).targets(batch_of(clips))
    for number, clip in enumerate(clips):
        for label, got, slow in zip(LABELS, targets.wanted, slow_targets(*clip), strict=True):
            np.testing.assert_allclose(got[number], slow, atol=1e-4, err_msg=label.name)
            assert slow.sum() == pytest.approx(1)


def predicting(loss, targets):
    """Outputs that say just what is wanted."""
    outputs = []
    for row, wanted in enumerate(targets.wanted):
        likely = wanted / wanted.sum(-1, keepdim=True)
        logits = likely.clamp(min=1e-9).log() / 4
        if LABELS[row].name.endswith("_frame"):
            shared = torch.from_numpy(afar(np.eye(15))).T
            logits = torch.linalg.solve(shared, logits.double().T).T.float()
        outputs.append(logits.flatten(1))
    return torch.cat(outputs, dim=1)


def test_who_predicts_the_statistics_tells_every_label(clips):
    loss = make_loss("statistics", BRANCHES, device=CPU)
    targets = loss.targets(batch_of(clips))
    predicted = predicting(loss, targets)
    assert (loss.read(predicted, targets).value == targets.labels).all()
    entropy = [-torch.xlogy(w, w / w.sum(-1, keepdim=True)).flatten(1).sum(1)
               for w in targets.wanted]  # fmt: skip
    assert torch.allclose(loss.losses(predicted, targets), torch.stack(entropy, 1), atol=1e-3)


def test_without_flow_frames_are_those_of_soft_labels(clips):
    wanted = make_loss("statistics", BRANCHES, device=CPU).targets(batch_of(clips, timed=False))
    soft = make_loss("ce-soft", BRANCHES, device=CPU).targets(batch_of(clips))
    for frame in (12, 13):
        assert torch.equal(wanted.wanted[frame], soft.wanted[:, frame, :15])


def test_a_clip_without_motion_asks_nothing_of_motion(clips):
    loss = make_loss("statistics", BRANCHES, device=CPU)
    for timed in (True, False):
        batch = batch_of(clips, timed=timed)
        batch.fields[1] = 0
        for label, wanted in zip(LABELS, loss.targets(batch).wanted, strict=True):
            asked = wanted.flatten(1).any(1).tolist()
            assert asked == [True, label.name.startswith("appearance"), True]


def test_what_moves_along_one_axis_alone_asks_nothing_of_the_other(clips):
    frames, flow, labels = clips[0]
    along_u = flow.copy()
    along_u[:, 1] = 0
    batch = batch_of([(frames, along_u, labels)], timed=False)
    wanted = make_loss("statistics", BRANCHES, device=CPU).targets(batch).wanted
    for label, of_label in zip(LABELS[:14], wanted, strict=False):
        assert bool(of_label.any()) == ("/u_" in label.name)


def test_places_and_what_is_found_at_them(clips):
    loss = make_loss("statistics", BRANCHES, device=CPU)
    predicted, targets = predicted_for(loss), loss.targets(batch_of(clips))
    places = (4 * predicted[:, :16]).double().softmax(1)
    things = (4 * predicted[:, 16:144]).double().reshape(3, 16, 8).softmax(2)
    losses, said = loss.losses(predicted, targets).double(), loss.read(predicted, targets)
    where, way = (wanted.double() for wanted in targets.wanted[:2])
    assert torch.allclose(losses[:, 0], -(where * places.log()).sum(1), rtol=1e-4)
    assert torch.allclose(losses[:, 1], -(way * things.log()).sum((1, 2)), rtol=1e-4)
    every, true = torch.arange(3), targets.labels[:, :2].long() - 1
    assert torch.allclose(said.surprise[:, 0].double(), -places[every, true[:, 0]].log(), rtol=1e-4)
    likely = (places[:, :, None] * things).sum(1)
    assert torch.allclose(said.surprise[:, 1].double(), -likely[every, true[:, 1]].log(), rtol=1e-4)
    assert torch.allclose(
        said.expected[:, 1].double(), likely @ torch.arange(1.0, 9, dtype=torch.float64), rtol=1e-4
    )
    best = places.argmax(1)
    assert said.value[:, 0].tolist() == (best + 1).tolist()
    assert said.value[:, 1].tolist() == (things[every, best].argmax(1) + 1).tolist()


@pytest.mark.parametrize("name", ["ce-soft", "statistics"])
def test_the_target_of_a_mirrored_clip_is_the_mirrored_target(name, clips):
    """By what the reader does to labels and fields of a mirrored view."""
    from train.data.answers import _MIRRORED

    signs = torch.tensor([*_MIRRORED["motion_boundaries"], *_MIRRORED["flow"]])[:, None, None]
    batch = batch_of(clips)
    turned = Batch(
        batch.frames.flip(3), torch.from_numpy(flip_labels(batch.answers.numpy())),
        batch.fields.flip(3) * signs, batch.clips,
    )  # fmt: skip
    loss = make_loss(name, BRANCHES, device=CPU)
    ways = {
        column: flip_labels(np.ones((17, 27), np.uint8) * np.minimum(
            np.arange(17)[:, None], [label.cardinality for label in LABELS]
        ).astype(np.uint8))[:, column]
        for column in range(27)
    }  # fmt: skip
    plain, mirrored = loss.targets(batch), loss.targets(turned)
    if name == "ce-soft":
        for column, (_, values) in enumerate(LABELS):
            to = torch.from_numpy(ways[column][1 : values + 1].astype(int) - 1)
            for before, after in zip(plain.wanted, mirrored.wanted, strict=True):
                assert torch.allclose(after[column, to], before[column, :values], atol=1e-6)
        return
    for column, pair in enumerate(zip(plain.wanted, mirrored.wanted, strict=True)):
        before, after = pair
        to = [
            torch.from_numpy(ways[c][1 : LABELS[c].cardinality + 1].astype(int) - 1)
            for c in range(column - (before.ndim == 3), column + 1)
        ]
        moved = after[:, to[0]] if len(to) == 1 else after[:, to[0]][:, :, to[1]]
        assert torch.allclose(moved, before, atol=2e-3), LABELS[column].name


def test_labels_of_the_released_code_that_are_0_are_the_first_value(clips):
    batch = batch_of(clips)
    loss = make_loss("ce", BRANCHES, device=CPU)
    batch.answers[:, 0] = 0
    assert (loss.targets(batch).wanted[:, 0].argmax(1) == 0).all()


@pytest.mark.parametrize("task", ["motion/grid/u_orientation", "appearance/rings/stable_color"])
def test_what_is_found_at_a_place_is_not_asked_without_it(task):
    with pytest.raises(TrainError, match=f"learns {task} together with its place; name "):
        make_loss("statistics", list(task_columns((task,)).values()), device=CPU)


@pytest.mark.parametrize("tasks", [("motion/grid/v_location",), ("motion", "appearance/grid")])
@pytest.mark.parametrize("name", LOSSES)
def test_some_labels_alone(name, tasks, clips):
    branches = list(task_columns(tasks).values())
    loss = make_loss(name, branches, device=CPU)
    predicted, targets = predicted_for(loss), loss.targets(batch_of(clips))
    assert loss.losses(predicted, targets).shape == (3, sum(map(len, branches)))
    assert loss.read(predicted, targets).value.shape == targets.labels.shape


@pytest.mark.parametrize("name", LOSSES)
def test_outputs_alone_can_fit_one_batch_to_its_entropy(name, clips):
    loss = make_loss(name, BRANCHES, device=CPU)
    targets = loss.targets(batch_of(clips))
    predicted = torch.zeros(3, sum(loss.outputs), requires_grad=True)
    optimizer = torch.optim.Adam([predicted], lr=0.3)
    for _ in range(300):
        optimizer.zero_grad()
        loss.losses(predicted, targets).sum().backward()
        optimizer.step()
    wanted = targets.wanted if isinstance(targets.wanted, tuple) else (targets.wanted,)
    entropy = sum(-torch.xlogy(w, w / w.sum(-1, keepdim=True)).nansum().item() for w in wanted)
    entropy = 0.0 if name == "mse" else entropy
    assert loss.losses(predicted, targets).sum().item() == pytest.approx(entropy, abs=0.5)
