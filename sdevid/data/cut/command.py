"""`make_shards` and `sdevid shards make`: cut videos, or draw them, into shards."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sdevid.config import TextConfig
from sdevid.data.cut.options import parse
from sdevid.data.cut.plans import make_plan
from sdevid.data.cut.run import cut
from sdevid.data.embedding import Embedder
from sdevid.errors import UserError

LoadEncoder = Callable[[Path, int], Embedder]  # folder, tokens of a caption


def main(arguments: Sequence[str] | None = None, *, load_encoder: LoadEncoder) -> int:
    """Run the command; `load_encoder` opens the folder of --text_encoder.

    Returns the exit code: 0, 2 for what the user can mend, 130 after an interrupt.
    """
    started = time.monotonic()
    try:
        options = parse(arguments)
        plan = make_plan(options)
        if options.text_encoder is not None:
            length = options.text_length or TextConfig().length
            plan = replace(plan, embed=load_encoder(options.text_encoder, length))
        if plan.left_out:
            name, reason = plan.left_out[0]
            print(f"{len(plan.left_out)} left out, as {name}: {reason}", file=sys.stderr)
        content = cut(
            plan,
            options.output_dir,
            workers=options.workers,
            max_bad_fraction=options.max_bad_fraction,
            overwrite=options.overwrite,
        )
    except UserError as error:
        print(f"make_shards: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"make_shards: {error}; mend it: the same command carries on", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("make_shards: stopped; the same command carries on", file=sys.stderr)
        return 130
    _summarize(content, options.output_dir, time.monotonic() - started)
    return 0


def _summarize(content: dict[str, Any], folder: Path, seconds: float) -> None:
    print(f"{folder}: {content['dataset']}, {content['store']}, {seconds:.1f} s")
    for split, said in content["splits"].items():
        size = sum((folder / shard).stat().st_size for shard in said["shards"])
        print(
            f"  {split}: {said['clips']} clips of {said['videos']} videos in "
            f"{len(said['shards'])} shards, {size / 2**20:.1f} MiB"
        )
    if content["clips_with_repeated_frames"]:
        print(
            f"  {content['clips_with_repeated_frames']} clips repeat frames: their videos have "
            f"fewer than {content['fps']:g} a second"
        )
    if content["quarantined"] or content["left_out"]:
        print(
            f"  {content['quarantined']} bad videos, {content['left_out']} left out: "
            f"{folder / 'quarantine.jsonl'}"
        )
