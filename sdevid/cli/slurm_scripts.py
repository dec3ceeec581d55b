"""`sdevid slurm-scripts`: lay the launch and Slurm scripts in a folder of the user's."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from sdevid.command_line import command_parser
from sdevid.errors import UserError

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


def main(arguments: Sequence[str] | None = None) -> int:
    """Copy the scripts. Raises UserError where one stands there already and differs."""
    parser = command_parser(
        "slurm-scripts",
        "Lay launch/ and slurm/ in a folder; what a site needs goes into slurm/env.sh.",
        "sdevid slurm-scripts .\nbash launch/submit.sh --nodes=2 launch/train.sh configs/mine.yaml",
    )
    parser.add_argument("folder", type=Path, help="where launch/ and slurm/ are to stand")
    options = parser.parse_args(arguments)
    for path in lay(options.folder):
        print(path)
    return 0


def lay(folder: Path) -> list[Path]:
    """Copy every script below `folder`, executable bits kept, and return what was written."""
    pairs = [
        (source, folder / source.relative_to(SCRIPTS))
        for top in ("launch", "slurm")
        for source in sorted((SCRIPTS / top).rglob("*.sh"))
    ]
    for source, target in pairs:
        if target.exists() and target.read_bytes() != source.read_bytes():
            raise UserError(
                f"{target} exists and differs from the one of this version; move it away, or "
                "give another folder"
            )
    for source, target in pairs:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    return [target for _, target in pairs]
