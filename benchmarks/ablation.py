"""Settings left out or put in, one run each: the same clips, seed, schedule and evaluation.

    python benchmarks/ablation.py --config configs/smmnist.yaml --data data/smmnist --clips 6000 \
        --output runs/ablation all= first_order=sde.order=1 no_futures=consistency.futures=0

A variant is NAME=SETTING=VALUE[,SETTING=VALUE...]. Each is trained by `sdevid train` and read by
`sdevid evaluate` (where it fails, on the split `--split`); the processor time of training is that
of its own process. Results go to OUTPUT/ablation.csv, a line a variant, as soon as each is done.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

COLUMNS = {  # of the table, and where `failures` has them
    "slope of one step from the posterior's state": ("shift_slope", "from_posterior_1_no_noise"),
    "slope of one step from its own start": ("shift_slope", "from_prior_start_1_no_noise"),
    "slope of three": ("shift_slope", "from_prior_start_3_no_noise"),
    "posterior, dB": ("psnr", "posterior"),
    "one step from its own start, dB": ("psnr", "from_prior_start_1_no_noise"),
    "three, dB": ("psnr", "from_prior_start_3_no_noise"),
    "standing still for one, dB": ("psnr", "still_1"),
    "standing still for three, dB": ("psnr", "still_3"),
    "brightness of one, with noise": ("brightness", "from_prior_start_1_noise"),
    "sharpness of one, with noise": ("sharpness", "from_prior_start_1_noise"),
    "brightness of three, with noise": ("brightness", "from_prior_start_3_noise"),
    "sharpness of three, with noise": ("sharpness", "from_prior_start_3_noise"),
    "KL a frame": ("nats", "kl_path_a_frame"),
}


def variant(text: str) -> tuple[str, list[str]]:
    """Return a name and its overrides from NAME=SETTING=VALUE[,...]."""
    name, equals, settings = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} must read NAME=SETTING=VALUE[,...] or NAME=")
    return name, [setting for setting in settings.split(",") if setting]


def run(command: list[str]) -> float:
    """Run `python -m sdevid ...`; return the seconds of processor time that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "sdevid", *command], check=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measured(results: Mapping[str, Any]) -> dict[str, str]:
    """Return the table's columns, a mean and its standard error each where there is one."""
    cells = {}
    for title, (group, name) in COLUMNS.items():
        entry = results["failures"][group].get(name)
        if entry is None:
            cells[title] = ""
        elif isinstance(entry, dict):
            cells[title] = f"{entry['mean']:.3f} ± {entry['standard_error']:.3f}"
        else:
            cells[title] = f"{entry:.3f}"
    return cells


def main() -> None:
    """Train and measure every variant in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--clips", type=int, required=True, help="of each training")
    parser.add_argument("--split", default="test")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("variants", nargs="+", type=variant)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    with (options.output / "ablation.csv").open("w", newline="") as table:
        writer = csv.DictWriter(table, ["variant", "training, CPU s", "settings", *COLUMNS])
        writer.writeheader()
        for name, settings in options.variants:
            folder, results = options.output / name, options.output / f"{name}.json"
            same = [f"run_dir={folder}", f"data={options.data}", f"max_clips={options.clips}"]
            spent = run(["train", "--config", options.config, *same, *settings])
            read = ["--model_path", str(folder), "--data", options.data, "--split", options.split]
            run(["evaluate", *read, "--metrics", "failures", "--output", str(results)])
            row = {"variant": name, "training, CPU s": f"{spent:.0f}"}
            row["settings"] = " ".join(settings)
            writer.writerow(row | measured(json.loads(results.read_text())))
            table.flush()


if __name__ == "__main__":
    main()
