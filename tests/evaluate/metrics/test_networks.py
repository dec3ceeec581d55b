"""Random features come from their seed; a user's network is tried before anything is measured."""

import numpy as np
import pytest
import torch

from sdevid.errors import UserError
from sdevid.evaluate.metrics.networks import (
    as_input,
    features,
    image_distance,
    random_features,
    video_network,
)
from sdevid.evaluate.statistics.distribution import kernel_distance

CPU = torch.device("cpu")


class Video(torch.nn.Module):
    """What an export of an I3D looks like from outside."""

    def forward(
        self,
        x: torch.Tensor,
        rescale: bool = True,
        resize: bool = True,
        return_features: bool = False,
    ) -> torch.Tensor:
        assert [rescale, resize, return_features] == [False, False, True]
        assert list(x.shape[1:2]) + list(x.shape[3:]) == [3, 224, 224]
        return torch.stack([x.mean([1, 2, 3, 4]), x.std([1, 2, 3, 4])], dim=1)


class Plain(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean([2, 3, 4])


class Wide(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Distance(torch.nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).abs().mean([1, 2, 3], keepdim=True)


def saved(folder, module):
    path = folder / f"{type(module).__name__}.pt"
    torch.jit.script(module).save(str(path))
    return path


def videos(number, shift=0, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 100, (number, 6, 16, 16, 1)) + shift).astype(np.uint8)


def test_random_features_are_those_of_their_seed():
    clips = videos(5)
    first, again, other = (features(random_features(s, 1), clips, "", CPU) for s in (7, 7, 8))
    assert first.shape == (5, 128)
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)


def test_random_features_tell_brighter_video_from_the_same():
    real = features(random_features(0, 1), videos(40, seed=1), "", CPU)
    same = features(random_features(0, 1), videos(40, seed=2), "", CPU)
    other = features(random_features(0, 1), videos(40, shift=40, seed=3), "", CPU)
    scale = real.std(0)
    near = kernel_distance(same / scale, real / scale)
    far = kernel_distance(other / scale, real / scale)
    assert abs(near.mean) < 4 * near.standard_error
    assert far.mean > 8 * far.standard_error


def test_i3d_is_called_as_its_exports_want(tmp_path):
    judge = video_network(saved(tmp_path, Video()), 6, CPU)
    clips = videos(3)
    estimate = features(judge, clips, "", CPU)
    want = as_input(torch.from_numpy(clips)).mean([1, 2, 3, 4])
    torch.testing.assert_close(torch.from_numpy(estimate[:, 0]).float(), want, atol=1e-3, rtol=0)
    plain = video_network(saved(tmp_path, Plain()), 6, CPU)
    assert features(plain, clips, "", CPU).shape == (3, 3)


def test_distance_is_one_a_pair(tmp_path):
    distance = image_distance(saved(tmp_path, Distance()), (16, 16), CPU)
    a = torch.zeros(4, 1, 16, 16)
    torch.testing.assert_close(distance(a, a + 0.5), torch.full((4,), 0.5))


def test_files_that_are_no_torchscript_are_told(tmp_path):
    wrong = tmp_path / "i3d.pt"
    with pytest.raises(UserError, match=r"--fvd_i3d .*i3d.pt is no file"):
        video_network(wrong, 6, CPU)
    wrong.write_bytes(b"not a network")
    with pytest.raises(UserError, match="is no TorchScript"):
        video_network(wrong, 6, CPU)
    torch.save({"weight": torch.zeros(2)}, wrong)
    with pytest.raises(UserError, match="is no TorchScript"):
        image_distance(wrong, (16, 16), CPU)


def test_networks_that_do_something_else_are_told(tmp_path):
    with pytest.raises(UserError, match=r"must give a row of features .* but gives \[2, 3"):
        video_network(saved(tmp_path, Wide()), 6, CPU)
    with pytest.raises(UserError, match="but fails"):
        video_network(saved(tmp_path, Distance()), 6, CPU)
    with pytest.raises(UserError, match="but fails"):
        image_distance(saved(tmp_path, Plain()), (16, 16), CPU)
