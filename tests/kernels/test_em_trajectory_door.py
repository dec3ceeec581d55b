"""What em_trajectory refuses, each with the tensor, its value and the remedy."""

import pytest
import torch
from sdevid_kernels.em_trajectory import em_trajectory
from sdevid_kernels.em_trajectory.reference import Diffusion, Network, Posterior, Reading

ROWS, SIZE, HIDDEN, STEPS = 3, 2, 4, 3


def network(outputs=SIZE, inputs=SIZE):
    last = (torch.randn(outputs, HIDDEN), torch.randn(outputs))
    return Network(torch.randn(HIDDEN, inputs), (), last)


def case(**changed):
    arguments = {
        "z": torch.randn(ROWS, SIZE),
        "drift": network(),
        "drift_shift": torch.randn(ROWS, HIDDEN),
        "diffusion": torch.ones(1, SIZE),
        "posterior": Posterior(network(), torch.randn(STEPS, ROWS, HIDDEN)),
        "dt": torch.full((STEPS, ROWS), 0.1),
        "noise": torch.randn(STEPS, ROWS, SIZE),
    }
    return arguments | changed


def control(**changed):
    parts = {"network": network(), "shifts": torch.randn(STEPS, ROWS, HIDDEN)} | changed
    network_, shifts = parts.pop("network"), parts.pop("shifts")
    return Posterior(network_, shifts, Reading(**parts))


BAD = {
    r"the state has shape \(3,\); give \(rows, d\)": {"z": torch.zeros(3)},
    r"layer 0 of drift has shape \(4, 5\).*give \(hidden, 2\)": {"drift": network(inputs=5)},
    r"layer 1 of control has shape \(2, 4\).*give \(4, 4\)": {"posterior": control(width=True)},
    r"drift_shift has shape \(1, 4\); give \(3, 4\)": {"drift_shift": torch.zeros(1, 4)},
    r"shifts has shape \(2, 3, 4\); give \(3, 3, 4\)": {
        "posterior": control(shifts=torch.zeros(2, ROWS, HIDDEN))
    },
    r"dt has shape \(3,\); give \(steps, 3 rows\)": {"dt": torch.zeros(3)},
    r"dt holds -0.5, but a step needs a time of 0 s": {"dt": torch.full((STEPS, ROWS), -0.5)},
    r"noise has shape \(1, 3, 2\); give \(3, 3, 2\)": {"noise": torch.zeros(1, ROWS, SIZE)},
    r"diffusion has shape \(7,\), which does not broadcast": {"diffusion": torch.ones(7)},
    r"diffusion holds 0, but the path KL.*use a floor": {"diffusion": torch.tensor([[1.0, 0.0]])},
    r"diffusion holds nan": {"diffusion": torch.tensor([[1.0, torch.nan]])},
    r"diffusion's slope holds inf; check the network": {
        "diffusion": Diffusion(
            torch.zeros(1, SIZE), torch.full((1, SIZE), torch.inf), torch.zeros(1, SIZE)
        )
    },
    r"slope or a curve alone; give both": {
        "diffusion": Diffusion(torch.zeros(1, SIZE), torch.zeros(1, SIZE))
    },
    r"diffusion's floor is -1": {"diffusion": Diffusion(torch.zeros(1, SIZE), floor=-1)},
    r"has no unit; give one": {"posterior": control(own=True)},
    r"bound is 0; give one above 0": {"posterior": control(bound=0)},
    r"saved is \[2, 1\].*points 0 to 3 in rising order": {"saved": (2, 1)},
    r"saved is \[\]": {"saved": ()},
    r"saved is \[4\]": {"saved": (4,)},
    r"dt is on meta but the state is on cpu; move": {"dt": torch.zeros(STEPS, ROWS, device="meta")},
    r"serials have shape \(2,\).*3 rows": {"noise": (1, torch.arange(2), torch.zeros(3, 2).long())},
    r"cells has shape \(2, 1\); give \(3, 1\)": {
        "noise": (1, torch.arange(1), torch.zeros(2, 1).long())
    },
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_named_with_its_remedy(message):
    with pytest.raises(ValueError, match=message):
        em_trajectory(**case(**BAD[message]))


def test_steps_of_no_time_pass_and_change_nothing():
    arguments = case(dt=torch.zeros(STEPS, ROWS), noise=torch.zeros(STEPS, ROWS, SIZE))
    trajectory = em_trajectory(**arguments)
    assert torch.equal(trajectory.states[-1], arguments["z"])
    assert not trajectory.energy.any()


@pytest.mark.parametrize("setting", ["auto", "reference"])
def test_saved_points_alone_come_back(setting):
    arguments = case()
    every = em_trajectory(**arguments, setting=setting)
    some = em_trajectory(**arguments, saved=(0, 2), setting=setting)
    torch.testing.assert_close(some.states, every.states[[0, 2]])
    torch.testing.assert_close(some.energy, every.energy)
