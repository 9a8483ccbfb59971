"""What keeping freed memory saves on a CPU: seconds per training step with and without, in turns.

OMP_NUM_THREADS=1 python benchmarks/kept_memory.py --width 0.125 --batch 8
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from dataclasses import replace

ROUNDS = 3
STEPS = 12


def seconds_per_step(kept: bool, width: float, batch: int) -> float:
    import torch

    from train.data.loader import Batch
    from train.device import Machine, keep_freed_memory
    from train.metrics import VALUES
    from train.ranks import Ranks
    from train.recipe import RECIPES
    from train.step import Learner
    from train.tasks.pretrain import Pretraining

    device = torch.device("cpu")
    if kept:
        keep_freed_memory(device)
    recipe = replace(RECIPES["small"], width=width, batch=batch)
    known = {"moments": torch.ones(2, 27), "counts": torch.ones(27, VALUES)}
    task = Pretraining(recipe, known=known, device=device)
    machine = Machine(device="cpu", precision="fp32")
    learner = Learner(task, recipe=recipe, machine=machine, ranks=Ranks(), device=device)
    frames = torch.randint(0, 256, (batch, 16, 112, 112, 3), dtype=torch.uint8)
    fields = torch.zeros(batch, 0, 114, 114)
    data = Batch(frames, torch.ones(batch, 27, dtype=torch.uint8), fields, list(range(batch)))
    figures, took = task.new_figures(), []
    for _ in range(STEPS):
        start = time.perf_counter()
        learner.step([data], figures=figures).read()
        took.append(time.perf_counter() - start)
    return statistics.median(took[2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=float, default=0.125)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--one", choices=["kept", "plain"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(seconds_per_step(options.one == "kept", options.width, options.batch))
        return
    found: dict[str, list[float]] = {"plain": [], "kept": []}
    for _ in range(ROUNDS):
        for how, seconds in found.items():
            words = [sys.executable, __file__, "--one", how, "--width", str(options.width)]
            done = subprocess.run(
                [*words, "--batch", str(options.batch)], check=True, capture_output=True, text=True
            )
            seconds.append(float(done.stdout))
    plain, kept = (statistics.median(found[how]) for how in ("plain", "kept"))
    print(f"{1e3 * plain:.0f} ms per step, {1e3 * kept:.0f} ms kept: {plain / kept:.2f} times")


if __name__ == "__main__":
    main()
