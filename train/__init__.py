"""Pre-train C3D on motion and appearance statistics (Wang et al., CVPR 2019, Sec. 3.4)."""


class TrainError(Exception):
    """A mistake the user can mend, told in one sentence."""
