"""Pre-train C3D on motion and appearance statistics (Wang et al., CVPR 2019, Sec. 3.4)."""

from labelgen.errors import LabelgenError


class TrainError(LabelgenError):
    """A mistake in what the user asked of the trainer, told in one sentence."""

    silent = False  # whether another rank says it


class StoppedError(Exception):
    """The run ended before its end, by a signal or the loss of a rank; the same command goes on."""

    silent = False


class NonFiniteError(Exception):
    """A loss, gradient or weight is no number any more; the last checkpoint is from before."""

    silent = False
