"""Types of text fields, which refuse forbidden characters."""

from collections.abc import Callable
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, StringConstraints
from pydantic_core import PydanticCustomError

from app.domain.characters import UNSAFE_CLASS, unsafe, unseen, unstorable
from app.domain.former_codes import present_name
from app.domain.masking import holds_secret
from app.domain.placeholders import is_no_tag


def _keeps_no_secret(value: str) -> str:
    if holds_secret(value):
        raise PydanticCustomError("value_is_secret", "Input holds a product key or a piece of a hash")
    return value


def _names_a_tag(value: str) -> str:
    if is_no_tag(value):
        raise PydanticCustomError("value_placeholder", "Input is a placeholder: leave the group tag out")
    return value


KeepsNoSecret = AfterValidator(_keeps_no_secret)
"""For texts that are stored and shown: neither a product key nor a piece of a hash is taken."""
NamesATag = AfterValidator(_names_a_tag)


def _without(asked: Callable[[str], str | None]) -> BeforeValidator:
    """Refuses a text for which `wrong` returns a reason. Blanks around the text are removed first."""

    def refuse(value: Any) -> Any:
        if isinstance(value, str) and (said := asked(value.strip())) is not None:
            raise PydanticCustomError("value_has_control_characters", "{said}", {"said": said})
        return value

    return BeforeValidator(refuse)


Safe: Final = _without(unsafe)
"""For names, references and words that people read: no control characters and no marks of direction."""
Seen: Final = _without(unseen)
"""For group tags, which people type into profiles: no invisible characters."""
Storable: Final = _without(unstorable)
"""For search values."""

NAME_PATTERN: Final = rf"^[^{UNSAFE_CLASS}]*[^{UNSAFE_CLASS}\s][^{UNSAFE_CLASS}]*$"
"""The pattern in OpenAPI: what `Safe` allows, and not only blanks. Blanks at the ends are removed."""
SOUGHT_PATTERN: Final = r"^[^\x00]*$"


def named(longest: int) -> StringConstraints:
    """The length and the documented pattern of a name, for use with `Safe` or `Seen`, which do the
    checking."""
    return StringConstraints(strip_whitespace=True, min_length=1, max_length=longest, pattern=NAME_PATTERN)


Sought = Annotated[str, StringConstraints(max_length=255, pattern=SOUGHT_PATTERN), Storable]
"""A search value."""
CodeSought = Annotated[Sought, AfterValidator(present_name)]
"""A code to search for, by its present or its former name."""
