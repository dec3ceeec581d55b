"""A trained model out of a run: loaded for use, or written as one safetensors file and a config."""

from __future__ import annotations

import shutil
from pathlib import Path

from torch import Tensor

from sdevid import checkpoint, clock, model_card, tensor_file
from sdevid.atomic_file import replace_text, written_aside
from sdevid.autoencoder.folder import identity
from sdevid.checkpoint import Weights
from sdevid.config import Config, dump, parse, settings_by_path
from sdevid.console import say
from sdevid.errors import UserError
from sdevid.models.initial_weights import no_weights
from sdevid.models.video_model import VideoModel
from sdevid.objectives import build_model
from sdevid.owner import own
from sdevid.settings.yaml_file import read_settings

MODEL_FILE = "model.safetensors"
AUTOENCODER = "autoencoder"  # folder of a frozen one that goes with the model
_PREFIX = "model."  # of the model's tensors within the objective's


def load(model_path: Path, weights: Weights = "ema") -> tuple[VideoModel, Config]:
    """Load the model of a run (its newest whole checkpoint), a checkpoint or an export.

    On the CPU, in evaluation mode. Raises UserError where there is none or it does not fit.
    """
    folder = find(model_path)
    config = _config(folder)
    tensors = _tensors(folder, weights)
    with no_weights():
        model = build_model(config)
    _check(folder, tensors, model)
    model.load_state_dict(_typed(folder, tensors, model), assign=True)
    return model.eval().requires_grad_(False), config


def export(
    model_path: Path,
    output_dir: Path,
    weights: Weights = "ema",
    *,
    with_autoencoder: bool = False,
) -> Path:
    """Write the model in `model_path` to `output_dir`: weights, config.yaml and a model card.

    The config keeps what the model is; paths, credentials and how this site trained it stay here.
    Of a frozen autoencoder that is its fingerprint, and with `with_autoencoder` a copy of it.
    Returns the weights' path. Raises UserError where there is no model, it cannot be written, or
    another process writes it.
    """
    folder = find(model_path)
    config, tensors = _config(folder), _tensors(folder, weights)
    if with_autoencoder:
        config = _copy_autoencoder(config, output_dir)
    return _write(tensors, weights, config, model_path, output_dir)


def write(model: VideoModel, config: Config, output_dir: Path) -> Path:
    """Write a `model` changed after training to `output_dir`, as `export` does.

    Returns the weights' path. Raises UserError where it cannot be written.
    """
    return _write(dict(model.state_dict()), "changed", config, output_dir, output_dir)


def _write(
    tensors: dict[str, Tensor], weights: str, config: Config, source: Path, output_dir: Path
) -> Path:
    target = output_dir / MODEL_FILE
    exported = without_site(config)
    count = sum(tensor.numel() for tensor in tensors.values())
    card = model_card.model_card(exported, count, source)
    try:
        with own(output_dir, "output_dir", say):
            with written_aside(target) as aside:
                tensor_file.save(tensors, aside, {"format": "pt", "weights": weights})
            replace_text(output_dir / "config.yaml", dump(exported))
            replace_text(output_dir / model_card.NAME, card)
    except OSError as error:
        raise UserError(f"output_dir {output_dir} cannot be written: {error}") from error
    return target


def _copy_autoencoder(config: Config, output_dir: Path) -> Config:
    """Copy the frozen autoencoder beside the weights; return `config` with its new place."""
    if config.encoder.frozen is None:
        raise UserError(
            "--with_autoencoder is given, but the model draws pixels (encoder.frozen is null in "
            "its config); leave it out"
        )
    source, copy = Path(config.encoder.frozen), output_dir / AUTOENCODER
    identity(source)  # says what is missing
    try:
        copy.mkdir(parents=True, exist_ok=True)
        for path in (source / "config.json", *source.glob("*.safetensors*")):
            shutil.copyfile(path, copy / path.name)
    except (OSError, shutil.SameFileError) as error:
        raise UserError(f"{copy} cannot be written: {error}") from error
    encoder = config.encoder.model_copy(update={"frozen": AUTOENCODER})
    return config.model_copy(update={"encoder": encoder})


def without_site(config: Config) -> Config:
    """Remove from `config` what belongs to the site that trained it, by the settings' roles.

    Runtime settings that do not alter the loss, and the data's location, have their defaults; of a
    path that is part of the model, such as a text encoder's folder, the last part stays.
    """
    settings = config.model_dump(mode="json")
    for path, setting in settings_by_path().items():
        *sections, name = path.split(".")
        place = settings
        for section in sections:
            place = place[section]
        if path == "data" or (setting.role == "runtime" and not setting.alters_loss):
            place[name] = setting.default if path != "run_dir" else str(setting.default)
        elif isinstance(place[name], str) and "/" in place[name]:
            place[name] = place[name].rstrip("/").rpartition("/")[2]
    return parse(settings)


def find(model_path: Path) -> Path:
    """Find the folder within `model_path` that holds a model: an export, or a whole checkpoint."""
    if (model_path / MODEL_FILE).is_file() or (model_path / "manifest.json").is_file():
        return model_path
    if not model_path.is_dir():
        raise UserError(f"model_path {model_path} does not exist")
    for step in checkpoint.steps(model_path):
        folder = checkpoint.folder_of(model_path, step)
        try:
            if not checkpoint.faults(folder, checkpoint.read_manifest(folder)):
                return folder
        except UserError:
            continue
    raise UserError(
        f"model_path {model_path} holds neither {MODEL_FILE} nor a whole checkpoint; give a run "
        "folder that has saved one, a folder checkpoints/step_N, or an exported folder"
    )


def _config(folder: Path) -> Config:
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"{folder} holds a model, but no config.yaml beside it")
    try:
        return _beside(folder, parse(clock.of_saved(read_settings(path))))
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{path} is no config of a model: {error}") from error
    except UserError as error:
        raise UserError(f"{path} is no config of this version: {error}") from error


def _beside(folder: Path, config: Config) -> Config:
    """Set the place of an autoencoder that lies in the model's own `folder`."""
    frozen = config.encoder.frozen
    if frozen is None or not (folder / frozen).is_dir():
        return config
    encoder = config.encoder.model_copy(update={"frozen": str(folder / frozen)})
    return config.model_copy(update={"encoder": encoder})


def _tensors(folder: Path, weights: Weights) -> dict[str, Tensor]:
    if (folder / MODEL_FILE).is_file():
        return tensor_file.load(folder / MODEL_FILE)
    every = checkpoint.read_weights(folder, weights)
    return {n.removeprefix(_PREFIX): t for n, t in every.items() if n.startswith(_PREFIX)}


def _typed(folder: Path, tensors: dict[str, Tensor], model: VideoModel) -> dict[str, Tensor]:
    """Give each tensor the type that it has in `model`. UserError where a real is no real there."""
    typed = {}
    for name, place in model.state_dict().items():
        saved = tensors[name]
        if saved.is_complex() or saved.is_floating_point() != place.is_floating_point():
            kinds = [str(one.dtype).removeprefix("torch.") for one in (saved, place)]
            raise UserError(
                f"{folder} does not fit its config.yaml: {name} holds {kinds[0]}, but the model "
                f"takes {kinds[1]}; export it again"
            )
        typed[name] = saved.to(place.dtype)
    return typed


def _check(folder: Path, tensors: dict[str, Tensor], model: VideoModel) -> None:
    saved = {name: list(tensor.shape) for name, tensor in tensors.items()}
    here = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    difference = checkpoint.first_difference(saved, here)
    if difference:
        raise UserError(
            f"{folder} does not fit its config.yaml: {difference}; was one of the two replaced, or "
            "was it written by an earlier version (CHANGELOG.md)?"
        )
