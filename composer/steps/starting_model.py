"""What a model-level run starts from: the base model, a pruned configuration, or a composed one (swept or not)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RecipeError
from ..library.store import Library, address_of
from ..progress import SILENT, Progress
from ..scheme.graph import SHARED, Node, Scheme
from ..workspace import Kind, Workspace
from .refit import refit, refit_settings

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class StartingModel:
    """Configuration ``i`` of a scheme, made from the blocks of a library; the base model itself where there is none.

    Attributes:
        addresses: node hash -> address in ``library``, of everything that the library has for the scheme.
        sweep: what identifies the sweep after composing (its calibration sample and damping); None for no sweep.
    """

    kind: Kind
    i: int | None = None
    scheme: Scheme | None = None
    library: Library | None = None
    addresses: dict[str, str] = field(default_factory=dict)
    sweep: dict[str, Any] | None = None

    @property
    def label(self) -> str:
        """For progress and messages."""
        return "dense" if self.i is None else f"configuration {self.i}, {self.kind}"

    @property
    def command(self) -> str:
        """The command that fine-tunes it."""
        which = "--dense" if self.i is None else f"-n {self.i}{' --baseline' * (self.kind == 'baseline')}"
        return f"compose finetune --level model {which}"

    @property
    def root(self) -> Node | None:
        """The configuration's node in the scheme; None for the base model."""
        return None if self.scheme is None or self.i is None else self.scheme.root(self.i)

    @property
    def rates(self) -> Mapping[str, float]:
        """Target -> rate, of the targets that are pruned."""
        return self.root.rates if self.root else {}

    def sparsity(self, space: Workspace) -> float:
        """Which fraction of the weights of all targets the configuration removes."""
        return 0.0 if self.scheme is None or self.i is None else self.scheme.sparsity(self.i, space.base.layout)

    def inputs(self, space: Workspace) -> dict[str, Any]:
        """What identifies the starting weights.

        The blocks count by their addresses, not by the scheme that they stand in: another scheme with the same
        configuration starts from the same model.
        """
        if self.scheme is None or self.i is None:
            return {"base": space.base.fingerprint}
        from ..composing.assemble import cover, serving

        addresses = serving(self.addresses, self.scheme.root(self.i))
        names = [node.hash for node in cover(self.scheme, self.i, addresses)]
        names += [self.scheme.root(self.i).hash]  # what the configuration owns
        return {
            "base": self.scheme.fingerprint,
            "configuration": self.scheme.root(self.i).hash,
            "blocks": {name: addresses[name] for name in [*names, SHARED] if name in addresses},
            **({"sweep": self.sweep} if self.sweep else {}),
        }

    def model(self, space: Workspace, progress: Progress = SILENT) -> tuple[nn.Module, dict[str, Tensor], float]:
        """The model on the device, its masks from the library's files, and the seconds that its sweep took."""
        model = space.fresh_model()
        if self.scheme is None or self.i is None or self.library is None:
            return model, {}, 0.0
        from ..composing.assemble import compose

        masks = compose(model, space.base.layout, self.scheme, self.i, self.library, self.addresses)
        return model, masks, self._swept(model, masks, space, progress) if self.sweep else 0.0

    def finish(self, model: nn.Module, space: Workspace) -> None:
        """What is still to be done, in place, with the model when it has learnt, before it is saved."""

    def told(self) -> Mapping[str, Any]:
        """Further figures of the start for the run's record."""
        return {}

    def _swept(self, model: nn.Module, masks: dict[str, Tensor], space: Workspace, progress: Progress) -> float:
        """Refit ``model``; returns the seconds that it took.

        `build-model` and every model-level run of one configuration sweep the very same model, so what a sweep has
        moved is stored like a block, under an address of its own, and the next one takes it from there; nothing,
        where it was not taken.
        """
        from ..tensors.parameters import parameters_of, set_values

        library = Library(space.swept)
        lineage = {"stage": "swept", **self.inputs(space)}
        address = address_of(lineage)
        if address in library:
            set_values(parameters_of(model), library.get(address).weights)
            return float(library.stats(address).get("seconds", 0.0))
        done = refit(model, space.fresh_model(), masks, space, progress)
        if not done.taken:
            progress.note(f"{self.label}: the sweep is not taken, as it raises {done}")
        kept = {name: mask for name, mask in masks.items() if name in done.moved}
        stats = {"seconds": done.seconds, "validation_loss": [done.before, done.after]}
        library.put(lineage, done.moved, kept, stats=stats)
        return done.seconds


def starting_model(
    space: Workspace,
    kind: Kind,
    i: int | None,
    scheme: Path | None = None,
    modules: Path | None = None,
    *,
    sweep: bool | None = None,
) -> StartingModel:
    """Where a run of this kind begins.

    Args:
        i: the configuration (None for dense).
        scheme: the scheme's file, where it is not the workspace's own; ``modules`` the library's folder.
        sweep: whether a composed model is swept; None as the recipe says.

    Raises:
        RecipeError: no configuration named for a kind that needs one.
    """
    if kind == "dense":
        return StartingModel(kind)
    if i is None:
        raise RecipeError("-n/--configuration: nothing given; name one, counted from 0, or --all")
    graph = space.scheme(scheme)
    graph.root(i)  # refuses a configuration that is not there
    library = Library(modules or (space.finetuned if kind == "composed" else space.pruned))
    addresses = space.addresses(library, graph)
    # The baseline is what one gets without Composer: it is never swept.
    swept = kind == "composed" and (space.recipe.sweep if sweep is None else sweep)
    return StartingModel(kind, i, graph, library, addresses, refit_settings(space) if swept else None)
