"""Stands for `tall` in tests of sweeps: writes at once what each command would, and notes its call.

STUB_CALLS names the file of calls; a training whose arguments hold STUB_FAIL fails, one whose arguments hold STUB_WAIT waits
until the file STUB_GO is there.
"""

import csv
import json
import os
import sys
import time
from pathlib import Path


def train(arguments, folder):
    settings = dict(one.split("=", 1) for one in arguments if "=" in one)
    steps, batch_size = int(settings.get("max_steps", 8)), 4
    seed = int(settings.get("seed", 0))
    (folder / "model").mkdir(parents=True, exist_ok=True)
    # Twice as good half-way as at the start; every seed a little better.
    history = [
        {"step": step, "eval_last_word_accuracy": (0.4 + 0.1 * seed) * step / steps}
        for step in range(steps // 4, steps + 1, steps // 4)
    ]
    write(folder / "trainer_state.json", {"log_history": history, "global_step": steps})
    write(folder / "training_settings.json", {"batch_size": batch_size, "dataloader_drop_last": False})
    metrics = {"eval_last_word_accuracy": history[-1]["eval_last_word_accuracy"], "trainable_parameters": 1000}
    metrics |= {"train_rows": 10, "steps": steps, "samples": steps * batch_size, "peak_accelerator_memory": None}
    write(folder / "metrics.json", metrics)


def evaluate(arguments, folder):
    path = folder / "sentences" / "clean" / "tall.csv"
    path.parent.mkdir(parents=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sentence", "missing_word", "correct"])
        writer.writerows([f"sentence {i}", "word", i % 2] for i in range(10))


def write(path, value):
    path.write_text(json.dumps(value), encoding="utf-8")


if __name__ == "__main__":
    verb, *arguments = sys.argv[1:]
    with open(os.environ["STUB_CALLS"], "a", encoding="utf-8") as file:
        file.write(" ".join([os.environ.get("STUB_PROCESS", "-"), verb, *arguments]) + "\n")
    if "WORLD_SIZE" in os.environ:
        sys.exit("A command of a sweep works by itself, but the launcher's variables were left to it.")
    if os.environ.get("STUB_WAIT", "\0") in " ".join([verb, *arguments]):
        while not Path(os.environ["STUB_GO"]).exists():
            time.sleep(0.01)
    if os.environ.get("STUB_FAIL", "\0") in " ".join([verb, *arguments]):
        sys.exit(3)
    output = Path(arguments[-1])
    output.mkdir(parents=True, exist_ok=True)
    {"train": train, "evaluate": evaluate}.get(verb, lambda *_: None)(arguments, output)
