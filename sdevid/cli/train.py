"""`sdevid train`: train, or carry on where the run stopped."""

from __future__ import annotations

from collections.abc import Sequence

from sdevid.cli.run_config import add_config_arguments, parse_with_config
from sdevid.command_line import command_parser
from sdevid.errors import UserError

PROFILED = 5  # steps, where `profile_steps` says nothing


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as the config says. Raises UserError for what a user can mend."""
    parser = command_parser(
        "train",
        "Train, or carry on where the run stopped: the same command again resumes.",
        "sdevid train --config signs data=data/mine run_dir=runs/mine batch_size=16",
    )
    add_config_arguments(parser)
    parser.add_argument("--dry-run", action="store_true", help="say what it would take, and stop")
    parser.add_argument(
        "--flops",
        action="store_true",
        help="with --dry-run: run one clip on the CPU and count its floating-point operations",
    )
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="carry on from a checkpoint of an older version, whose files may run code",
    )
    parser.add_argument(
        "--profile", action="store_true", help="record five steps into run_dir/profile"
    )
    parser.add_output_arguments()
    options, config = parse_with_config(parser, arguments)
    if options.profile and not config.profile_steps:
        config = config.model_copy(update={"profile_steps": PROFILED})
    if options.flops and not options.dry_run:
        raise UserError("--flops counts in place of training; give --dry-run beside it")
    if options.dry_run:
        from sdevid.train.summary.startup_summary import dry_run

        print(dry_run(config))
        if options.flops:
            from sdevid.train.summary.utilization import work_of_a_clip

            print(f"\n{work_of_a_clip(config)}")
        return 0
    from sdevid.train.run import train_run

    return train_run(config, trust_checkpoint=options.trust_checkpoint)
