"""The regression of labels: which ones, and how their errors make up the loss."""

import pytest
import torch

from labelgen import LABELS
from train.data.loader import Batch
from train.metrics import NO_LABEL
from train.recipe import PretrainRecipe, task_columns
from train.tasks.pretrain import Pretraining

KNOWN = {
    "moments": torch.stack([torch.full((27,), 3.0), torch.full((27,), 2.0)]),
    "counts": torch.ones(27, 17),
}
NOTHING = torch.zeros(0)


def task_of(**recipe):
    settings = PretrainRecipe(width=0.03, **recipe)
    return Pretraining(settings, known=KNOWN, device=torch.device("cpu"))


def wanted(task, labels):
    """What the task wants of clips of these labels."""
    return task.targets(Batch(NOTHING, labels.to(torch.uint8), NOTHING, []))


def squares(task, motion, appearance, clips=5, label=4.0):
    """The loss where every label of a branch is wrong by so much."""
    targets = torch.full((clips, 27), label)
    errors = torch.cat([torch.full((clips, 14), motion), torch.full((clips, 13), appearance)], 1)
    return task.loss(targets + errors, wanted(task, targets)).item()


@pytest.mark.parametrize(
    ("tasks", "counts"),
    [
        (("motion",), {"motion": 14}),
        (("motion/grid", "motion/global"), {"motion": 6}),
        (("appearance/global/color", "motion"), {"motion": 14, "appearance": 1}),
    ],
)
def test_tasks_shrink_the_branches(tasks, counts):
    columns = task_columns(tasks)
    assert {branch: len(chosen) for branch, chosen in columns.items()} == counts
    for chosen in columns.values():
        for column in chosen:
            assert any(LABELS[column].name.startswith(task) for task in tasks)


def test_loss_is_the_weighted_sum_of_branch_errors_over_clips():
    task = task_of(motion_weight=2.0, appearance_weight=0.1)
    assert squares(task, 3.0, 7.0) == pytest.approx(5 * (2 * 9 + 0.1 * 49))


def test_errors_of_standard_targets_are_in_deviations():
    assert squares(task_of(targets="standard"), 3.0, 7.0) == pytest.approx(5 * (9 + 49) / 4)


def test_what_stands_for_no_clip_costs_nothing_and_teaches_nothing():
    task = task_of()
    predicted = torch.full((3, 27), 9.0, requires_grad=True)
    targets = torch.full((3, 27), float(NO_LABEL))
    targets[1] = 7
    loss = task.loss(predicted, wanted(task, targets))
    loss.backward()
    assert loss.item() == pytest.approx(2 * 4)
    assert predicted.grad.any(dim=1).tolist() == [False, True, False]


def test_labels_of_0_are_labels():
    """The released code marks grid blocks without motion by 0."""
    assert squares(task_of(), 3.0, 7.0, label=0.0) == pytest.approx(5 * (9 + 49))


def test_objective_is_the_mean_loss_of_what_figures_have_seen():
    task = task_of(appearance_weight=0.5)
    figures = task.new_figures()
    generator = torch.Generator().manual_seed(0)
    losses = []
    for count in (2, 5):
        targets = torch.randint(1, 5, (count, 27), generator=generator).float()
        predicted = targets + torch.randn(count, 27, generator=generator)
        figures.add(predicted, wanted(task, targets))
        losses.append(task.loss(predicted, wanted(task, targets)).item())
    assert task.objective(figures) == pytest.approx(sum(losses) / 7, rel=1e-5)


def test_the_same_labels_are_the_same_recipe():
    plain = PretrainRecipe(tasks=("motion/grid", "appearance"))
    assert PretrainRecipe(tasks=("appearance/", "motion/grid/", "appearance")) == plain
    assert PretrainRecipe().tasks == ("motion", "appearance")
