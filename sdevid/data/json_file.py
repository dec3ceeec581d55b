"""dataset.json and the indices in JSON: read without trust, with the fault named."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from sdevid.data.folder import Folder
from sdevid.data.schema import MOST_BYTES, first_fault, parse_json
from sdevid.errors import UserError

Fields = TypeVar("Fields", bound=BaseModel)


def checked(schema: type[Fields], content: dict[str, Any], name: str) -> Fields:
    """Validate a file's fields by its schema. UserError names the field that is out of form."""
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        raise UserError(
            f"{name} lacks or misnames a field, or one is out of its range ({first_fault(error)}); "
            "copy it again or make it anew"
        ) from error


def read_json(folder: Folder, name: str) -> dict[str, Any]:
    """Read the JSON object in a file.

    Raises FileNotFoundError where it is missing, UserError where it does not read.
    """
    path = f"{folder.location}/{name}"
    limit = MOST_BYTES["index" if name.endswith(".index.json") else "dataset.json"]
    try:
        return parse_json(folder.whole(name, limit), limit)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{path} does not read ({error.strerror}); copy it again") from error
    except ValueError as error:
        raise UserError(f"{path} is not read as JSON: {error}; copy or make it anew") from error
