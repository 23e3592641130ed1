"""Every option of every command, checked; ``compose.yaml`` is its file.

What is written in the file gives the defaults; what is given as a flag (or keyword) wins. Keys are written
as the flags are (``batch-size``) or with underscores. An unknown key is an error that names the near miss.
"""

from .options import Options
from .parts import PEAK_RATES, BlockOptions, ModelOptions, MovementOptions, TimeOptions, as_for_one_model
from .reading import load_recipe, merged
from .whole import RECIPE_FILE, Recipe

__all__ = [
    "PEAK_RATES",
    "RECIPE_FILE",
    "BlockOptions",
    "ModelOptions",
    "MovementOptions",
    "Options",
    "Recipe",
    "TimeOptions",
    "as_for_one_model",
    "load_recipe",
    "merged",
]
