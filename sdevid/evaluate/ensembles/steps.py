"""STEPS, the stochastic nowcast of weather services, by pysteps (the extra `nowcast`)."""

from __future__ import annotations

import contextlib
import importlib.util
import io

import numpy as np
from numpy.typing import NDArray

from sdevid.errors import UserError
from sdevid.evaluate.context import EvalContext
from sdevid.evaluate.ensembles.baselines import Baseline, Case, Forecast, flow_of
from sdevid.evaluate.statistics.observed import filled, in_unit_range

DECIBELS = 30.0  # that the grey levels are spread over; STEPS' own noise floor is in these units
DRY = 1 / 255  # share of the range below which a pixel is dry
_ORDERS = (2, 1)  # of the autoregression, which wants one more frame; a still prefix fits no 2


def needs(context: EvalContext) -> str | None:
    """Say why STEPS cannot run, or None: it needs pysteps, enough frames, and one channel."""
    if importlib.util.find_spec("pysteps") is None:
        return "pysteps is not installed; pip install 'sdevid[nowcast]'"
    if context.options.context < _ORDERS[0] + 1:
        return f"STEPS needs {_ORDERS[0] + 1} frames; give --context {_ORDERS[0] + 1} or more"
    if context.config.channels > 1:
        return f"STEPS takes one channel, but the clips have {context.config.channels}"
    return None


def steps(case: Case) -> Forecast:
    """Forecast by Lagrangian autoregression of a cascade of scales (Bowler et al. 2006).

    Runs on grey levels as stored (decibels, of a field stored on a log scale) along scikit-image's
    flow, which is not perturbed: pysteps' perturbations are fitted to km/h. A dry prefix stays dry.
    One that hardly changes along the flow leaves no second order to fit; it is then of first order.
    """
    prefix = filled(in_unit_range(case.prefix)).astype(np.float64)
    fields = DECIBELS * prefix[..., 0]
    floor = DECIBELS * DRY
    if not (fields[-1] > floor).any():
        return Forecast(
            case.units.values(np.zeros((case.members, case.ahead, *case.prefix.shape[1:]), "u1")),
            "ensemble",
        )
    members = _members(fields, case, floor)
    shares = np.clip(np.nan_to_num(members), 0, DECIBELS)[..., None] / DECIBELS
    if case.prefix.dtype == np.uint8:
        return Forecast(case.units.values(np.rint(255 * shares).astype(np.uint8)), "ensemble")
    return Forecast(case.units.values(shares), "ensemble")


def _members(fields: NDArray[np.float64], case: Case, floor: float) -> NDArray[np.float64]:
    """Run pysteps on decibels (context, height, width), of the first order that can be fitted."""
    with contextlib.redirect_stdout(io.StringIO()):
        from pysteps import nowcasts

        rows, columns = flow_of(case.prefix)
        for order in _ORDERS:
            try:
                members: NDArray[np.float64] = nowcasts.get_method("steps")(
                    fields[-order - 1 :],
                    np.stack([columns, rows]),
                    case.ahead,
                    n_ens_members=case.members,
                    n_cascade_levels=_levels(fields.shape[1:]),
                    precip_thr=floor,
                    kmperpixel=1.0,
                    timestep=1.0,
                    ar_order=order,
                    seed=case.seed % 2**31,
                    vel_pert_method=None,
                    fft_method="numpy",
                )
                return members
            except (ValueError, RuntimeError) as error:
                reason = error
    raise UserError(f"pysteps' STEPS fails on a prefix: {reason}") from reason


def _levels(shape: tuple[int, ...]) -> int:
    """Choose the number of scales of the cascade: 6, fewer for small frames."""
    return int(min(6, max(2, np.log2(min(shape)) - 1)))


STEPS = Baseline("steps", steps, needs)
