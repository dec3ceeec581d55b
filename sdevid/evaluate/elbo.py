"""The held-out evidence lower bound and its terms."""

from __future__ import annotations

import numpy as np
import torch

from sdevid.data import stream
from sdevid.data.shards import ShardIndex
from sdevid.evaluate.measured import Measured, mean_over
from sdevid.evaluate.progress import batches
from sdevid.objectives.clip_objective import ClipObjective
from sdevid.objectives.importance import bound, log_weight
from sdevid.objectives.latent_sde import LatentSDEObjective

TERMS = ("elbo", "reconstruction", "kl_path", "kl_initial", "kl_content", "control_energy")


@torch.no_grad()
def held_out(
    objective: ClipObjective,
    index: ShardIndex,
    clips: range,
    title: str = "held-out ELBO",
    batch_size: int = 16,
) -> dict[str, Measured]:
    """Each term in nats a clip, over the clips with these numbers in the index.

    No frame is observed and every KL counts in full: the bound on log p(clip) itself.
    """
    device = next(objective.parameters()).device
    found: dict[str, list[torch.Tensor]] = {name: [] for name in TERMS}
    for part in batches(clips, batch_size, title):
        batch = stream.fixed(index, objective.config, part)
        terms = objective.terms(
            batch.video.to(device), batch.ticks.to(device), batch.serial.to(device), context=0
        )
        for name in TERMS:
            found[name].append(terms[name].double().cpu())
    return {name: mean_over(np.asarray(torch.cat(values))) for name, values in found.items()}


@torch.no_grad()
def importance_weighted(
    objective: LatentSDEObjective, index: ShardIndex, clips: range, draws: int, batch_size: int = 16
) -> dict[str, Measured]:
    """The importance weighted bound of `draws` draws, and of one, in nats a clip.

    Both are of the same draws of the posterior, so that their difference is the gain.
    """
    device = next(objective.parameters()).device
    tight, loose = [], []
    for part in batches(clips, batch_size, f"IWAE bound, {draws} draws"):
        batch = stream.fixed(index, objective.config, part)
        video, ticks = batch.video.to(device), batch.ticks.to(device)
        serials = (batch.serial * draws + k for k in range(draws))
        each = torch.stack(
            [log_weight(objective, video, ticks, serial.to(device)) for serial in serials]
        ).double()
        tight.append(bound(each).cpu())
        loose.append(each.mean(0).cpu())
    found = {"iwae": torch.cat(tight), "elbo": torch.cat(loose)}
    found["gain"] = found["iwae"] - found["elbo"]
    return {name: mean_over(np.asarray(values)) for name, values in found.items()}
