"""What the files of an assessment hold, key by key: JSON as the measurements write it and the pages read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

if TYPE_CHECKING:
    from ..timing.by_rate import RatePoint
    from .study.contents import StudyFile


class Header(TypedDict):
    """How every file begins; ``provenance`` is as :mod:`composer.files.records` has it.

    ``no_targets`` counts the weights that no part speaks of (:mod:`composer.models.no_targets`).
    """

    what: str
    model: str
    no_targets: NotRequired[dict[str, Any] | None]
    provenance: dict[str, Any]


class TargetWeights(TypedDict):
    """A target's weights; ``counts`` has one number for each bin."""

    target: str
    kind: str
    layer: str
    part: str
    shape: list[int]
    count: int
    zeros: int
    mean: float
    std: float
    max_abs: float
    quantiles: dict[str, float]
    outliers: int
    counts: list[int]


class Cutoff(TypedDict):
    """How many of the weights are smaller, as fractions: of all, and of each kind of target."""

    cutoff: float
    share_below: dict[str, float]


class Norms(TypedDict):
    """Lengths of the columns of a target's inputs, and which part of the squared length the top hundredth holds."""

    min: float
    median: float
    max: float
    top_share: float


class ColumnNorms(TypedDict):
    """A target's, over so many tokens."""

    target: str
    tokens: int
    norms: Norms


class SampleSize(TypedDict):
    """What the columns were measured on."""

    data: str
    examples: int


class WeightsFile(Header):
    """``weights.json``; ``columns`` and ``sample`` only where data was named."""

    edges: list[float]
    targets: list[TargetWeights]
    cutoffs: list[Cutoff]
    columns: list[ColumnNorms] | None
    sample: SampleSize | None


class DenseLoss(TypedDict):
    """The loss of the model that nothing was removed from."""

    loss: float


class TargetLoss(TypedDict):
    """The loss when this target alone is pruned at this rate; ``loss_repaired`` is None where nothing was refitted."""

    target: str
    kind: str
    layer: str
    rate: float
    loss: float
    loss_repaired: float | None
    removed: int
    total: int


class HeadLoss(TypedDict):
    """The loss without this head."""

    target: str
    layer: str
    head: int
    loss: float


class SensitivityFile(Header):
    """``sensitivity.json``."""

    dense: DenseLoss
    rates: list[float]
    criterion: str
    granularity: dict[str, str]
    examples: int
    unit: str
    repair: bool
    rows: list[TargetLoss]
    heads: list[HeadLoss]
    method: str


class MetricValue(TypedDict):
    """The task's main metric."""

    name: str
    value: float
    higher_is_better: bool


class DensePoint(TypedDict):
    """The dense model, measured as every point is."""

    loss: float
    metric: MetricValue
    interval: list[float] | None
    seconds: float
    seconds_per_example: float


class CurvePoint(TypedDict):
    """A whole model, every target at one rate; ``seconds_dense`` is what the dense model took right before."""

    criterion: str
    granularity: str
    rate: float
    repaired: bool
    removed_share: float
    loss: float
    metric: float
    interval: list[float] | None
    seconds: float
    seconds_per_example: float
    seconds_dense: float


class CurvesFile(Header):
    """``curves.json``."""

    dense: DensePoint
    rows: list[CurvePoint]
    examples: int
    scored: int
    unit: str
    speed_note: str


class TwoOfFour(TypedDict):
    """Matrices with a 2:4 pattern against the same ones dense (:class:`composer.timing.records.LayerRow`), on a GPU."""

    rows: list[dict[str, Any]]
    note: str


class RuntimeFile(Header):
    """``runtime.json``: ratios of pairs that were measured in turn; ``clock`` names their seconds."""

    rows: list[RatePoint]
    clock: str
    threads: int
    new_tokens: int
    note: str
    two_of_four: TwoOfFour


class CalibrationCell(TypedDict):
    """One calibration set, evaluated on one data set."""

    calibration: str
    task: str
    loss: float
    loss_pruned: float
    metric: float
    interval: list[float] | None
    metric_name: str
    examples: int


class CalibrationFile(Header):
    """``calibration.json``."""

    criterion: str
    rate: float
    repair: bool
    unit: str
    rows: list[CalibrationCell]


class WholeLoss(TypedDict):
    """The loss of a whole configuration, without and with repair."""

    pruned: float
    repaired: float | None


class Uniform(WholeLoss):
    """One rate for all targets, for comparison."""

    rates: dict[str, float]


class ProposalFile(Header):
    """``proposal.json``; sparsities are fractions of the target weights."""

    wished: float
    reached: float
    rates: dict[str, float]
    predicted_rise: float
    dense_loss: float
    measured_loss: float | None
    uniform_loss: float | None
    measured: WholeLoss
    uniform: Uniform
    criterion: str
    repair: bool
    examples: int
    unit: str
    conf: str


class Contents(TypedDict, total=False):
    """The files that are there, by the names of their parts."""

    weights: WeightsFile
    sensitivity: SensitivityFile
    curves: CurvesFile
    runtime: RuntimeFile
    calibration: CalibrationFile
    proposal: ProposalFile
    study: StudyFile
