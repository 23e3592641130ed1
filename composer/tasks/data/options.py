"""What the user may say about data and task: one frozen model, checked when it is made."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Size = Annotated[int, Field(ge=1)]

SENTENCE = 128
"""Tokens kept of a sentence where nothing else is asked."""


class DataOptions(BaseModel):
    """Where the examples come from, which task they are for and how many are used.

    Unknown fields and sizes below 1 are a ``pydantic.ValidationError``.

    >>> DataOptions(data="demo").num_beams
    1
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    data: Annotated[str, Field(min_length=1)]
    """A folder, a dataset of the Hugging Face hub (``name`` or ``name:configuration``), or ``demo`` for the
    embedded corpus. A folder that is itself called demo is written ``./demo``."""

    task: str | None = None
    """Name of the task; None takes it from the model's config."""

    source_lang: str = "en"
    """Language translated from: suffix of the text files, or name of the column."""

    target_lang: str = "de"
    """Language translated to: suffix of the text files, or name of the column."""

    prefix: str | None = None
    """Text put before every source sentence; None takes what the model was trained with."""

    source_column: str | None = None
    """Column of source sentences in tables; None tries ``source_lang`` and usual names."""

    target_column: str | None = None
    """Column of target sentences in tables; None tries ``target_lang`` and usual names."""

    text_column: str | None = None
    """Column of texts; None tries usual names, and for classification first those of pairs."""

    pair_column: str | None = None
    """Column of the second text of each pair, beside ``text_column``; None tries the layouts of GLUE."""

    label_column: str | None = None
    """Column of labels; None tries usual names."""

    max_source_length: Size | None = None
    """Tokens kept of a source sentence or text, special tokens and prefix included; length of a window. None: 128, or
    the model's limit where that is less; windows of text: the model's limit, at most 1024; windows of question and
    context: at most 384."""

    max_target_length: Size | None = None
    """Tokens kept of a target sentence, and tokens generated at most. None: 128, or the model's limit where that is
    less."""

    num_beams: Size = 1
    """Beams of generation; 1 is greedy."""

    doc_stride: Size | None = None
    """Question answering: tokens of the context that neighbouring windows share; None: 128, or half of what a
    window holds where that is less."""

    max_answer_length: Size = 30
    """Question answering: most tokens of an answer."""

    null_score_diff_threshold: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    """Question answering: no answer is given where that scores higher than the best answer by more than this."""

    train_size: Size | None = None
    """Use at most so many training examples: a sample drawn with ``seed``, kept in the files' order."""

    valid_size: Size | None = None
    """Use at most so many validation examples: the first ones."""

    test_size: Size | None = None
    """Use at most so many test examples: the first ones."""

    valid_split: str | None = None
    """Name of the validation split (``validation_matched``); None takes validation, valid, val or dev."""

    test_split: str | None = None
    """Name of the test split (``test_2016_flickr``); None takes the alphabetically first ``test*``."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Draws the training sample, and the held-out validation rows where the data has no validation split."""
