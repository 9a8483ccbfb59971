"""The promise that a shard's bytes do not depend on the processor (docs/shards.md)."""

import os
import subprocess

import pytest
from conftest import moving_square, write_video
from extraction import command, digests

# What the processor has beyond the least that x86-64 means, for Numba and for OpenCV.
PLAIN = {
    "NUMBA_CPU_NAME": "generic",
    "OPENCV_CPU_DISABLE": "SSE4_1,SSE4_2,AVX,FP16,AVX2,FMA3,AVX_512F,AVX512_SKX,AVX512_ICL",
    "OPENCV_IPP": "disabled",
}


@pytest.mark.parametrize(
    "options",
    [
        ("--flow", "tvl1"),
        ("--flow", "brox", "--flow-size", "short:96"),
    ],
    ids=["tvl1", "brox on larger frames"],
)
def test_bytes_do_not_depend_on_the_processor(tmp_path, options):
    write_video(tmp_path / "v" / "a.avi", moving_square(16))
    found = []
    for name, environment in (("here", {}), ("plain", PLAIN)):
        out = tmp_path / name
        arguments = ("extract", "--root", tmp_path / "v", "--out", out, "--crops", "grid:8")
        subprocess.run(
            command(*arguments, "--store-flow", "float32", "--workers", 0, *options),
            capture_output=True,
            check=True,
            env={**os.environ, **environment},
        )
        found.append(digests(out))
    assert found[0] == found[1]
