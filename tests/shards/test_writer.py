import json

import cv2
import h5py
import numpy as np
from extraction import extract

from labelgen import LABELS, read_clips


def test_layout_is_the_contract(videos, tmp_path):
    extract(videos, tmp_path / "s", frames="jpeg:95")
    with h5py.File(tmp_path / "s" / "videos-00000-of-00002.h5") as shard:
        assert shard.attrs["format"] == "motion-appearance-labels"
        assert shard.attrs["format_version"] == 1
        assert json.loads(shard.attrs["flow"])["method"] == "farneback"
        assert json.loads(shard.attrs["config"])["clip_stride"] == 16
        assert shard.attrs["frame_size"].tolist() == [128, 171]
        for name in ("labelgen", "opencv", "numpy", "numba"):
            assert shard.attrs[f"{name}_version"]
        layout = {
            "labels": ((3, 8, 27), np.uint8, (1, 8, 27)),
            "motion_boundaries": ((3, 4, 128, 171), np.float16, (1, 4, 128, 171)),
            "frames": ((3, 16), object, (1, 16)),
        }
        for name, (shape, dtype, chunks) in layout.items():
            assert shard[name].shape == shape
            assert shard[name].dtype == dtype
            assert shard[name].chunks == chunks
        assert shard["labels"].attrs["names"].tolist() == [label.name for label in LABELS]
        assert shard["videos/class_name"].asstr()[:].tolist() == ["run"]
        assert shard["videos/frames"][:].tolist() == [50]
        jpeg = shard["frames"][2, 5]
        decoded = cv2.cvtColor(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        clips = dict(read_clips(videos / "run" / "a.avi"))
        assert np.abs(decoded.astype(int) - clips[32][5]).mean() < 3
