"""`make_shards` and `sdevid shards make`: cut videos, or draw them, into shards."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from sdevid.config import TextConfig
from sdevid.data.cut.options import parse
from sdevid.data.cut.plan import Plan
from sdevid.data.cut.plans import make_plan
from sdevid.data.cut.run import cut
from sdevid.data.cut.summary import summary
from sdevid.data.embedding import Embedder
from sdevid.data.latents import PictureEncoder
from sdevid.errors import UserError
from sdevid.exit_code import ExitCode

LoadEncoder = Callable[[Path, int], Embedder]  # folder, tokens of a caption
LoadAutoencoder = Callable[[Path], PictureEncoder]  # folder


def main(
    arguments: Sequence[str] | None = None,
    *,
    load_encoder: LoadEncoder,
    load_autoencoder: LoadAutoencoder,
) -> int:
    """Run the command; the functions open the folders of --text_encoder and --autoencoder.

    Returns the exit code: 0; 2 for what the user can mend; 3 interrupted, the same command
    carries on.
    """
    started = time.monotonic()
    try:
        options = parse(arguments)
        plan = _encoding(make_plan(options), options, load_encoder, load_autoencoder)
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
        return ExitCode.RESUMABLE
    print("\n".join(summary(content, options.output_dir, time.monotonic() - started)))
    return 0


def _encoding(
    plan: Plan, options: Namespace, load_encoder: LoadEncoder, load_autoencoder: LoadAutoencoder
) -> Plan:
    """Add to `plan` the frozen encoders that the options name."""
    if options.text_encoder is not None:
        length = options.text_length or TextConfig().length
        plan = replace(plan, embed=load_encoder(options.text_encoder, length))
    if options.autoencoder is None:
        return plan
    if plan.arrays is not None:
        raise UserError(
            "--autoencoder is given, but the transform of arrays is known only once all are cut; "
            "leave it out and train with encoder.frozen: then clips are encoded as training goes on"
        )
    return replace(plan, autoencoder=load_autoencoder(options.autoencoder))
