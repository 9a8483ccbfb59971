"""Draw clip.png, the picture that README begins with, from a shard with boundaries.

python docs/clip.py shards/demo/demo-all-00000-of-00003.h5 2 docs/clip.png
"""

import sys

import cv2
import h5py
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from labelgen.geometry import CROP_SIZE
from labelgen.labels.crops import central_crop

BLOCK = CROP_SIZE // 4
SHOWN = (("u", "M_u: sideways motion", 0), ("v", "M_v: up and down", 2))


def main(shard: str, clip: str, output: str) -> None:
    """Draw a clip's eighth frame, its motion boundaries, and the grid blocks its labels name."""
    with h5py.File(shard) as file:
        row, crop = int(clip), central_crop(file["crops"][:])
        top, left = file["crops"][crop].tolist()
        names = [str(name) for name in file["labels"].attrs["names"]]
        labels = dict(zip(names, file["labels"][row, crop].tolist(), strict=True))
        frame = cv2.imdecode(file["frames"][row, 8], cv2.IMREAD_COLOR)[..., ::-1]
        boundaries = file["motion_boundaries"][row].astype(np.float32)
    window = np.s_[top : top + CROP_SIZE, left : left + CROP_SIZE]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    first, *others = figure.subplots(1, 3)
    first.imshow(frame[window])
    first.set_title("one frame of 16", fontsize="medium")
    for axes, (name, title, channel) in zip(others, SHOWN, strict=True):
        size = np.hypot(boundaries[channel], boundaries[channel + 1])[window]
        axes.imshow(size, cmap="magma", vmax=np.percentile(size, 99.5))
        block = labels[f"motion/grid/{name}_location"]
        way = labels[f"motion/grid/{name}_orientation"]
        y, x = divmod(block - 1, 4)
        axes.add_patch(
            Rectangle((x * BLOCK, y * BLOCK), BLOCK, BLOCK, fill=False, color="cyan", linewidth=2)
        )
        axes.set_title(
            f"{title}\nlargest in block {block} of 16, way {way} of 8", fontsize="medium"
        )
        for line in range(BLOCK, CROP_SIZE, BLOCK):
            axes.axhline(line - 0.5, color="white", linewidth=0.4)
            axes.axvline(line - 0.5, color="white", linewidth=0.4)
    for axes in (first, *others):
        axes.set_axis_off()
    figure.savefig(output, dpi=100)


if __name__ == "__main__":
    main(*sys.argv[1:])
