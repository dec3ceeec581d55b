import json

import torch

from sdevid.config import parse
from sdevid.models.text import TextEncoder, as_bytes, as_words

SMALL = {
    "encoder": {"features": 16, "heads": 2},
    "text": {"encoder": "bytes", "length": 10, "layers": 2},
}


def encoder():
    torch.manual_seed(0)
    return TextEncoder(parse(SMALL)).eval()


def test_bytes_are_utf8_cut_to_length():
    text = as_bytes(["é!", "", "0123456789abc"], 10)
    assert text.tokens[0, :3].tolist() == [0xC3, 0xA9, 0x21]
    assert text.mask.sum(1).tolist() == [3, 0, 10]


def test_caption_embedding_depends_on_order_not_on_the_batch():
    result = encoder()
    together = result(as_bytes(["left right", "", "up"], 10))
    alone = result(as_bytes(["up"], 10))
    torch.testing.assert_close(alone[0], together[2])
    torch.testing.assert_close(together[1], result.null)
    turned = result(as_bytes(["right left"], 10))
    assert (turned - together[:1]).abs().max() > 1e-3
    assert (result(as_bytes(["up"], 4)) - alone).abs().max() < 1e-5


def test_words_and_their_neighbours_tell_captions_apart():
    settings = {"encoder": {"features": 16}, "text": {"encoder": "words", "length": 10}}
    result = TextEncoder(parse(settings)).eval()
    text = as_words(
        ["A red hat, blue shoes", "a red hat  blue shoes", "a blue hat, red shoes", ""], 10
    )
    assert text.mask.sum(1).tolist() == [9, 9, 9, 0]
    same, again, other, none = result(text)
    torch.testing.assert_close(same, again)
    assert (same - other).abs().max() > 1e-2
    torch.testing.assert_close(none, result.null)
    assert as_words(["one two three"], 2).tokens.shape == (1, 2)


def config(folder):
    return parse({"text": {"encoder": str(folder)}, "encoder": {"features": 16, "heads": 2}})


def test_embeddings_of_a_frozen_encoder_are_taken_at_its_width(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5", "d_model": 24}))
    result = TextEncoder(config(tmp_path))
    text = as_bytes(["abc", ""], 5)
    value = result(text._replace(tokens=torch.randn(2, 5, 24)))
    assert value.shape == (2, 16)
    torch.testing.assert_close(value[1], result.null)
