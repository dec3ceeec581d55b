"""`sdevid preflight`: look whether the nodes are fit to train."""

from __future__ import annotations

from collections.abc import Sequence

from sdevid.cli.run_config import add_config_arguments, parse_with_config
from sdevid.command_line import command_parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Check every node of the job. Raises UserError that names a bad one."""
    parser = command_parser(
        "preflight",
        "Check Python, GPUs, network, disk and data on every node, and name a bad one.",
        "srun --ntasks-per-node=1 sdevid preflight --config kinetics data=/data/kinetics",
    )
    add_config_arguments(parser)
    parser.add_output_arguments()
    _, config = parse_with_config(parser, arguments)
    from sdevid.train.health import preflight
    from sdevid.train.world import open_world

    with open_world() as world:
        preflight.check_nodes(config, world)
    return 0
