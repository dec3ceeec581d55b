"""A real small T5 and CLIP, from a folder to embeddings, and folders that hold neither."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sdevid.config import parse
from sdevid.errors import UserError
from sdevid.models.frozen_text import FrozenText, difference, identity, width
from sdevid.models.text import TextEncoder, tokenizer

CAPTION = "a ball moves left"


@pytest.fixture(params=["t5", "clip", "clip_text_model"])
def folder(request, tmp_path) -> Path:
    """A copy of an encoder's folder; the third holds CLIP's text part alone."""
    if request.param != "clip_text_model":
        return shutil.copytree(request.getfixturevalue(request.param), tmp_path / "encoder")
    from transformers import CLIPTextModel

    whole = request.getfixturevalue("clip")
    CLIPTextModel.from_pretrained(whole).save_pretrained(tmp_path / "encoder")
    for path in whole.glob("tokenizer*"):
        shutil.copy(path, tmp_path / "encoder")
    return tmp_path / "encoder"


def by_transformers(folder: Path, caption: str) -> torch.Tensor:
    """What the published classes make of a caption, padded among others."""
    from transformers import AutoTokenizer, CLIPTextModel, T5EncoderModel

    kind = T5EncoderModel if "t5" in (folder / "config.json").read_text() else CLIPTextModel
    arguments = AutoTokenizer.from_pretrained(folder)(
        [caption, "a ball moves left and right"], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        result = kind.from_pretrained(folder).eval()(**arguments).last_hidden_state[0]
    return result[arguments["attention_mask"][0].bool()]


def test_embeddings_are_those_of_the_published_classes(folder):
    frozen = FrozenText(folder, 128)
    result, want = frozen(CAPTION), by_transformers(folder, CAPTION)
    assert result.dtype == np.float16
    assert result.shape == tuple(want.shape) == (len(want), width(folder))
    np.testing.assert_allclose(result, want, rtol=2**-10, atol=1e-3)
    assert np.abs(frozen("a ball moves right")[-2] - result[-2]).max() > 1e-2


def test_tokenizer_reads_each_caption_and_none_without_letters(folder):
    config = parse({"text": {"encoder": str(folder)}, "encoder": {"features": 16, "heads": 2}})
    read = tokenizer(config)
    frozen, text = FrozenText(folder, 128), read([CAPTION, " ", "up"])
    assert text.mask.sum(1).tolist() == [len(frozen(CAPTION)), 0, len(frozen("up"))]
    for row, caption in enumerate([CAPTION, "", "up"]):
        written = text.tokens[row, text.mask[row]]
        assert np.array_equal(written.numpy(), frozen(caption).astype(np.float32))
    result = TextEncoder(config)
    value = result(text)
    torch.testing.assert_close(value[1], result.null)
    assert (value[0] - value[2]).abs().max() > 1e-3
    torch.testing.assert_close(result(read(["up"]))[0], value[2])


def test_caption_is_encoded_once(t5):
    frozen, runs = FrozenText(t5, 128), []
    frozen.encoder.register_forward_hook(lambda *_: runs.append(1))
    for caption in ("left", "right", "left", "", "left", " right"):
        frozen(caption)
    assert len(runs) == 2


def test_long_captions_are_cut_to_length_and_clip_positions(t5, clip):
    caption = "left right " * 20
    assert len(FrozenText(t5, 12)(caption)) == 12
    assert len(FrozenText(clip, 128)(caption)) == 8
    assert len(FrozenText(clip, 5)(caption)) == 5


def test_half_precision_weights_are_computed_with_in_float32(t5, tmp_path):
    from transformers import T5EncoderModel

    half = shutil.copytree(t5, tmp_path / "half")
    T5EncoderModel.from_pretrained(t5, dtype=torch.float16).save_pretrained(half)
    frozen = FrozenText(half, 128)
    assert {weight.dtype for weight in frozen.encoder.parameters()} == {torch.float32}
    np.testing.assert_allclose(frozen(CAPTION), FrozenText(t5, 128)(CAPTION), atol=0.02)


def test_copy_is_the_same_encoder_and_other_files_are_not(t5, tmp_path):
    copy = shutil.copytree(t5, tmp_path / "elsewhere")
    known = identity(t5, 128)
    assert identity(copy, 128) == known
    assert str(t5.parent) not in json.dumps(known)
    assert difference(known, identity(copy, 64)) == "length 128 there, 64 here"
    weights = load_file(copy / "model.safetensors")
    weights["encoder.final_layer_norm.weight"][0] += 1
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    assert (difference(known, identity(copy, 128)) or "").startswith("weights ")
    (copy / "model.safetensors").unlink()
    assert difference(known, identity(copy, 128)) is None


def test_large_files_are_compared_by_samples_throughout(t5, tmp_path):
    folder = shutil.copytree(t5, tmp_path / "large")
    content = bytearray(5 * 2**20)
    seen = set()
    for place in (None, 0, len(content) // 2, len(content) - 1):
        if place is not None:
            content[max(0, place - 2**15) : place + 2**15] = bytes([1]) * 2**15
            content = content[: 5 * 2**20]
        (folder / "model.safetensors").write_bytes(content)
        seen.add(identity(folder, 128)["weights"])
    assert len(seen) == 4


def spoiled(folder: Path, how: str) -> None:
    weights = folder / "model.safetensors"
    if how == "pickled":
        torch.save(load_file(weights), folder / "pytorch_model.bin")
    if how in ("pickled", "no weights"):
        weights.unlink()
    elif how == "torn weights":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "fewer weights":
        some = load_file(weights)
        save_file({n: w for n, w in some.items() if "layer_norm" not in n}, weights)
    elif how == "no tokenizer":
        for path in folder.glob("tokenizer*"):
            path.unlink()
    elif how == "torn tokenizer":
        (folder / "tokenizer.json").write_text('{"version": "1.0", "model": ')
    elif how in ("bert", "no width", "torn config"):
        settings = {"bert": '{"model_type": "bert"}', "no width": '{"model_type": "t5"}'}
        (folder / "config.json").write_text(settings.get(how, '{"model_ty'))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("bert", "model_type bert, but T5 and CLIP are read"),
        ("torn config", "no Hugging Face model is there"),
        ("no width", "neither d_model nor hidden_size"),
        ("no weights", "holds no weights"),
        ("pickled", r"pytorch_model.bin, a pickle, which may run code"),
        ("torn weights", "does not load"),
        ("fewer weights", r"its safetensors lack \d+ tensors, as encoder.block"),
        ("no tokenizer", "holds no tokenizer"),
        ("torn tokenizer", "does not load"),
    ],
)
def test_folders_that_hold_no_encoder_are_told(t5, tmp_path, how, message):
    folder = shutil.copytree(t5, tmp_path / "encoder")
    spoiled(folder, how)
    with pytest.raises(UserError, match=message):
        FrozenText(folder, 128)


def test_no_folder_is_told(tmp_path):
    with pytest.raises(UserError, match="no Hugging Face model is there"):
        FrozenText(tmp_path / "nowhere", 128)


def test_tokenizer_of_another_model_is_told(t5, tmp_path):
    folder = shutil.copytree(t5, tmp_path / "mixed")
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["ball"] = 900
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="does not take the caption 'a ball'"):
        FrozenText(folder, 128)("a ball")


def test_weights_that_give_no_numbers_are_told(t5, tmp_path):
    folder = shutil.copytree(t5, tmp_path / "lost")
    weights = load_file(folder / "model.safetensors")
    weights["encoder.final_layer_norm.weight"][3] = torch.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="94% of them finite"):
        FrozenText(folder, 128)("left")


def test_without_transformers_the_remedy_is_told(t5, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"pip install 'sdevid\[text\]'"):
        FrozenText(t5, 128)
