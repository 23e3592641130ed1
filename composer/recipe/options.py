"""What all options have in common: how they are spelt, and that no unknown key or boolean number passes."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]


def kebab(name: str) -> str:
    """A field's name as a flag and in the file."""
    return name.replace("_", "-")


class Options(BaseModel):
    """Base of the parts of a recipe: frozen, strict about unknown keys."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=kebab,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """pydantic reads True as 1; here a switch is a switch."""
        values = value if isinstance(value, list) else [value]
        is_switch = info.field_name and cls.model_fields[info.field_name].annotation is bool
        if not is_switch and any(isinstance(one, bool) for one in values):
            raise PydanticCustomError("boolean", "this option is no switch")
        return value
