"""What the steps of one run share: what was read for it, its calibration sample, and its teacher."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from .errors import RecipeError
from .files.jsonfile import digest_of
from .models.folder import BaseModel
from .progress import SILENT, Progress
from .recipe import Recipe
from .run_folder import Kind, RunFolder
from .run_inputs import RunInputs
from .scheme.graph import Scheme
from .scheme.layout import Layout, Projection

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from torch import Tensor, nn

    from .calibration.movement import MovementSettings
    from .calibration.sample import Calibration
    from .training.distillation import Answers
    from .training.kept_answers import KeptAnswers
    from .training.settings import ModelSettings

__all__ = ["Given", "Kind", "RunFolder", "Workspace", "open"]


class Workspace(RunInputs):
    """A recipe, the folder of its run, and what has been loaded for it.

    What was read is kept as long as the workspace is, so that steps which are given the same one share it; after
    :meth:`close`, or as a context manager after its body, it is read anew when it is next needed.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.chance_checked = False
        self._calibration: Calibration | None = None
        self._calibrated: frozenset[str] = frozenset()

    @classmethod
    def of(cls, given: Recipe | Workspace) -> Workspace:
        """``given`` itself when it is a workspace; of a recipe a new one, which nobody keeps but the caller."""
        return given if isinstance(given, Workspace) else cls(given)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of all that was loaded."""
        super().close()
        self.forget_calibration()
        self.__dict__.pop("teacher", None)

    def calibration(self, scheme: Scheme, progress: Progress, *, by_need: bool = False) -> Calibration:
        """The base model on the calibration sample; what was gathered once serves all steps of this scheme.

        Args:
            by_need: gather only what is asked for; others gather the rest.
        """
        # Schemes of one workspace (``-s other.json``) may touch other targets: moments are kept for one set at a time.
        targets = scheme.touched(self.base.layout)
        if self._calibration is None or self._calibrated != targets:
            self._calibrated = targets
            layout = self.base.layout.only(targets)
            self._calibration = self.calibrated(
                self.fresh_model(), layout, pruned=targets, progress=progress, by_need=by_need
            )
        return self._calibration

    def calibrated(
        self,
        model: nn.Module,
        layout: Layout,
        *,
        pruned: Collection[str] | None = None,
        progress: Progress,
        by_need: bool = False,
    ) -> Calibration:
        """``model`` on the calibration sample, as far as ``layout`` looks at it.

        Args:
            pruned: targets that movement masks while it learns; None: all of the layout.
        """
        from .calibration.sample import Calibration

        r, train = self.recipe, self.examples("train")
        return Calibration(
            model,
            self.task,
            train,
            layout,
            size=r.calibration_size,
            seed=r.seed,
            like=self.lengths_like,
            memory=r.memory,
            by_need=by_need,
            metric=r.metric,
            label_seed=r.seed,
            learning=lambda: self._movement(layout.paths if pruned is None else pruned, progress),
            progress=progress,
        )

    def sample_identity(self) -> dict[str, Any]:
        """What identifies the calibration sample, and how it is looked at."""
        size, seed = self.recipe.calibration_size, self.recipe.seed
        like = {"lengths": self.lengths_like.digest} if self.lengths_like else {}
        # Plain moments are not named: addresses of what was made with them stay what they were.
        metric = {} if self.recipe.metric == "plain" else {"metric": self.recipe.metric}
        return {"size": size, "seed": seed, "data": self.examples("train").digest, **like, **metric}

    def forget_calibration(self) -> None:
        """Let go of the moments and of the base model that they were gathered from."""
        self._calibration = None

    def movement_settings(self, pruned: Collection[str]) -> MovementSettings:
        """How the criterion ``movement`` learns its scores where these targets are pruned, at whatever rates."""
        from .calibration.movement import MovementSettings

        masked = [path for path in self.base.layout.paths if path in pruned]
        # All of them are not named: addresses of what was made with them stay what they were.
        targets = None if len(masked) == len(self.base.layout.paths) else masked
        options = self.recipe.movement.model_dump()
        return MovementSettings(**options, seed=self.recipe.seed, taught=self.taught(), targets=targets)

    def _movement(self, pruned: Collection[str], progress: Progress) -> Mapping[Projection, Tensor]:
        from .calibration.movement import learn_movement
        from .pruning.criteria.movement import Movement

        # Scores of the whole layout; what the masks of the run are on goes by what is pruned, since what stays whole
        # should be there while the others learn. So what is learnt once serves every scheme of the same targets.
        model, data, settings = self.fresh_model(), self.examples("train"), self.movement_settings(pruned)
        # Not below .work, which a comparison clears away: what was learnt serves schemes to come.
        told = {"base": self.base.fingerprint, "version": Movement.version, **settings.identity(data.digest)}
        keep = self.folder / ".movement" / f"{digest_of(told)[:16]}.pt"
        taught = settings.taught
        answers = (
            self._answers(taught["distill"], taught["temperature"], taught["hidden"], None, progress)
            if taught
            else None
        )
        return learn_movement(
            model, self.task, data, self.base.layout, settings, answers=answers, keep=keep, progress=progress
        )

    @cached_property
    def teacher(self) -> BaseModel:
        """The model whose answers are learnt: the one that the recipe names, else the base model.

        Raises:
            ModelError: it has another tokenizer or label set than the base model.
        """
        from .models.teacher import check_teacher

        named = self.recipe.finetune.teacher
        if named is None:
            return self.base
        teacher = self.model(named)
        check_teacher(teacher, self.base)
        return teacher

    def taught(self) -> dict[str, Any]:
        """What of a teacher shapes weights, by field of the settings of whole models; empty without one.

        Raises:
            RecipeError: a teacher of whom nothing is learnt.
        """
        options = self.recipe.finetune
        if not (options.share or options.hidden):
            if options.teacher is not None:
                raise RecipeError("--teacher: with --distill 0 and no --hidden nothing of it is learnt")
            return {}
        other = self.teacher.fingerprint != self.base.fingerprint
        temperature = options.temperature if options.share else 1.0
        hidden = {"hidden": options.hidden, "teacher": self.teacher.fingerprint if other else ""}
        return {"distill": options.share, "temperature": temperature, **hidden}

    def answers(self, settings: ModelSettings, progress: Progress = SILENT) -> Answers | None:
        """The teacher of whole models that learn with these settings; None where they have none.

        Answers that are small enough are kept in the folder, so that runs over the same examples in the same order ask
        for each of them once.
        """
        if not settings.has_teacher:
            return None
        kept = None if settings.hidden else self._kept_answers(settings)
        return self._answers(settings.distill, settings.temperature, settings.hidden, kept, progress)

    def _answers(
        self, share: float, temperature: float, weight: float, kept: KeptAnswers | None, progress: Progress
    ) -> Answers:
        from .training.distillation import Answers
        from .training.hidden import HiddenStates

        hidden = HiddenStates(self.base.layout, self.teacher.layout) if weight else None
        if hidden:
            progress.note(str(hidden))
        given = {"temperature": temperature, "hidden": hidden, "weight": weight, "kept": kept}
        return Answers(lambda: self.teacher.load().to(self.device), self.task, share, **given)  # type: ignore[arg-type]

    def _kept_answers(self, settings: ModelSettings) -> KeptAnswers | None:
        from .parallel.ranks import rank_and_size
        from .training.kept_answers import KeptAnswers, can_be_kept

        train = self.examples("train")
        if not can_be_kept(self.task, self.teacher.config, train):
            return None
        shapes = (settings.seed, settings.batch_size, settings.precision, self.device, rank_and_size())
        grouped = ["by length"] * settings.group_by_length
        told = [self.teacher.fingerprint, train.digest, *map(str, shapes), *grouped]
        return KeptAnswers(self.folder / ".answers" / f"{digest_of(told)[:16]}.safetensors")


def open(recipe: Recipe) -> Workspace:
    """A workspace for the steps of one run, which then share what one of them has loaded.

    ::

        with composer.open(recipe) as work:
            composer.prune(work)
            composer.finetune_blocks(work)  # on the calibration sample that pruning has looked at
    """
    return Workspace(recipe)


Given = Recipe | Workspace
"""What every step takes: a recipe, or a workspace to share what is loaded."""
