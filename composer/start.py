"""What a model-level run starts from: the base model, a pruned configuration, or a composed one (swept or not)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import RecipeError
from .library import Library, address_of
from .progress import SILENT, Progress
from .scheme import SHARED, Scheme
from .workspace import Kind, Workspace

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Start:
    """Configuration ``i`` of a scheme, from blocks of a library.

    ``sweep`` holds what identifies a sweep after composing (its calibration sample); None is none.
    """

    kind: Kind
    i: int | None
    scheme: Scheme | None
    library: Library | None
    addresses: dict[str, str]
    sweep: dict[str, Any] | None = None

    def inputs(self, space: Workspace) -> dict[str, Any]:
        """What identifies the starting weights."""
        if self.scheme is None or self.i is None:
            return {"base": space.base.fingerprint}
        from .stages.compose import cover

        names = [n.hash for n in cover(self.scheme, self.i, self.addresses)]
        blocks = {name: self.addresses[name] for name in [*names, SHARED] if name in self.addresses}
        swept = {"sweep": self.sweep} if self.sweep else {}
        return {
            "base": self.scheme.fingerprint,
            "configuration": self.scheme.root(self.i).hash,
            "blocks": blocks,
            **swept,
        }

    def model(self, space: Workspace, progress: Progress = SILENT) -> tuple[nn.Module, dict[str, Tensor], float]:
        """The model on the device, its masks from the library's files, and the seconds that its sweep took."""
        model = space.fresh_model()
        if self.scheme is None or self.i is None or self.library is None:
            return model, {}, 0.0
        from .stages.compose import compose

        masks = compose(model, space.base.layout, self.scheme, self.i, self.library, self.addresses)
        return model, masks, self._swept(model, masks, space, progress) if self.sweep else 0.0

    def _swept(self, model: nn.Module, masks: dict[str, Tensor], space: Workspace, progress: Progress) -> float:
        """Refit ``model``, or take over the weights of an earlier sweep of the very same model; returns seconds."""
        import torch

        from .stages.sweep import sweep

        library = Library(space.folder / "modules" / "swept")
        lineage = {"stage": "swept", **self.inputs(space)}
        address = address_of(lineage)
        parameters = dict(model.named_parameters())
        if address in library:
            with torch.no_grad():
                for name, value in library.get(address).weights.items():
                    parameters[name].copy_(value)
            return float(library.stats(address).get("seconds", 0.0))
        r, train = space.recipe, space.examples("train")
        before = {name: value.detach().clone() for name, value in parameters.items()}
        done = sweep(
            model,
            space.fresh_model(),
            space.base.layout,
            masks,
            space.task,
            train,
            size=r.calibration_size,
            seed=r.seed,
            damping=r.block.damping,
            progress=progress,
        )
        moved = {name: value for name, value in parameters.items() if not torch.equal(value, before[name])}
        kept = {name: mask for name, mask in masks.items() if name in moved}
        library.put(lineage, moved, kept, stats={"seconds": done.seconds})
        return done.seconds

    @property
    def label(self) -> str:
        """For progress and messages."""
        return "dense" if self.i is None else f"configuration {self.i}, {self.kind}"


def start_of(
    space: Workspace,
    kind: Kind,
    i: int | None,
    scheme: Path | None = None,
    modules: Path | None = None,
    *,
    sweep: bool | None = None,
) -> Start:
    """Where a run of this kind begins.

    Args:
        sweep: whether a composed model is swept; None as the recipe says.

    Raises:
        RecipeError: no configuration named for a kind that needs one.
    """
    if kind == "dense":
        return Start(kind, None, None, None, {})
    if i is None:
        raise RecipeError("-n/--configuration: nothing given; name one, counted from 0, or --all")
    plan = space.scheme(scheme)
    plan.root(i)
    library = Library(modules or (space.finetuned if kind == "composed" else space.pruned))
    addresses = space.addresses(library, plan)
    wanted = kind == "composed" and (space.recipe.sweep if sweep is None else sweep)
    return Start(kind, i, plan, library, addresses, _sweep_identity(space) if wanted else None)


def _sweep_identity(space: Workspace) -> dict[str, Any]:
    from .solve import SOLVER

    return {**space.sample_identity(), "damping": space.recipe.block.damping, "solver": SOLVER}
