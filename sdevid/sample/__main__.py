"""`accelerate launch -m sdevid.sample`, or `sdevid sample` for one process."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sdevid import export
from sdevid.command_line import command_parser, guarded
from sdevid.sample.arguments import add_arguments, job_from, provenance
from sdevid.sample.processes import one_thread_on_cpu, processes
from sdevid.sample.sampler import sample


def main(arguments: Sequence[str] | None = None) -> int:
    """Sample, and report a user's mistake once and without a traceback. Returns the exit code."""
    parser = command_parser(
        "sample",
        "Generate video with a trained model. On a CPU a process uses one core; start several by\n"
        "`accelerate launch -m sdevid.sample` for more. The videos stay the same.",
        "sdevid sample --model_path runs/mine --output_dir runs/mine/samples",
    )
    add_arguments(parser)
    parser.add_output_arguments()
    return guarded("sample", lambda: _sample(parser.parse_args(arguments)), every_rank=False)


def _sample(args: argparse.Namespace) -> int:
    with one_thread_on_cpu(), processes() as state:
        model, config = export.load(args.model_path, args.weights)
        job = job_from(args, config, batch_size=8 if state.device.type == "cuda" else 1)
        sample(model, job, args.output_dir, state, provenance(args))
    return 0


if __name__ == "__main__":
    sys.exit(main())
