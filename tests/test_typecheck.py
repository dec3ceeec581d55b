"""The annotations of models, sde and objectives are checked while the tests run."""

import pytest
import torch
import typecheck
from jaxtyping import TypeCheckError

from sdevid.models.gaussian import Gaussian, kl
from sdevid.objectives.importance import bound
from sdevid.objectives.window import Window


def test_shape_against_its_annotation_is_refused():
    with pytest.raises(TypeCheckError, match="observed"):
        Window.after(torch.zeros(3, dtype=torch.bool))
    with pytest.raises(TypeCheckError, match="observed"):
        Window.after(torch.zeros(3, 4))
    assert Window.after(torch.zeros(3, 4, dtype=torch.bool)).valid.all()


def test_type_against_its_annotation_is_refused():
    with pytest.raises(TypeCheckError, match="'p'"):
        kl(Gaussian(torch.zeros(1), torch.ones(1)), torch.zeros(1))


def test_paused_checks_let_anything_pass():
    weights = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(TypeCheckError):
        bound(weights)
    with typecheck.paused():
        torch.testing.assert_close(bound(weights), torch.zeros(3))
