"""Result files in the shape of lm-eval's own: what reads those reads these too.

``lm-eval/results_<task>.json`` has ``results`` (``acc,none``, its standard error, ``acc_norm,none``), ``n-shot``,
``n-samples``, ``higher_is_better``, ``versions`` and ``config``; ``samples_<task>.jsonl`` a line for each problem as
``--log_samples`` writes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ...files.jsonfile import write_json, write_text
from .suite import Sample

NAMES = {"accuracy": "acc", "acc_norm": "acc_norm"}
"""Our measures by the names of lm-eval's."""


def write_lm_eval_files(
    folder: Path, task: str, task_version: int, samples: Sequence[Sample], result: Mapping[str, Any], limit: int | None
) -> None:
    """Write both files of a task into ``folder/lm-eval``.

    Args:
        result: the figures, as the task's own file holds them.
        limit: as the user gave it.
    """
    figures: dict[str, Any] = {"alias": task}
    for measure in result["measures"]:
        name = NAMES[measure["name"]]
        figures |= {f"{name},none": measure["value"], f"{name}_stderr,none": measure["error"]}
    content = {
        "results": {task: figures},
        "group_subtasks": {task: []},
        "configs": {task: {"task": task, "output_type": "multiple_choice", "num_fewshot": 0}},
        "versions": {task: task_version},
        "n-shot": {task: 0},
        "higher_is_better": {task: dict.fromkeys(NAMES.values(), True)},
        "n-samples": {task: {"original": result["examples"], "effective": len(samples)}},
        "config": {"model": "hf", "model_args": f"pretrained={result['model']}", "limit": limit, "bootstrap_iters": 0},
        "model_name": result["model"],
        "lm_eval_version": version("lm_eval"),
    }
    place = folder / "lm-eval"
    place.mkdir(parents=True, exist_ok=True)
    write_json(place / f"results_{task}.json", content)
    write_text(place / f"samples_{task}.jsonl", "".join(map(_line, samples)))


def _line(sample: Sample) -> str:
    likely = [[[str(one), "False"]] for one in sample["log_likelihoods"]]
    line = {
        "doc_id": sample["id"],
        "doc": {key: sample[key] for key in ("prompt", "choices", "gold")},
        "target": str(sample["gold"]),
        "resps": likely,
        "filtered_resps": [one[0] for one in likely],
        "acc": float(sample["right"]),
        "acc_norm": float(sample["right_by_length"]),
    }
    return json.dumps(line, ensure_ascii=False) + "\n"
