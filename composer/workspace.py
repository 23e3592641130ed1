"""What the steps of one run share: base model, task, data, scheme and calibration, each read when first needed."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from .errors import LibraryError, ModelError, OutputError, RecipeError, SchemeError
from .files.jsonfile import digest_of
from .library.store import Library
from .models.folder import DEMO, BaseModel
from .progress import SILENT, Progress
from .recipe import Recipe
from .run_folder import Kind, RunFolder, located, stored_name
from .scheme.configurations import read_configurations
from .scheme.graph import Scheme
from .scheme.layout import Layout, Projection
from .scheme.stored import load_scheme
from .tasks import open_task
from .tasks.task import Examples, Split, Task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from .calibration.movement import MovementSettings
    from .calibration.sample import Calibration
    from .training.distillation import Answers
    from .training.kept_answers import KeptAnswers
    from .training.settings import ModelSettings

__all__ = ["Given", "Kind", "RunFolder", "Workspace", "open"]

DEVICES = ("cpu", "cuda", "mps")


class Workspace(RunFolder):
    """A recipe, the folder of its run, and what has been loaded for it.

    What was read is kept as long as the workspace is, so that steps which are given the same one share it; after
    :meth:`close`, or as a context manager after its body, it is read anew when it is next needed.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe.folder)
        self.recipe = recipe
        self.chance_checked = False
        self._assumed = False
        self._examples: dict[Split, Examples] = {}
        self._schemes: dict[Path, Scheme] = {}
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
        self._examples.clear()
        self._schemes.clear()
        self.forget_calibration()
        for name in ("base", "task", "device", "teacher"):  # where cached_property keeps them
            self.__dict__.pop(name, None)

    def result_file(self, model: BaseModel) -> Path:
        """``results/<name of the model>.json``; ``results/base.json`` for what was said to be the base model."""
        if model.folder == self.base.folder and not self._assumed:
            return self.result_named("base")
        return self.result_named(model.place.name)

    def check_output(self, output: Path, *inputs: Path) -> None:
        """Refuse to write a folder over something that this run reads.

        Args:
            inputs: further files and folders that it reads.

        Raises:
            OutputError: an input is this folder, or lies in it.
        """
        data = [Path(self.recipe.data).expanduser()] if self.recipe.data else []
        own = [self.base.folder, self.base.place, self.conf, self.conf_prune, self.pruned, self.finetuned]
        place = output.resolve()
        for path in [*own, *data, *inputs]:
            if path.exists() and (place == path.resolve() or place in path.resolve().parents):
                raise OutputError(f"-o/--output: {output}: this run reads {path}; name a folder that it does not read")

    def stored_name(self, folder: Path) -> str:
        """How the base model is named in a file in ``folder``; see :func:`composer.run_folder.stored_name`."""
        return stored_name(self.base.name, folder)

    @cached_property
    def base(self) -> BaseModel:
        """The base model: the one the recipe names, else the one ``conf.json`` names."""
        if self.recipe.model:
            return BaseModel(self.recipe.model, self._new_head)
        named = read_configurations(self.conf).model if self.conf.is_file() else None
        if not named:
            raise ModelError(f"-m/--model: nothing given, and {self.conf} names none")
        return BaseModel(located(named, self.folder), self._new_head)

    @property
    def _new_head(self) -> int | None:
        """The seed of the head that the base model lacks; None where it is said to have one."""
        return self.recipe.seed if self.recipe.new_head else None

    def model(self, name: str | Path) -> BaseModel:
        """The model of this name: the base model itself, where it is meant, with the head that it was given."""
        found = BaseModel(name)
        if not self.recipe.new_head:
            return found
        if not self.has_base and not self.conf.is_file():
            return BaseModel(name, self._new_head)
        return self.base if found.folder == self.base.folder else found

    @property
    def has_base(self) -> bool:
        """Whether the recipe, or a file that was read, has said which the base model is."""
        return bool(self.recipe.model) or "base" in self.__dict__

    def take_base(self, name: str, folder: Path) -> None:
        """Take the model that a file in ``folder`` names, where nothing has said yet which it is."""
        if not self.has_base:
            self.base = BaseModel(located(name, folder), self._new_head)

    def assume_base(self, base: BaseModel) -> None:
        """Take ``base`` for the base model where neither the recipe nor ``conf.json`` names one."""
        if not self.has_base and not self.conf.is_file():
            self.base, self._assumed = base, True

    @cached_property
    def task(self) -> Task:
        """The task, with the base model's tokenizer."""
        recipe = self.recipe
        if not recipe.data and self.base.name == DEMO:  # the embedded model knows one corpus
            recipe = recipe.model_copy(update={"data": DEMO})
        return open_task(recipe.data_options, self.base.folder, self.base.config, self.base.task)

    def examples(self, split: Split) -> Examples:
        """A split, read once; its digest also covers how it was tokenised."""
        if split not in self._examples:
            # The task's digest is of raw texts: lengths, prefixes and the tokenizer change what a model sees of them.
            loaded = self.task.load(split)
            digest = digest_of([loaded.digest, [list(map(str, f.values())) for f in loaded.features]])
            self._examples[split] = replace(loaded, digest=digest)
        return self._examples[split]

    def scheme(self, path: Path | None = None) -> Scheme:
        """The scheme, held to its digest and to the base model."""
        path = path or self.conf_prune
        if path not in self._schemes:
            if not path.exists():
                raise SchemeError(f"{path}: no such file; run `compose generate-scheme` first")
            scheme = load_scheme(path)
            self.take_base(scheme.model, path.parent)
            if scheme.fingerprint != self.base.fingerprint:
                raise SchemeError(
                    f"{path}: made for another model (weights {scheme.fingerprint[:12]}; {self.base.name} has "
                    f"{self.base.fingerprint[:12]}); run `compose generate-scheme` again"
                )
            self._schemes[path] = scheme
        return self._schemes[path]

    def forget_scheme(self, path: Path) -> None:
        """Read a scheme anew when it is next needed."""
        self._schemes.pop(path, None)

    @cached_property
    def device(self) -> str:
        """``auto`` resolved: cuda, then mps, then cpu; an unknown or missing device is a ``RecipeError``."""
        import torch

        wanted = self.recipe.device
        if wanted in ("auto", "cuda") and "LOCAL_RANK" in os.environ and torch.cuda.is_available():
            return f"cuda:{os.environ['LOCAL_RANK']}"  # a launcher gives each process a GPU
        if wanted == "auto":
            return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        try:
            device = torch.device(wanted)
            if device.type not in DEVICES:  # torch knows more kinds than it can compute on
                raise NotImplementedError(device.type)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, NotImplementedError):
            raise RecipeError(
                f"--device: {wanted!r} is not on this machine; allowed: auto, cpu, cuda[:n], mps"
            ) from None
        return wanted

    def fresh_model(self) -> nn.Module:
        """A newly loaded base model on the device. Nobody else has it: steps prune and train models in place."""
        return self.base.load().to(self.device)

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
            self._calibration = self.calibrated(self.fresh_model(), layout, progress=progress, by_need=by_need)
        return self._calibration

    def calibrated(self, model: nn.Module, layout: Layout, *, progress: Progress, by_need: bool = False) -> Calibration:
        """``model`` on the calibration sample, as far as ``layout`` looks at it."""
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
            learning=lambda: self._movement(progress),
            progress=progress,
        )

    @property
    def movement_settings(self) -> MovementSettings:
        """How the criterion ``movement`` learns its scores."""
        from .calibration.movement import MovementSettings

        return MovementSettings(**self.recipe.movement.model_dump(), seed=self.recipe.seed, taught=self.taught())

    def _movement(self, progress: Progress) -> Mapping[Projection, Tensor]:
        from .calibration.movement import learn_movement
        from .pruning.criteria.movement import Movement

        # Over the whole layout, whatever a scheme touches: what is learnt once serves every scheme.
        model, data, settings = self.fresh_model(), self.examples("train"), self.movement_settings
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
        told = [self.teacher.fingerprint, train.digest, *map(str, shapes)]
        return KeptAnswers(self.folder / ".answers" / f"{digest_of(told)[:16]}.safetensors")

    def sample_identity(self) -> dict[str, Any]:
        """What identifies the calibration sample, and how it is looked at."""
        size, seed = self.recipe.calibration_size, self.recipe.seed
        like = {"lengths": self.lengths_like.digest} if self.lengths_like else {}
        # Plain moments are not named: addresses of what was made with them stay what they were.
        metric = {} if self.recipe.metric == "plain" else {"metric": self.recipe.metric}
        return {"size": size, "seed": seed, "data": self.examples("train").digest, **like, **metric}

    @property
    def lengths_like(self) -> Examples | None:
        """The split whose lengths the calibration sample has; None where they are those of the training split."""
        return self.examples("valid") if self.recipe.lengths_like == "valid" else None

    def forget_calibration(self) -> None:
        """Let go of the moments and of the base model that they were gathered from."""
        self._calibration = None

    def addresses(self, library: Library, scheme: Scheme) -> dict[str, str]:
        """Node hash -> address that ``library`` recorded for this scheme."""
        manifest = library.manifest(scheme.digest)
        if manifest is None:
            raise LibraryError(
                f"{library.folder}: holds nothing for this scheme ({scheme.digest[:12]}); "
                "run `compose prune` and `compose finetune --level block` first"
            )
        return dict(manifest["addresses"])

    def resolved(self) -> dict[str, Any]:
        """The recipe as plain data, for the record beside each result."""
        return self.recipe.model_dump(mode="json", exclude={"folder"})


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
