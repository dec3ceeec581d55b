import torch

from sdevid.config import SDEConfig
from sdevid.models.backbone import Prior


def prior(noise, *, stratonovich):
    torch.manual_seed(0)
    config = SDEConfig(latent_size=3, content_size=2, hidden=8, noise=noise)
    result = Prior(config, 4, stratonovich=stratonovich)
    for parameter in result.parameters():
        parameter.data = 0.5 * torch.randn_like(parameter)
    return result, result.conditions(torch.randn(5, 2), torch.randn(5, 1, 4))


def test_stratonovich_drift_is_told_in_itos_calculus():
    z = torch.randn(5, 3, requires_grad=True)
    ito, diffusion = (result := prior("diagonal", stratonovich=False))[0](z, result[1])
    text, same = (result := prior("diagonal", stratonovich=True))[0](z, result[1])
    rise = torch.autograd.grad(diffusion.sum(), z, retain_graph=True)[0]
    torch.testing.assert_close(text - ito, 0.5 * diffusion * rise)
    assert torch.equal(same, diffusion)
    assert rise.abs().max() > 0.01


def test_with_additive_noise_the_two_calculi_are_one():
    z = torch.randn(5, 3)
    one, other = (prior("additive", stratonovich=choice) for choice in (False, True))
    assert torch.equal(one[0](z, one[1])[0], other[0](z, other[1])[0])


def test_diffusion_stays_above_its_floor():
    result, conditions = prior("diagonal", stratonovich=False)
    far = conditions._replace(diffusion=conditions.diffusion - 1000)
    _, diffusion = result(torch.randn(5, 3), far)
    assert (diffusion >= result.config.diffusion_floor).all()
