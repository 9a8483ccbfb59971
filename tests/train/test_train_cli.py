"""The command line: fast help, one sentence per mistake, exit codes, export and curve."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from train_helpers import toy_shards

from labelgen.shards.folder import locked
from train import checkpoint, cli, state
from train.checkpoint import load
from train.models.c3d import C3D
from train.recipe import RECIPES

TINY = [
    "--device", "cpu", "--width", "0.03", "--batch", "4", "--epochs", "1", "--batch-norm",
    "--val", "0.2",
]  # fmt: skip


def train(capsys, monkeypatch, *arguments):
    """Run the command; return its exit code, output and messages."""
    monkeypatch.setattr(sys, "argv", ["train", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    said = capsys.readouterr()
    return left.value.code or 0, said.out, said.err


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_shards(tmp_path_factory.mktemp("toy") / "s", 10)


@pytest.fixture(scope="module")
def finished(toy, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "x"
    with pytest.raises(SystemExit) as left:
        cli.cli(["pretrain", "--labels", str(toy), "--out", str(out), *TINY])
    assert left.value.code == 0
    return out


@pytest.mark.parametrize("arguments", [["--help"], ["pretrain", "--help"], ["bench", "--help"]])
def test_help_loads_no_torch(arguments):
    code = (
        "import sys; from train import cli\n"
        f"sys.argv = ['train', *{arguments}]\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'cv2', 'h5py', 'numpy', 'numba'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=environment, check=True
    )
    assert said.stdout.decode().endswith("[]\n")


MISTAKES = {
    "no shards": (["--labels", "{tmp}/nowhere"], "holds no shards"),
    "wrong folder": (["--labels", "{tmp}"], "holds no shards"),
    "batch": (
        ["--labels", "{toy}", "--val", "0", "--batch", "11"],
        "larger than the training set of 10",
    ),
    "unknown task": (
        ["--labels", "{toy}", "--tasks", "motion,colour"],
        "Unknown task 'colour'; choose",
    ),
    "half a task": (["--labels", "{toy}", "--tasks", "mot"], "Unknown task 'mot'"),
    "fraction": (["--labels", "{toy}", "--val", "1.5"], "fraction from 0 to below 1, not 1.5"),
    "val": (["--labels", "{toy}", "--val", "{tmp}/gone"], "holds no shards"),
    "views": (["--labels", "{toy}", "--batch", "4", "--views", "3"], "a multiple of views 3"),
    "rate": (["--labels", "{toy}", "--lr", "-1"], "lr must be positive, not -1"),
    "no number": (["--labels", "{toy}", "--lr", "nan"], "lr must be positive, not nan"),
    "decay": (["--labels", "{toy}", "--weight-decay", "-1"], "weight_decay must not be negative"),
    "the same": (["--labels", "{toy}", "--val", "{toy}"], "share 10 videos"),
    "group": (["--labels", "{toy}", "--group-by", "x"], "--group-by 'x' fits nothing"),
    "device": (
        ["--labels", "{toy}", "--device", "tpu"],
        "--device takes auto, cpu, cuda or cuda:N",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_sentence(mistake, toy, tmp_path, capsys, monkeypatch):
    options, sentence = MISTAKES[mistake]
    options = [option.format(tmp=tmp_path, toy=toy) for option in options]
    out = ["--out", tmp_path / "out", "--width", 0.03]
    code, _, said = train(capsys, monkeypatch, "pretrain", *out, *options)
    assert code == 2
    assert sentence in said
    assert said.count("\n") == 1, said


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_gets_one_sentence(toy, tmp_path, capsys, monkeypatch):
    options = ["--labels", toy, "--out", tmp_path / "x", "--device", "cuda:1"]
    code, _, said = train(capsys, monkeypatch, "pretrain", *options)
    assert code == 2
    assert "sees no GPU; use --device cpu" in said


def test_missing_extras_get_one_sentence(toy, finished, tmp_path, capsys, monkeypatch):
    for module in ("torch.utils.tensorboard", "safetensors.torch"):
        monkeypatch.setitem(sys.modules, module, None)
    options = ["--labels", toy, "--out", tmp_path / "x", "--tensorboard", *TINY]
    code, _, said = train(capsys, monkeypatch, "pretrain", *options)
    assert (code, said.splitlines()[-1]) == (
        2, "train: --tensorboard needs the package; pip install tensorboard.",
    )  # fmt: skip
    code, _, said = train(
        capsys, monkeypatch, "export", finished, "-o", tmp_path / "c3d.safetensors"
    )
    assert (code, said) == (
        2,
        "train: Export needs the package safetensors; pip install safetensors.\n",
    )


def test_export_holds_the_backbone_and_its_settings(finished, tmp_path, capsys, monkeypatch):
    safetensors = pytest.importorskip("safetensors")
    path = tmp_path / "c3d.safetensors"
    assert train(capsys, monkeypatch, "export", finished, "-o", path)[0] == 0
    with safetensors.safe_open(path, "pt") as file:
        recipe = json.loads(file.metadata()["recipe"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    backbone = C3D(batch_norm=recipe["batch_norm"], pixels=recipe["pixels"], width=recipe["width"])
    backbone.load_state_dict(weights)
    stored = load(finished / "best.pt")["model"]
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, stored[f"backbone.{name}"])


def test_tensorboard_gets_the_same_figures(toy, tmp_path, capsys, monkeypatch):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    options = ["--labels", toy, "--out", tmp_path / "x", "--tensorboard", *TINY]
    assert train(capsys, monkeypatch, "pretrain", *options)[0] == 0
    events = accumulator.EventAccumulator(str(tmp_path / "x" / "tensorboard")).Reload()
    record = json.loads((tmp_path / "x" / "log.jsonl").read_text())
    (event,) = events.Scalars("held_out/motion/mse")
    assert event.value == pytest.approx(record["held_out"]["branches"]["motion"]["mse"])


def test_curve_is_a_picture_of_the_run(finished, tmp_path, capsys, monkeypatch):
    path = tmp_path / "curve.png"
    assert train(capsys, monkeypatch, "curve", finished, "-o", path)[0] == 0
    picture = cv2.imread(str(path)).astype(int)
    blue = picture[..., 0] - picture[..., 2]
    assert (blue > 100).any()  # the motion line
    assert (blue < -100).any()  # the appearance line
    code, _, said = train(capsys, monkeypatch, "curve", tmp_path, "-o", path)
    assert code == 2
    assert "give the folder of a `train pretrain` run" in said


def test_bench_says_what_limits(toy, capsys, monkeypatch):
    options = ["--labels", toy, "--batch", 2, "--width", 0.03, "--seconds", 0.1, "--device", "cpu"]
    code, out, _ = train(capsys, monkeypatch, "bench", *options)
    assert code == 0
    machine, *_, last = out.splitlines()
    assert f"PyTorch {torch.__version__}" in machine
    assert last.startswith("The step limits: it is ")


def test_status_says_what_came_of_a_run(finished, toy, tmp_path, capsys, monkeypatch):
    assert train(capsys, monkeypatch, "status", finished)[:2] == (0, "finished\n")
    code, _, said = train(capsys, monkeypatch, "status", tmp_path)
    assert (code, said.count("\n")) == (2, 1)
    assert "holds no run; give the --out of `train pretrain`" in said
    options = ["--labels", toy, "--out", tmp_path / "x", *TINY]
    train(capsys, monkeypatch, "pretrain", *options, "--batch", 99)
    code, out, _ = train(capsys, monkeypatch, "status", tmp_path / "x")
    assert (code, out.split()[:4]) == (2, ["A", "batch", "of", "99"])


def test_status_of_a_killed_run_and_of_one_that_runs(finished, tmp_path, capsys, monkeypatch):
    state.write_running(tmp_path, "3 of 9 epochs are done")
    code, out, _ = train(capsys, monkeypatch, "status", tmp_path)
    assert (code, out) == (75, "ended without a word, perhaps killed: 3 of 9 epochs are done\n")
    with locked(tmp_path):
        code, out, _ = train(capsys, monkeypatch, "status", tmp_path)
    assert (code, out) == (75, "running: 3 of 9 epochs are done\n")


FAILURES = {
    "out of memory": (
        "from train import step\n"
        "def fail(*args, **options): raise RuntimeError('CUDA out of memory (simulated)')\n"
        "step.Learner.step = fail",
        1,
        "CUDA out of memory (simulated)",
    ),
    "full disk": (
        "import torch\n"
        "def fail(*args): raise OSError(28, 'No space left on device')\n"
        "torch.save = fail",
        2,
        "last.pt cannot be written (No space left on device)",
    ),
    "bad frame": (
        "from train.data import dataset\n"
        "from train_helpers import spoilt\n"
        "import pathlib; spoilt(pathlib.Path(sys.argv[sys.argv.index('--labels') + 1]), 2)",
        2,
        "toy-00000-of-00001.h5, clip 2: it cannot be read (not a JPEG)",
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_no_failure_hangs_where_there_are_loader_processes(failure, tmp_path):
    preparation, code, sentence = FAILURES[failure]
    program = tmp_path / "program.py"
    program.write_text(
        f"import sys\nif __name__ == '__main__':\n    exec({preparation!r})\n"
        "    from train import cli\n    cli.main()\n"
    )
    labels = toy_shards(tmp_path / "s", 10, jpeg=True)
    done = subprocess.run(
        [
            *(sys.executable, program, "pretrain", "--labels", labels, "--out", tmp_path / "x"),
            *("--workers", "2", *TINY),
        ],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert sentence in done.stderr
    assert ("Traceback" in done.stderr) == (code == 1)


def test_bench_compares_the_loader_with_another(toy, tmp_path, capsys, monkeypatch):
    other = tmp_path / "slow_way.py"
    other.write_text(
        "import time\ndef sampler(labels, folder):\n    return lambda: time.sleep(0.05)"
    )
    options = ["--labels", toy, "--batch", 2, "--width", 0.03, "--seconds", 0.1, "--device", "cpu"]
    code, out, _ = train(capsys, monkeypatch, "bench", *options, "--baseline", other)
    assert code == 0
    assert re.search(r"slow_way +\d+\.\d samples/s  \(\d+ x slower\)", out)
    other.write_text("")
    code, _, said = train(capsys, monkeypatch, "bench", *options, "--baseline", other)
    assert code == 2
    assert "slow_way.py defines no function sampler" in said


class Payload:
    def __reduce__(self):
        return (print, ("code ran",))


def test_checkpoints_run_no_code_and_damage_is_said(tmp_path, capsys):
    for name, content in (("evil.pt", {"x": Payload()}), ("other.pt", {"x": 1})):
        torch.save(content, tmp_path / name)
        with pytest.raises(checkpoint.TrainError, match=f"{name} is"):
            load(tmp_path / name)
    (tmp_path / "cut.pt").write_bytes((tmp_path / "evil.pt").read_bytes()[:100])
    with pytest.raises(checkpoint.TrainError, match=r"cut.pt is damaged"):
        load(tmp_path / "cut.pt")
    assert "code ran" not in capsys.readouterr().out


def test_a_failed_write_leaves_the_old_checkpoint(finished, tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    path.write_bytes((finished / "last.pt").read_bytes())
    before = path.read_bytes()

    def fail(content, file):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint.torch, "save", fail)
    content = load(path)
    net = torch.nn.Linear(1, 1)
    with pytest.raises(checkpoint.TrainError, match=r"last.pt cannot be written \(disk full\)"):
        checkpoint.save(
            path, model=net, optimizer=torch.optim.SGD(net.parameters()), sums=content["sums"],
            moments=content["moments"],
            progress=checkpoint.Progress(), recipe=checkpoint.Recipe(), labels={},
        )  # fmt: skip
    assert path.read_bytes() == before


def test_default_recipes_are_the_papers():
    from train.recipe import RECIPES

    ucf101, kinetics, _ = RECIPES.values()
    assert (ucf101.batch, ucf101.lr, ucf101.lr_every, ucf101.epochs) == (30, 0.001, 5, 20)
    assert (kinetics.batch, kinetics.lr, kinetics.lr_every, kinetics.epochs) == (30, 0.0005, 7, 20)
    assert np.isclose(kinetics.rate(7), 0.00005)


def test_options_of_zero_are_taken():
    given = dict.fromkeys(("weight_decay", "appearance_weight", "drop_still"), 0.0)
    chosen = cli._recipe("ucf101", {**given, "seed": 0, "batch_norm": None, "tasks": None})
    assert (chosen.weight_decay, chosen.appearance_weight) == (0, 0)
    assert chosen == replace(RECIPES["ucf101"], weight_decay=0.0, appearance_weight=0.0)
