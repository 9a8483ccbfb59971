"""Where compiled kernels are kept: a change of any source must compile all of them anew."""

import os
import shutil
import subprocess
import sys

import pytest
from conftest import REPOSITORY

CODE = (
    "import labelgen, numpy as np; from labelgen.labels import boundaries, motion\n"
    "from labelgen.kernels import _kept_in, sources_hash\n"
    "flow = np.zeros((2, 2, 128, 171), np.float32); flow[:, :, 60:, 80:] = 6\n"
    "print(motion.motion_maps(flow, boundaries.boundary_sums(flow)).pairs.max())\n"
    "print(sources_hash()); print(_kept_in())\n"
)


def run(package, **environment):
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        capture_output=True,
        text=True,
        cwd=package,
        env={**os.environ, "PYTHONPATH": str(package), **environment},
    )
    assert done.returncode == 0, done.stderr
    return [*done.stdout.split("\n")[:3], done.stderr]


@pytest.fixture
def package(tmp_path):
    shutil.copytree(
        REPOSITORY / "labelgen",
        tmp_path / "p" / "labelgen",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    return tmp_path / "p"


def test_a_change_in_one_file_reaches_kernels_of_another(package):
    value, before, kept, _ = run(package)
    assert kept == str(package / "labelgen" / "__pycache__" / f"kernels-{before}")
    assert run(package)[:3] == [value, before, kept]
    file = package / "labelgen" / "labels" / "boundaries.py"
    text = file.read_text()
    # The kernel of motion.py has inlined this one of boundaries.py.
    file.write_text(text.replace("_PREWITT * (sums[x + 2]", "2 * _PREWITT * (sums[x + 2]"))
    assert file.read_text() != text
    changed, after, elsewhere, _ = run(package)
    assert after != before
    assert elsewhere != kept
    assert float(changed) != float(value)


def test_nothing_can_be_written(package, tmp_path):
    """A read-only installation, and no home: a folder of this run's own, which is said once."""
    # Files where folders would have to be made stop even root.
    (package / "labelgen" / "__pycache__").write_text("no folder")
    (tmp_path / "home").write_text("no folder")
    environment = {
        "HOME": str(tmp_path / "home"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "NUMBA_CACHE_DIR": "",
        "XDG_CACHE_HOME": "",
    }
    value, _, kept, said = run(package, **environment)
    assert float(value) > 0
    assert said.count("compiled kernels cannot be kept in") == 1
    assert not os.path.exists(kept)


def test_the_users_own_choice_comes_first(package, tmp_path):
    _, found, kept, _ = run(package, NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    assert kept == str(tmp_path / "cache" / f"kernels-{found}")
    assert any((tmp_path / "cache").rglob("*.nbi"))


def test_other_peoples_kernels_stay_where_they_were():
    code = "import numba, labelgen.labels.motion; print(repr(numba.config.CACHE_DIR))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "NUMBA_CACHE_DIR": ""},
    )
    assert done.stdout == "''\n"
