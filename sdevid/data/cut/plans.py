"""From options to a plan: lists the videos of a folder, or the artists of drawn ones."""

from __future__ import annotations

import argparse

from sdevid.data.andi import ChallengeFields
from sdevid.data.brownian import BlobFilm
from sdevid.data.cut.array_listing import array_listing, settle
from sdevid.data.cut.custom import custom
from sdevid.data.cut.duplicates import group_duplicates
from sdevid.data.cut.kinetics import kinetics
from sdevid.data.cut.options import DISC, FILMED, OF_ARRAYS, SPLITS
from sdevid.data.cut.plan import Plan
from sdevid.data.cut.sources import Listing
from sdevid.data.cut.splits import assign, by_name, parse_splits
from sdevid.data.cut.tars import webdataset
from sdevid.data.cut.ucf101 import ucf101
from sdevid.data.digits import digit_artists, read_mnist
from sdevid.data.drawn import Artist, disc_artist, drawn_sources
from sdevid.data.payload import default_store
from sdevid.data.smmnist import stochastic_digits
from sdevid.data.spec import CutSpec
from sdevid.errors import UserError


def make_plan(options: argparse.Namespace) -> Plan:
    """Plan the cut that `options` describe. UserError where there is nothing to cut."""
    return _filmed(options) if options.dataset in FILMED else _drawn(options)


def _filmed(options: argparse.Namespace) -> Plan:
    folder, official = options.input_dir, options.splits is None
    out = options.output_dir
    if options.dataset == "kinetics":
        listing = kinetics(folder, options.annotations, official, out)
    elif options.dataset == "ucf101":
        listing = ucf101(folder, options.split_files, official, out)
    elif options.dataset == "webdataset":
        listing = webdataset(str(folder))
    else:
        arrays = array_listing(options)
        if arrays is not None:
            return _of_arrays(options, arrays)
        _refuse_of_arrays(options)
        listing = custom(folder, options.captions, out, options.label_level)
    if not listing.sources:
        item = listing.left_out[0]
        raise UserError(f"no video of {folder} can be taken: {item.name} {item.reason}")
    if options.splits == "names":
        listing.sources, options.splits = by_name(listing.sources), None
    listing.sources, duplicates = group_duplicates(listing.sources)
    shares = parse_splits(options.splits or SPLITS)
    return Plan(
        dataset=options.dataset,
        sources=assign(listing.sources, shares, options.seed),
        spec=_spec(options),
        shard_size=options.shard_size,
        settings={"splits": "official" if listing.sources[0].split else shares}
        | {"seed": options.seed},
        listing=listing,
        duplicates=duplicates,
    )


def _refuse_of_arrays(options: argparse.Namespace) -> None:
    """Raise UserError for an option that videos do not take."""
    given = [name for name in OF_ARRAYS if getattr(options, name) is not None]
    if given:
        raise UserError(
            f"--{given[0]} is for arrays, but {options.input_dir} holds videos, or none; leave it "
            "out, or cut the arrays from a folder of their own"
        )


def _of_arrays(options: argparse.Namespace, listing: Listing) -> Plan:
    settle(options, listing)
    if options.store not in (None, "npy"):
        raise UserError(f"--store is {options.store}, but arrays are kept as they are: npy")
    options.store = "npy"
    by_time = (options.splits or "").startswith("time=")
    if options.splits == "names":
        listing.sources = by_name(listing.sources)
    if options.one_file_each and options.tile is None and not by_time:
        listing.sources, duplicates = group_duplicates(listing.sources)
    else:
        duplicates = 0
    shares = parse_splits(SPLITS) if any(s.split for s in listing.sources) else None
    shares = shares or parse_splits(options.splits or SPLITS)
    return Plan(
        dataset=options.dataset,
        sources=assign(listing.sources, shares, options.seed),
        spec=_spec(options),
        shard_size=options.shard_size,
        settings={"splits": options.splits or SPLITS, "seed": options.seed},
        listing=listing,
        duplicates=duplicates,
        arrays={
            "dtype": options.dtype,
            "channel_names": list(options.channel_names),
            "unit": options.unit,
            "transform": options.transform or "percentile 0 100",
        },
    )


def _drawn(options: argparse.Namespace) -> Plan:
    shares = parse_splits(options.splits or SPLITS)
    settings = {"splits": shares, "seed": options.seed, "num_clips": options.num_clips}
    artists: dict[str, Artist] = {}
    if options.dataset == "moving-digits":
        folder = options.input_dir
        artists.update(digit_artists(options.num_digits, folder, shares))
        glyphs = "font" if folder is None else f"{len(read_mnist(folder)[0])} of MNIST"
        settings |= {"num_digits": options.num_digits, "digits": glyphs}
    elif options.dataset == "smmnist":
        folder, side = options.input_dir, options.frame_size
        artists.update(
            stochastic_digits(options.generator, options.num_digits, folder, shares, side)
        )
        settings |= {"num_digits": options.num_digits, "generator": options.generator}
        settings |= {"digits": f"{len(read_mnist(folder)[0])} of MNIST"}
    elif options.dataset == "brownian":
        film = BlobFilm(options.motion, options.blob_diffusion)
        artists.update(dict.fromkeys(shares, film))
        settings |= {"motion": options.motion}
        if options.motion == "brownian":
            settings |= {"blob_diffusion": options.blob_diffusion}
    elif options.dataset == "andi":
        artists.update(dict.fromkeys(shares, ChallengeFields(options.phenomenon)))
        settings |= {"phenomenon": options.phenomenon}
    else:
        artists.update(dict.fromkeys(shares, disc_artist(options.dataset, options.vertical)))
        if options.dataset in DISC:
            settings |= {"vertical": options.vertical}
    sources = drawn_sources(options.dataset, artists, options.seed, options.num_clips, shares)
    return Plan(
        dataset=options.dataset,
        sources=assign(sources, shares, options.seed),
        spec=_spec(options),
        shard_size=options.shard_size,
        settings=settings,
        truth=next(iter(artists.values())).truth(),
    )


def _spec(options: argparse.Namespace) -> CutSpec:
    longer = max(options.frame_size or 64, options.frame_width or 0)
    return CutSpec(
        frame_size=options.frame_size or 64,
        frame_width=options.frame_width,
        fps=options.fps or 8.0,
        clip_length=options.clip_length,
        clip_stride=options.clip_stride or options.clip_length,
        shots=options.shots == "on",
        fit=options.fit,
        store=options.store or default_store(longer),
        channels=options.channels or "rgb",
    )
