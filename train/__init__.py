"""Pre-train C3D on motion and appearance statistics (Wang et al., CVPR 2019, Sec. 3.4)."""

from labelgen.errors import LabelgenError


class TrainError(LabelgenError):
    """A mistake in what the user asked of the trainer, told in one sentence."""
