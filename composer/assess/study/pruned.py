"""One base model, pruned in many ways: as a subject that suites can be asked, and its masks as files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ConfigError
from ...evaluation.suites.suite import Subject
from ...files.atomic import replacing
from ...files.jsonfile import digest_of
from ...files.records import is_current, record, write_record
from ...files.safetensors import write_tensors
from ...pruning.criteria import CRITERIA
from ...pruning.criteria.criterion import SAMPLED
from ...scheme.configurations import Assignment
from ...scheme.shapes import parse_shape
from ..masks.contents import Counts
from ..measure.assessed_model import AssessedModel
from ..measure.curves import Point, assigned_singly, assigned_to

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

MASKS = "masks.safetensors"


@dataclass(frozen=True)
class Way:
    """How a whole model is pruned; ``name`` is that of a folder."""

    criterion: str
    granularity: str
    rate: float

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.criterion}-{self.granularity.replace(':', '-of-')}-{self.rate:g}"


def ways(subject: AssessedModel) -> list[Way]:
    """The criteria that look at data × granularities × rates, as far as they make sense; N:M has its one rate.

    Raises:
        ConfigError: no criterion looks at data, and nothing is repaired: all sets would give the same model.
    """
    settings = subject.settings
    criteria = [c for c in settings.criteria if CRITERIA.get(c).needs & SAMPLED]
    if not criteria and not settings.repair:
        raise ConfigError(
            f"--criteria: {' '.join(settings.criteria)} does not look at data, and --no-repair leaves nothing that "
            "does: every calibration set would give the same model; allowed: wanda, sparsegpt, obs, taylor"
        )
    found = []
    for criterion in criteria or settings.criteria:
        for granularity in settings.granularities:
            shape = parse_shape(granularity)
            if shape.kind in CRITERIA.get(criterion).shapes:
                rates = (shape.density_removed,) if shape.kind == "N:M" else settings.study_rates
                found += [Way(criterion, granularity, rate) for rate in rates]
    return found


def assigned(subject: AssessedModel, way: Way) -> Assignment:
    """The configuration of a way: of single weights all targets; of other granularities as curves have it, heads of
    attention.
    """
    shape = parse_shape(way.granularity)
    if not shape.single:
        return assigned_to(subject, Point(way.criterion, way.granularity, way.rate, repaired=subject.settings.repair))
    return assigned_singly(subject, way.criterion, way.granularity, way.rate)


class StudiedModel(Subject):
    """The assessed model, with the weights that it has at the moment; ``lineage`` tells which these are."""

    def __init__(self, assessed: AssessedModel, lineage: Mapping[str, Any] | None) -> None:
        super().__init__(assessed.space.base, assessed.space.device)
        self._assessed, self.lineage = assessed, lineage

    @property
    def fingerprint(self) -> str:
        """The base model's, or what it and the way of pruning make."""
        base = self.base.fingerprint
        return base if self.lineage is None else digest_of([base, dict(self.lineage)])

    @property
    def model(self) -> Any:
        """Loaded once for all."""
        return self._assessed.model

    def close(self) -> None:
        """The model is needed for what comes next."""


def write_masks(subject: AssessedModel, path: Path, masks: Mapping[str, Tensor], inputs: Mapping[str, Any]) -> None:
    """Keep what was removed of each target: a bit for each weight, its projections one after the other."""
    packed = {}
    for target in map(subject.layout.target, subject.paths):
        removed = [~p.of(masks[p.weight]).cpu().numpy().astype(bool) for p in target.projections if p.weight in masks]
        if removed:
            packed[target.path] = np.packbits(np.concatenate([matrix.ravel() for matrix in removed]))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        heads = {name: ("U8", bits.shape) for name, bits in packed.items()}
        write_tensors(temporary, heads, (bits.tobytes() for bits in packed.values()))
    write_record(path, record(inputs))


def has_masks(path: Path, inputs: Mapping[str, Any]) -> bool:
    """Whether the masks of these inputs are there."""
    return is_current(path, inputs, renew=True)


def read_masks(path: Path) -> dict[str, NDArray[np.uint8]]:
    """What :func:`write_masks` kept: target -> bits."""
    from safetensors.numpy import load_file

    return dict(load_file(path))


def shared_counts(a: NDArray[np.uint8], b: NDArray[np.uint8], total: int) -> Counts:
    """Removed weights of two masks of a target, and of both."""
    return {"removed_a": _ones(a), "removed_b": _ones(b), "both": _ones(a & b), "total": total}


def _ones(bits: NDArray[np.uint8]) -> int:
    return int(np.unpackbits(bits).sum())
