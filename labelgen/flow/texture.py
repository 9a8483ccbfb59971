"""What of an image is texture: the rest, once its structure is taken away ([1]_, Sec. 3.1).

Shadows, highlights and a camera that adapts change the structure of an image, and leave its texture
mostly alone. The structure is the image that minimises its total variation and its squared distance
from the original; [2]_ finds it by projections of a dual field.

References
----------
.. [1] A. Wedel, T. Pock, C. Zach, H. Bischof, D. Cremers, "An Improved Algorithm for TV-L1 Optical
   Flow", Visual Motion Analysis 2008, LNCS 5604.
.. [2] A. Chambolle, "Total Variation Minimization and a Class of Binary MRF Models", EMMCVPR 2005.
"""

from __future__ import annotations

import numpy as np

from labelgen.flow.vectors import entry_kernel

THETA = 16.0  # grey levels; 1/8 where [1]_ has an image from -1 to 1
STEP = 0.249  # of the dual field; [2]_ found that up to .25 converges
ITERATIONS = 30


def without_structure(image: np.ndarray, share: float) -> np.ndarray:
    """Return an image (H, W) float32 in grey levels less a share, 0 to 1, of its structure."""
    if share == 0:
        return image
    height, width = image.shape
    # A row and a column before the first, that are zero; the last of each stay zero, too.
    along_x, along_y = np.zeros((2, height + 1, width + 1), np.float32)
    structure = np.empty((height + 1, width + 1), np.float32)
    for _ in range(ITERATIONS):
        _project(image, along_x, along_y, structure, np.float32(THETA))
    return image - np.float32(share) * structure[:-1, :-1]


@entry_kernel
def _project(
    image: np.ndarray,
    along_x: np.ndarray,
    along_y: np.ndarray,
    structure: np.ndarray,
    theta: np.float32,
) -> None:
    """One iteration: ``u = f + theta div p`` and ``p = (p + step grad u) / max(1, |p + ...|)``."""
    height, width = image.shape
    step, one = np.float32(STEP) / theta, np.float32(1)
    for y in range(height):
        for x in range(width):
            across = along_x[y + 1, x + 1] - along_x[y + 1, x]
            down = along_y[y + 1, x + 1] - along_y[y, x + 1]
            structure[y, x] = image[y, x] + theta * (across + down)
        # Copies beyond the border, so that the gradient is zero there.
        structure[y, width] = structure[y, width - 1]
    structure[height] = structure[height - 1]
    for y in range(height):
        for x in range(width):
            here = structure[y, x]
            px = along_x[y + 1, x + 1] + step * (structure[y, x + 1] - here)
            py = along_y[y + 1, x + 1] + step * (structure[y + 1, x] - here)
            shrink = one / max(one, np.sqrt(px * px + py * py))
            along_x[y + 1, x + 1] = px * shrink
            along_y[y + 1, x + 1] = py * shrink
