"""One thread a process, no GPU test where there is no GPU, and small real text encoders."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported
os.environ.setdefault("DS_ACCELERATOR", "cpu")  # transformers looks for deepspeed, which says so

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import typecheck  # tests/ is on the path: see pyproject.toml
from hypothesis import settings

typecheck.install()  # nothing above imports sdevid
torch.set_num_threads(1)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # what tests start heeds it, also under nohup
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before triton is imported
settings.register_profile("untimed", deadline=None)  # machines are noisy; time is never asserted
settings.load_profile("untimed")


@pytest.fixture
def without_type_checks() -> Iterator[None]:
    """For tests of what the code itself says of a wrong shape, and of torch.compile."""
    with typecheck.paused():
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    no_gpu = pytest.mark.skip(reason="no CUDA device; make gpu-check runs it")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(no_gpu)


WORDS = ("a", "ball", "moves", "left", "right", "up", "down", "and", "the")


def _save_tokenizer(folder: Path, begin: tuple[str, ...], end: str, most: int) -> int:
    """A tokenizer of WORDS, with special tokens around; how many tokens it knows."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(("<pad>", end, "<unk>", *begin, *WORDS))}
    result = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    result.pre_tokenizer = pre_tokenizers.Whitespace()
    result.post_processor = processors.TemplateProcessing(
        single=" ".join((*begin, "$A", end)),
        special_tokens=[(token, vocabulary[token]) for token in (*begin, end)],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=result,
        eos_token=end,
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=most,
    ).save_pretrained(folder)
    return len(vocabulary)


@pytest.fixture(scope="session")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a T5 of two layers, 16 wide, with random weights."""
    from transformers import T5Config, T5EncoderModel

    folder: Path = tmp_path_factory.mktemp("t5")
    known = _save_tokenizer(folder, (), "</s>", 512)
    shape = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    torch.manual_seed(0)
    T5EncoderModel(T5Config(vocab_size=known, **shape)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def taef2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a TAEF2 with random weights: 3 channels to 32 at an eighth of the side."""
    from sdevid.autoencoder.taef2 import TAEF2, convert

    folder: Path = tmp_path_factory.mktemp("taef2")
    torch.manual_seed(0)
    model = TAEF2()
    parts = {"encoder": model.encoder, "decoder": model.decoder}
    for name, part in parts.items():
        torch.save({key: value.half() for key, value in part.state_dict().items()}, folder / name)
    convert(folder / "encoder", folder / "decoder", folder / "folder")
    return folder / "folder"


@pytest.fixture(scope="session")
def kl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a diffusers AutoencoderKL of grey pictures: 1 channel to 3 at a quarter."""
    from sdevid.autoencoder.frozen import new_kl

    folder: Path = tmp_path_factory.mktemp("kl")
    torch.manual_seed(0)
    new_kl(1, 3, (4, 4, 8), 2).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole CLIP, text 16 wide and at most 8 tokens, with random weights."""
    from transformers import CLIPConfig, CLIPModel

    folder: Path = tmp_path_factory.mktemp("clip")
    known = _save_tokenizer(folder, ("<begin>",), "<end>", 8)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 2}
    text = shape | {"vocab_size": known, "max_position_embeddings": 8, "eos_token_id": 1}
    pictures = shape | {"image_size": 8, "patch_size": 4}
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text, vision_config=pictures, projection_dim=8)
    CLIPModel(config).save_pretrained(folder)
    return folder
