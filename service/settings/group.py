"""One level of the configuration, as a pydantic model."""

from pydantic import BaseModel, ConfigDict

NO_CONTROLS = r"^[^\x00-\x1f\x7f]+$"  # in a login they would end a field, or the line


class Group(BaseModel):
    """One level of the configuration."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,  # a message must not hold what may be a password
        coerce_numbers_to_str=True,  # JSON in the environment: a client id may look like a number
    )
