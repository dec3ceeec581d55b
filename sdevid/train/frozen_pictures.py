"""Pictures for training: choose between stored latents, frames encoded on the way, and pixels."""

from __future__ import annotations

from pathlib import Path

from sdevid.autoencoder import folder as folders
from sdevid.config import Config
from sdevid.data import latents
from sdevid.data.shards import ShardIndex
from sdevid.data.webdataset_reader import TarStream
from sdevid.errors import UserError
from sdevid.train.world import World


def open_pictures(
    config: Config, index: ShardIndex | TarStream, world: World
) -> tuple[Config, str]:
    """Fill in the autoencoder's fingerprint and describe what is read in a line, empty for pixels.

    Latents in the shards are used, by setting `index.encoded`, if the autoencoder of the config
    made them. Raises UserError if another did, or the shards hold latents for some clips alone.
    """
    location, frozen = config.data, config.encoder.frozen
    if isinstance(index, ShardIndex):
        latents.check_all(index.clips, index.dataset, location)
    recorded = index.dataset.get("autoencoder")
    if frozen is None:
        return config, "pictures pixels; the latents in the shards are not read" if recorded else ""
    here = folders.identity(Path(frozen))
    encoder = config.encoder.model_copy(update={"frozen_fingerprint": here["fingerprint"]})
    if config.encoder.frozen_fingerprint not in (None, here["fingerprint"]):
        encoder = config.encoder  # building the model says that it is another
    config = config.model_copy(update={"encoder": encoder})
    channels, side, _ = config.picture
    what = f"pictures {frozen} ({here['kind']}): latents {channels} x {side} x {side}"
    if recorded is None or isinstance(index, TarStream):
        how = f"encoded on {world.device.type} as training goes on, since the shards hold none"
        return config, f"{what}; {how}"
    if recorded["fingerprint"] != here["fingerprint"]:
        raise UserError(
            f"encoder.frozen is {frozen} ({here['kind']}, fingerprint {here['fingerprint']}), but "
            f"the latents in {location} were made by another ({recorded['kind']}, fingerprint "
            f"{recorded['fingerprint']}); give the folder that they were made with, or cut the "
            "shards anew with --autoencoder"
        )
    index.encoded = True
    return config, f"{what}; latents from the shards"
