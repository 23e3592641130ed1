"""What of a model stays, before anything is written: the units that were found, and the layers that go whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from ..errors import ModelError
from ..models.folder import BaseModel
from ..models.layouts import full_layout
from ..models.shapes import shapes_of
from ..models.storage import HuggingFace
from ..progress import SILENT, Progress
from .pairs import pairs_of
from .units import Units, units_of
from .weights import Weights
from .zeros import Activation, Found, find, zeros_by_unit

ACTIVATIONS = ("dense_act_fn", "hidden_act", "activation_function", "activation", "hidden_activation")
"""Keys of configurations that name the activation of feed-forwards."""


@dataclass(frozen=True)
class Plan:
    """What of a model stays.

    Attributes:
        base: the masked model, with its ``weights`` and the ``activation`` of its feed-forwards.
        found: path of some units -> the units, and what of them stays.
        dropped: paths of the layers that go whole.
        shifts: name of a bias -> what it gains, since a layer that goes was a constant.
    """

    base: BaseModel
    weights: Weights
    activation: Activation | None
    found: Mapping[str, tuple[Units, Found]]
    dropped: tuple[str, ...] = ()
    shifts: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def left(self) -> Iterator[tuple[Units, Found]]:
        """Units of the layers that stay, and what was found of each."""
        return (pair for pair in self.found.values() if pair[0].layer not in self.dropped)

    @property
    def removed(self) -> int:
        """How many units go."""
        return sum(units.count - len(found.kept) for units, found in self.found.values())

    @cached_property
    def full(self) -> dict[str, int]:
        """How many units each attention and feed-forward has by the sizes of ``config.json``, by path."""
        return {units.path: units.count for units in units_of(full_layout(self.base.config))}

    def heads(self, units: Units, kept: tuple[int, ...]) -> tuple[int, ...]:
        """Indices of kept heads among all that the attention ever had."""
        had = shapes_of(self.base.config).heads.get(units.path)
        return tuple(had[i] for i in kept) if had else kept


class NothingWholeError(ModelError):
    """No head, neuron or sublayer of a model is wholly zero."""


def make_plan(base: BaseModel, progress: Progress = SILENT, targets: Sequence[str] = ()) -> Plan:
    """Look through the weights of a folder for units that can go.

    Args:
        targets: of a model that no family's table serves, globs of the projections that belong together
            (:func:`composer.shrinking.pairs.pairs_of`).

    Raises:
        ModelError: a model whose folder is not Hugging Face's, units that nothing names.
        NothingWholeError: nothing can go.
    """
    check_folder(base)
    layout, weights = base.layout, Weights(base.folder)
    if targets and layout.listed:
        raise ModelError(f"--targets: the family's table says what a {layout.family} consists of; give none")
    every = list(pairs_of(layout, targets, base.name) if targets else units_of(layout))
    if not every:
        raise ModelError(
            f"{base.name}: no table says which heads and neurons a {base.config.get('model_type')!r} model has; name "
            "what belongs together with --targets: globs of the projections whose rows go, then of those that read them"
        )
    activation = activation_of(base)
    found: dict[str, tuple[Units, Found]] = {}
    with progress.bar("look for units", len(every)) as bar:
        for units in every:
            found[units.path] = units, find(units, weights.read, activation)
            bar.advance(units.path)
    plan = Plan(base, weights, activation, found)
    if not plan.removed:
        raise NothingWholeError(f"{base.name}: nothing can be taken out: {_why_nothing(plan)}")
    return plan


def check_folder(base: BaseModel) -> None:
    """Refuse a model that another package stores: transformers would have no class for a smaller one.

    Raises:
        ModelError: such a model.
    """
    if not isinstance(base.storage, HuggingFace):
        raise ModelError(f"{base.name}: a {base.layout.family} folder is none of transformers; shrinking takes those")


def _why_nothing(plan: Plan) -> str:
    zeros = sum(int(zeros_by_unit(units, plan.weights.read).sum()) for units, _ in plan.found.values())
    weights = sum(p.out_features * p.in_features for units, _ in plan.found.values() for p in units.projections)
    if not zeros:
        return "no weight of its attentions and feed-forwards is zero; prune it first"
    return (
        f"{100 * zeros / weights:.2g} % of single weights are zero, no whole unit is; "
        "use `compose generate-config --structured`, which takes whole heads and neurons"
    )


def activation_of(base: BaseModel) -> Activation | None:
    """The activation of a model's feed-forwards; None where its configuration names none that transformers knows."""
    from transformers.activations import ACT2FN

    if not _of_transformers(base.config):
        return None
    parsed = parsed_config(base.config)
    named: Any = next((getattr(parsed, name) for name in ACTIVATIONS if getattr(parsed, name, None)), None)
    activation: Activation | None = ACT2FN[named] if isinstance(named, str) and named in ACT2FN else None
    return activation


def _of_transformers(config: Mapping[str, Any]) -> bool:
    """Whether transformers has a class for a configuration; models of other packages have one of their own."""
    from transformers import CONFIG_MAPPING

    return config["model_type"] in CONFIG_MAPPING


def parsed_config(config: Mapping[str, Any]) -> Any:
    """The configuration object of transformers, with its defaults.

    Raises:
        ValueError: the class refuses these values.
    """
    from transformers import CONFIG_MAPPING

    return CONFIG_MAPPING[config["model_type"]].from_dict(dict(config))
