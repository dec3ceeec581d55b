"""The weights of another run as those to start from."""

from __future__ import annotations

from pathlib import Path

import torch

from sdevid import export
from sdevid.errors import UserError
from sdevid.models.video_model import VideoModel


@torch.no_grad()
def start_from(model: VideoModel, folder: Path) -> str:
    """Copy the averaged weights in `folder` into the parameters of `model` that fit, by name.

    `folder` is a run, a checkpoint or an export. Parameters of another name or shape keep their
    initial values, so that a part can be added. Returns a line that names them. Raises UserError
    where there is no model in `folder`, or none of its weights fits.
    """
    try:
        source, _ = export.load(folder)
    except UserError as error:
        raise UserError(f"start_from: {error}") from error
    weights = dict(source.named_parameters())
    parameters = dict(model.named_parameters())
    fitting = {
        name: parameter
        for name, parameter in parameters.items()
        if name in weights and weights[name].shape == parameter.shape
    }
    if not fitting:
        raise UserError(
            f"start_from is {folder}, but none of its weights fits this model by name and shape; "
            "give a run of the same sde.latent and sizes"
        )
    for name, parameter in fitting.items():
        parameter.copy_(weights[name])
    new = sorted(parameters.keys() - fitting.keys())
    line = f"start_from {folder}: {len(fitting)} of {len(parameters)} tensors"
    return f"{line}; new: {', '.join(new)}" if new else line
