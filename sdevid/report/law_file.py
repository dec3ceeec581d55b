"""law.json as it may come from a stranger: what `sdevid law` wrote, in a form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, TypeAdapter

from sdevid.report.results_file import read_form

_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Series = Annotated[list[FiniteFloat], Field(min_length=2)]
_Two = Field(min_length=2, max_length=2)


class _Form(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class Estimated(_Form):
    """A figure with its 95 % interval."""

    value: FiniteFloat
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None


class StatedLaw(_Form):
    """What the weights of a model of particles say, and its posterior's own motion."""

    order: Annotated[int, Field(ge=1, le=2)]
    particles: _Count
    clips: _Count
    diffusion: Estimated
    drift: Annotated[list[Estimated], _Two]
    length: FiniteFloat | None
    walls: Annotated[list[Annotated[list[FiniteFloat], _Two]], _Two] | None = None
    posterior_step: Estimated
    posterior_slope: Estimated
    step_correlation: FiniteFloat


class _Blobs(_Form):
    """Blobs tracked from the first frames alone, as `law --films` writes them."""

    diffusion: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat
    counts: _Series


class _Film(_Form):
    fps: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    real: _Blobs | None
    futures: _Blobs | None


class _Mean(_Form):
    mean: FiniteFloat | None
    interval: _Series | None = None


class _Ends(_Form):
    first: FiniteFloat
    last: FiniteFloat


class _Tracks(_Form):
    """Tracks of generated or real film, as `law --tracked` writes them."""

    diffusion: _Mean
    count: _Ends


class _Rate(_Form):
    fps: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    real: _Tracks | None
    generated: _Tracks | None


class BlobMotion(NamedTuple):
    """D of tracked blobs, pixel^2/s, and their number a frame at the first and the last frame."""

    diffusion: Estimated
    first: float
    last: float


class ComparedRates(NamedTuple):
    """Real films and futures of their first frames at one frame rate; None: no tracks."""

    fps: float
    real: BlobMotion | None
    futures: BlobMotion | None


class LawFile(_Form):
    """The fields of law.json."""

    law: StatedLaw | None = None
    films: Annotated[list[_Film], Field(max_length=100)] = []
    tracked: Annotated[list[_Rate], Field(max_length=100)] = []

    @property
    def compared(self) -> list[ComparedRates]:
        """Tracked films by frame rate, whichever way they were tracked."""
        films = [
            ComparedRates(one.fps, _blobs(one.real), _blobs(one.futures)) for one in self.films
        ]
        rates = [
            ComparedRates(one.fps, _tracks(one.real), _tracks(one.generated))
            for one in self.tracked
        ]
        return films + rates


_LAW: TypeAdapter[Any] = TypeAdapter(LawFile)


def read_law(path: Path) -> LawFile | None:
    """Read law.json; None where there is none. UserError where it is out of form."""
    law: LawFile | None = read_form(path, _LAW)
    return law


def _blobs(side: _Blobs | None) -> BlobMotion | None:
    if side is None:
        return None
    diffusion = Estimated(value=side.diffusion, low=side.low, high=side.high)
    return BlobMotion(diffusion, side.counts[0], side.counts[-1])


def _tracks(side: _Tracks | None) -> BlobMotion | None:
    if side is None or side.diffusion.mean is None:
        return None
    low, *_, high = side.diffusion.interval or [side.diffusion.mean] * 2
    diffusion = Estimated(value=side.diffusion.mean, low=low, high=high)
    return BlobMotion(diffusion, side.count.first, side.count.last)
