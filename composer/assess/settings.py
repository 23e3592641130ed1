"""What an assessment is asked for, checked before anything heavy is loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from ..errors import ConfigError, InputError, did_you_mean
from ..evaluation.suites.suite import Asked, SuiteOptions
from ..pruning.criteria import CRITERIA
from ..pruning.criteria.choice import looks_at_data
from ..scheme.configurations import check_rates
from ..scheme.layout import Layout
from ..scheme.mistakes import ALLOWED_RATE
from ..scheme.shapes import parse_shape

Part = Literal["weights", "sensitivity", "curves", "runtime", "calibration", "proposal"]
PARTS: tuple[Part, ...] = get_args(Part)
"""In the order in which they are made: the first answers first."""

RATES = (0.25, 0.5, 0.75)
CRITERIA_SHOWN = ("l1", "wanda")
GRANULARITIES = ("unstructured",)
LINEAR = "unstructured, per-row, row, column, neuron, N:M (2:4 keeps 2 of 4), RxC (4x4 blocks)"
"""Granularities of linear targets; attention targets lose heads."""
EXAMPLES = 64
"""Validation examples of all losses."""
SCORED = 32
"""Of these, how many the metric and the seconds of curves look at: generation is what takes longest."""
CALIBRATION = 256


@dataclass(frozen=True)
class Settings:
    """See the flags of ``compose assess``.

    Attributes:
        rates: of single targets, and overall for the curves and for the runtime.
        criteria: of the curves; the first one is that of sensitivities and proposal.
        granularities: of linear targets, for the curves.
        calibrations: files, folders or hub datasets whose texts are compared as calibration samples.
        evaluations: data on which each of them is measured; empty is the recipe's.
        sparsity: wished of the proposal, and the rate of the calibration matrix.
        scored: validation examples that the metric looks at.
        asked: suites and tasks; with them the calibration part is the study of ``study/``, and curves ask them, too.
        suite_options: how they are asked.
        matrix_rates: of the study; empty takes ``sparsity``.
        beside: folders of other models' assessments, whose curves of suites are drawn in the same picture.
    """

    rates: tuple[float, ...] = RATES
    criteria: tuple[str, ...] = CRITERIA_SHOWN
    granularities: tuple[str, ...] = GRANULARITIES
    calibrations: tuple[str, ...] = ()
    evaluations: tuple[str, ...] = ()
    sparsity: float = 0.5
    scored: int = SCORED
    repair: bool = True
    heads: bool = True
    parts: tuple[Part, ...] = ()
    asked: Asked = field(default_factory=Asked)
    suite_options: SuiteOptions = field(default_factory=SuiteOptions)
    matrix_rates: tuple[float, ...] = ()
    beside: tuple[str, ...] = ()

    @property
    def study_rates(self) -> tuple[float, ...]:
        """The rates of the calibration study."""
        return self.matrix_rates or (self.sparsity,)

    def __post_init__(self) -> None:
        """Name all parts that can be made where none was asked for; then check everything.

        Raises:
            ConfigError: every problem, in a line each.
        """
        if not self.parts:
            made = tuple(part for part in PARTS if part != "calibration" or self.calibrations)
            object.__setattr__(self, "parts", made)
        problems: list[str] = []
        for check in (self._check_rates, self._check_names, self._check_parts):
            try:
                check()
            except InputError as bad:
                problems += bad.problems
        if problems:
            raise ConfigError(problems)

    def check_model(self, layout: Layout, paths: Sequence[str]) -> None:
        """Refuse what no model, or not this one, can be asked for, before anything is measured.

        Args:
            paths: the targets that are looked at.

        Raises:
            ConfigError: naming the flag.
        """
        for name in self.granularities:
            shape = parse_shape(name)
            if not any(shape.kind in CRITERIA.get(c).shapes for c in self.criteria):
                allowed = [c for c in CRITERIA.names() if shape.kind in CRITERIA.get(c).shapes]
                raise ConfigError(
                    f"--granularities: {name!r} makes no sense with --criteria {' '.join(self.criteria)}; "
                    f"allowed with it: {', '.join(allowed)}"
                )
            linear = [path for path in paths if layout.target(path).kind == "linear"]
            problems = [shape.problem(layout, path, shape.density_removed if shape.b else 0.5) for path in linear]
            if linear and all(problems):
                raise ConfigError(f"--granularities: {name!r} fits no target of this model; {problems[0]}")
        if {"sensitivity", "proposal"} <= {*self.parts}:
            most = sum(layout.target(path).removed_weights(max(self.rates)) for path in paths)
            if round(self.sparsity * (total := layout.parameters(paths))) > most:
                raise ConfigError(beyond(self.sparsity, most / total))

    def check_sample(self, *, has_data: bool) -> None:
        """Refuse parts that look at data where none was named, before anything is measured.

        Raises:
            ConfigError: naming the parts.
        """
        if has_data:
            return
        needed = [part for part in self.parts if part not in ("weights", "calibration", "curves")]
        if "curves" in self.parts and not self.asked:
            needed.insert(0, "curves")
        if "calibration" in self.parts and not self.asked:
            needed.append("calibration")
        if needed:
            raise ConfigError(
                f"--data: nothing given; {', '.join(needed)} among --parts {'looks' if len(needed) == 1 else 'look'} "
                "at validation examples; name data, or other --parts"
            )
        looking = [c for c in self.criteria if looks_at_data(CRITERIA.get(c)())]
        if "curves" in self.parts and (self.repair or looking):
            what = " and ".join([*looking, *(["repair"] if self.repair else [])])
            raise ConfigError(
                f"--data: nothing given; the curves' {what} look at a training sample; name data, or criteria that "
                "need none (--criteria l1 --no-repair)"
            )

    def _check_rates(self) -> None:
        check_rates("--rates", list(self.rates))
        if not 0 < self.sparsity < 1:
            raise ConfigError(f"--sparsity: got {self.sparsity:g}; allowed: a share with 0 < sparsity < 1")

    def _check_names(self) -> None:
        problems = []
        if {"sensitivity", "proposal"} & {*self.parts} and self.criteria[0] in CRITERIA.names():
            shapes = CRITERIA.get(self.criteria[0]).shapes
            if "unstructured" not in shapes and shapes != {"global"}:
                problems.append(
                    f"--criteria: the first one, {self.criteria[0]!r}, is that of the sensitivities, which remove "
                    "single weights; allowed: a criterion of unstructured, or --parts without sensitivity and proposal"
                )
        for name in self.criteria:
            try:
                if CRITERIA.get(name).shapes == {"global"}:
                    problems.append(f"--criteria: got {name!r}, which sets its own rates; allowed: one that takes them")
            except InputError as unknown:
                problems += [f"--criteria: {problem}" for problem in unknown.problems]
        for name in self.granularities:
            try:
                if parse_shape(name).by_heads or parse_shape(name).kind == "global":
                    problems.append(f"--granularities: got {name!r}; allowed: {LINEAR}")
            except ConfigError as unknown:
                problems += [f"--granularities: {problem}" for problem in unknown.problems]
        if problems:
            raise ConfigError(problems)

    def _check_parts(self) -> None:
        unknown = [part for part in self.parts if part not in PARTS]
        if unknown:
            raise ConfigError(
                f"--parts: got {unknown[0]!r}; allowed: {', '.join(PARTS)}{did_you_mean(unknown[0], PARTS)}"
            )
        if self.evaluations and not self.calibrations:
            raise ConfigError("--evaluation: nothing to measure there; name calibration sets with --calibration")
        if "calibration" in self.parts and not self.calibrations:
            raise ConfigError("--calibration: nothing given; name one or more files, folders or hub datasets")
        if self.asked and not {"calibration", "curves"} & {*self.parts}:
            raise ConfigError(
                "--suite: not together with --parts that leave curves and calibration out; these are what asks suites"
            )
        if self.beside and not (self.asked and "curves" in self.parts):
            raise ConfigError("--beside: draws curves of suites together; name --suite, and curves among --parts")
        if self.asked and self.evaluations:
            raise ConfigError("--evaluation: not together with --suite, which says what is measured")
        if "calibration" not in self.parts and (
            self.evaluations or (self.calibrations and "weights" not in self.parts)
        ):
            raise ConfigError("--calibration: not together with --parts that leave calibration (and weights) out")


def beyond(sparsity: float, most: float) -> str:
    """What is wrong with a sparsity above the highest one that was, or will be, measured."""
    return (
        f"--sparsity: got {sparsity:g}; the highest of --rates removes {most:.4f} of the weights; "
        "allowed: less, or a higher rate among --rates"
    )


def parse_rates(words: Sequence[str]) -> tuple[float, ...]:
    """Read rates: single ones, and ranges as ``first:last:step`` (the last one is meant too); sorted, 0 left out.

    >>> parse_rates(["0:0.3:0.1", "0.25"])
    (0.1, 0.2, 0.25, 0.3)

    Raises:
        ConfigError: a word that is neither, or no rate but 0.
    """
    found: set[float] = set()
    problems = []
    for word in (part for given in words for part in given.split(",") if part):
        try:
            numbers = [float(part) for part in word.split(":")]
        except ValueError:
            numbers = []
        if len(numbers) == 1:
            found.add(numbers[0])
        elif len(numbers) == 3 and numbers[2] > 0 and all(map(math.isfinite, numbers)) and numbers[0] <= numbers[1]:
            first, last, step = numbers
            if (last - first) / step > 1000:
                problems.append(f"--rates: {word!r} means more than 1,000 rates; allowed: a larger step")
                continue
            found |= {round(first + i * step, 9) for i in range(math.floor((last - first) / step + 1e-9) + 1)}
        else:
            problems.append(f"--rates: got {word!r}; allowed: {ALLOWED_RATE}, or a range such as 0:0.9:0.1")
    if problems:
        raise ConfigError(problems)
    rates = tuple(sorted(rate for rate in found if rate != 0))
    if not rates:
        raise ConfigError("--rates: no rate above 0 given; allowed: one or more rates, or a range such as 0:0.9:0.1")
    return tuple(check_rates("--rates", rates))
