"""The command line: fast help, one sentence per mistake, exit codes, export and curve."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from train_helpers import moving_shards, toy_shards

from labelgen.shards.claims import locked
from train import TrainError, bench, checkpoint, cli, state
from train.checkpoint import load
from train.device import Machine
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
    "val": (["--labels", "{toy}", "--val", "{tmp}/gone"], "is neither a folder of shards nor"),
    "views": (["--labels", "{toy}", "--batch", "4", "--views", "3"], "a multiple of --views 3"),
    "rate": (["--labels", "{toy}", "--lr", "-1"], "--lr must be above 0 and at most 1000000"),
    "no number": (["--labels", "{toy}", "--lr", "nan"], "--lr must be above 0"),
    "decay": (["--labels", "{toy}", "--weight-decay", "nan"], "--weight-decay must be a number"),
    "width": (["--labels", "{toy}", "--width", "1e9"], "--width must be above 0 and at most 8"),
    "seed": (
        ["--labels", "{toy}", "--seed", "9" * 30],
        "--seed must be a number from 0 to below 9223372036854775808",
    ),
    "weights": (
        ["--labels", "{toy}", "--motion-weight", "0", "--tasks", "motion"],
        "With --motion-weight 0 there is nothing to learn",
    ),
    "nowhere": (["--labels", ""], "An empty name is no folder"),
    "percent": (["--labels", "{toy}", "--val", "50%"], "--val '50%' is neither a folder"),
    "out": (["--labels", "{toy}", "--out", "{toy}"], "holds shards; name another folder"),
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
        "train: Export needs the package safetensors; pip install safetensors, or the extra "
        "'export'.\n",
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
    for figure in ("loss", "held_out_loss", "lr", "grad_norm_max", "left_out"):
        (event,) = events.Scalars(f"run/{figure}")
        assert event.value == pytest.approx(record[figure])


def test_curve_is_a_picture_of_the_run(finished, tmp_path, capsys, monkeypatch):
    path = tmp_path / "curve.png"
    assert train(capsys, monkeypatch, "curve", finished, "-o", path)[0] == 0
    picture = cv2.imread(str(path)).astype(int)
    blue = picture[..., 0] - picture[..., 2]
    assert (blue > 100).any()  # the motion line
    assert (blue < -100).any()  # the appearance line
    code, _, said = train(capsys, monkeypatch, "curve", tmp_path, "-o", path)
    assert code == 2
    assert "give the folder of a run of `train pretrain`" in said


def test_bench_says_what_limits(toy, capsys, monkeypatch):
    options = ["--labels", toy, "--batch", 2, "--width", 0.03, "--seconds", 0.1, "--device", "cpu"]
    code, out, _ = train(capsys, monkeypatch, "bench", *options)
    assert code == 0
    machine, *_, last = out.splitlines()
    assert f"PyTorch {torch.__version__}" in machine
    assert last.startswith("The step limits: it is ")


def test_bench_reads_what_the_loss_needs(toy, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "rate", lambda work, *_, **__: (work(), 1.0)[1])
    moving = moving_shards(tmp_path / "s", 8)
    options = ["--batch", 2, "--width", 0.03, "--device", "cpu", "--loss", "statistics"]
    code, _, said = train(capsys, monkeypatch, "bench", "--labels", moving, *options)
    assert code == 0, said
    code, _, said = train(capsys, monkeypatch, "bench", "--labels", toy, *options)
    assert code == 2
    assert "has no motion boundaries" in said


def test_bench_drains_before_each_measurement_of_the_loader(toy, capsys, monkeypatch):
    done = []
    monkeypatch.setattr(bench, "drain", lambda *_: done.append("drained"))
    monkeypatch.setattr(bench, "rate", lambda *_, **__: done.append("timed") or 1.0)
    options = ["--labels", toy, "--batch", 2, "--width", 0.03, "--device", "cpu"]
    train(capsys, monkeypatch, "bench", *options)
    assert done == ["timed", "drained", "timed", "drained", "timed"]


@pytest.mark.parametrize("seconds", ["0", "nan", "inf"])
def test_a_bench_takes_time(toy, capsys, monkeypatch, seconds):
    options = ["--labels", toy, "--seconds", seconds, "--device", "cpu"]
    code, _, said = train(capsys, monkeypatch, "bench", *options)
    assert code == 2
    assert "seconds" in said
    assert "Traceback" not in said


def test_draining_takes_all_that_workers_made_ahead():
    loads = iter(range(1000))
    bench.drain(loads, 3)
    assert next(loads) == 3 * bench.PREFETCH + 1


def test_the_plain_step_has_pixels_in_planes(monkeypatch):
    seen = []
    machine = Machine(device="cpu", precision="fp32")
    recipe = replace(RECIPES["small"], width=0.03, batch=2)
    for plain in (True, False):
        step = bench.Step(recipe, machine, torch.device("cpu"), plain=plain)
        first = step._learner.net.backbone.layers[0]
        first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        frames = torch.zeros(2, 16, 112, 112, 3, dtype=torch.uint8)
        fields = torch.zeros(2, 0, 114, 114)
        step(bench.Batch(frames, torch.ones(2, 27, dtype=torch.uint8), fields, [0, 1]))
        step.finish()
    assert [x.is_contiguous() for x in seen] == [True, False]
    assert seen[1].is_contiguous(memory_format=torch.channels_last_3d)


def test_the_releases_loader_can_be_compared_with(tmp_path, capsys, monkeypatch):
    labels = toy_shards(tmp_path / "s", 3)
    other = REPOSITORY / "benchmarks" / "release_loader.py"
    options = ["--labels", labels, "--batch", 2, "--width", 0.03, "--seconds", 0.1]
    code, out, _ = train(
        capsys, monkeypatch, "bench", *options, "--device", "cpu", "--baseline", other
    )
    assert code == 0
    assert "release_loader" in out


def test_status_says_what_came_of_a_run(finished, toy, tmp_path, capsys, monkeypatch):
    assert train(capsys, monkeypatch, "status", finished)[:2] == (0, "finished\n")
    code, _, said = train(capsys, monkeypatch, "status", tmp_path)
    assert (code, said.count("\n")) == (2, 1)
    assert "holds no run; give the folder of one" in said
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
        "import resource\nfrom train import checkpoint\nreal = checkpoint.save\n"
        "def limited(*args, **options):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "    real(*args, **options)\n"
        "checkpoint.save = limited",
        2,
        "last.pt cannot be written (File too large)",
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


def test_a_checkpoint_with_a_wrong_bit_is_refused(finished, tmp_path):
    content = bytearray((finished / "last.pt").read_bytes())
    spoilt = 0
    for place in range(200, len(content), len(content) // 20):
        one = bytearray(content)
        one[place] ^= 4
        (tmp_path / "x.pt").write_bytes(one)
        try:
            found = load(tmp_path / "x.pt")
        except checkpoint.TrainError:
            spoilt += 1
        else:  # a wrong bit between the parts of the file changes nothing
            for name, tensor in load(finished / "last.pt")["model"].items():
                assert torch.equal(found["model"][name], tensor)
    assert spoilt > 10


def test_outputs_that_are_no_files_are_refused(finished, tmp_path, capsys, monkeypatch):
    pytest.importorskip("safetensors")
    os.mkfifo(tmp_path / "pipe")
    for output in (tmp_path, tmp_path / "pipe", tmp_path / "nowhere" / "x"):
        for command in ("export", "curve"):
            code, _, said = train(capsys, monkeypatch, command, finished, "-o", output)
            assert (code, said.count("\n")) == (2, 1), said
            assert "cannot be written" in said
    assert (tmp_path / "pipe").is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_an_exported_file_is_for_all_to_read(finished, tmp_path, capsys, monkeypatch):
    pytest.importorskip("safetensors")
    path = tmp_path / "c3d.safetensors"
    train(capsys, monkeypatch, "export", finished, "-o", path)
    assert path.stat().st_mode == (finished / "last.pt").stat().st_mode


@pytest.mark.parametrize("log", ["[1]", "{}", "no json"])
def test_a_damaged_log_is_said(tmp_path, log, capsys, monkeypatch):
    (tmp_path / "log.jsonl").write_text(log)
    code, _, said = train(capsys, monkeypatch, "curve", tmp_path, "-o", tmp_path / "x.png")
    assert (code, said.count("\n")) == (2, 1)
    assert "log.jsonl is damaged" in said


@pytest.mark.parametrize("lost", ["2>&-", ">&-", "> /dev/full", "2> /dev/full", "| true"])
def test_lost_output_ends_no_training(toy, tmp_path, lost):
    words = [
        sys.executable,
        "-m",
        "train.cli",
        "pretrain",
        "--labels",
        toy,
        "--out",
        tmp_path / "x",
    ]
    line = f"{shlex.join(map(str, [*words, *TINY]))} {lost}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(["bash", "-c", line], env=environment, capture_output=True, check=False)
    assert state.run_status(tmp_path / "x") == ("finished", 0)


def test_a_mistake_takes_the_place_of_an_earlier_end(finished, toy, tmp_path, capsys, monkeypatch):
    """A scheduler that asks must not be told to run a mistake again for ever."""
    shutil.copytree(finished, tmp_path / "x")
    state.write_running(tmp_path / "x", "")
    options = ["--labels", toy, "--out", tmp_path / "x"]
    for mistake in (["--lr", "nan"], ["--device", "tpu"], ["--val", "2"]):
        assert train(capsys, monkeypatch, "pretrain", *options, *mistake)[0] == 2
        assert train(capsys, monkeypatch, "status", tmp_path / "x")[0] == 2


def test_a_second_signal_leaves_what_a_scheduler_runs_again(tmp_path):
    with pytest.raises(KeyboardInterrupt), state.recorded(tmp_path / "x"):
        raise KeyboardInterrupt
    assert state.run_status(tmp_path / "x")[1] == 75


def test_a_record_that_cannot_be_written_hides_no_error(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    def spoil():
        with state.recorded(tmp_path / "x"):
            monkeypatch.setattr(state, "write_json", fail)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        spoil()


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

    def fail(file, content):
        with file.open("wb") as stream:
            stream.write(content[:99])
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", fail)
    content = load(path)
    net = torch.nn.Linear(1, 1)
    with pytest.raises(checkpoint.TrainError, match=r"last.pt cannot be written \(disk full\)"):
        checkpoint.save(
            path, model=net, optimizer=torch.optim.SGD(net.parameters()), sums=content["sums"],
            prepared=content["prepared"],
            progress=checkpoint.Progress(), recipe=RECIPES["small"], labels={},
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
    chosen = cli._recipe(RECIPES["ucf101"], {**given, "seed": 0, "batch_norm": None, "tasks": None})
    assert (chosen.weight_decay, chosen.appearance_weight) == (0, 0)
    assert chosen == replace(RECIPES["ucf101"], weight_decay=0.0, appearance_weight=0.0)


@pytest.mark.parametrize(
    ("recipe", "given", "said"),
    [
        ("small", {"lr_every": 3}, r"--lr-every has no effect with --schedule one-cycle: leave"),
        ("ucf101", {"targets": "raw", "loss": "ce"}, r"--targets has no effect with --loss ce: "),
        ("small", {"lr_every": 3, "schedule": "step"}, None),
        ("small", {"targets": "raw"}, None),
    ],
)
def test_an_option_that_nothing_reads_is_a_mistake(recipe, given, said):
    if said is None:
        assert vars(cli._recipe(RECIPES[recipe], given)).items() >= given.items()
    else:
        with pytest.raises(TrainError, match=said):
            cli._recipe(RECIPES[recipe], given)


def test_without_torch_there_is_one_sentence(toy, tmp_path):
    program = (
        "import sys\nsys.modules['torch'] = None\nfrom train import cli\n"
        "sys.argv = ['train', *{words!r}]\ncli.main()"
    )
    for words in (
        ["pretrain", "--labels", str(toy), "--out", str(tmp_path / "x")],
        ["export", "x", "-o", "y"],
        ["bench", "--labels", str(toy)],
    ):
        done = subprocess.run(
            [sys.executable, "-c", program.format(words=words)],
            capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (
            2, "train: PyTorch is not installed; pip install torch.\n",
        )  # fmt: skip


def test_ctrl_c_in_the_first_second_is_no_accident(toy, tmp_path, capsys, monkeypatch):
    def press(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_recipe", press)
    options = ["--labels", toy, "--out", tmp_path / "x"]
    code, _, said = train(capsys, monkeypatch, "pretrain", *options)
    assert code == 75
    assert "Stopped at once" in said


def test_short_help(capsys, monkeypatch):
    code, out, _ = train(capsys, monkeypatch, "-h")
    assert code == 0
    assert "pretrain" in out


def test_a_curve_says_how_much_it_can_show(finished, tmp_path):
    from train import curve

    (record,) = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    assert "Held out: only 1 clip, which shows" in curve._caption(record)
    many = {**record, "held_out": {**record["held_out"], "clips": 400}}
    assert "Held out" not in curve._caption(many)
    assert "Nothing was held out" in curve._caption({**record, "held_out": None})


def test_what_is_far_below_0_is_a_mark_on_the_edge(tmp_path):
    from matplotlib.figure import Figure

    from train import curve

    axes = Figure().add_subplot()
    curve._draw(axes, [-3.7, 0.1, None, -0.2], label="x", color="red")
    line, marks = axes.get_lines()
    assert line.get_ydata().tolist() == [curve.LOWEST, 0.1, -0.2]
    assert (list(marks.get_xdata()), list(marks.get_ydata())) == ([1], [curve.LOWEST])
