"""What a user can cause, told without a traceback."""

_SHOWN = 200  # characters of a path


class UserError(Exception):
    """A mistake in the settings, the data or the files that a user gave.

    The message names the setting, file or tensor, the value found, the rule and the remedy.
    The command line prints it alone and ends with exit code 2.
    """


class NonFiniteError(UserError):
    """A tensor, loss or gradient that is infinite or not a number: the computation is lost."""


def file_fault(error: OSError) -> str:
    """Describe in one sentence what the file system refused: the file and the reason."""
    name = str(error.filename2 or error.filename)  # of a copy, where it was to go
    shown = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."
    return f"{shown!r} cannot be read or written: {error.strerror}; give another path"


def is_exhausted(error: BaseException) -> bool:
    """Check whether an error says that memory ran out.

    Torch's CPU allocator has no exception type for it.
    """
    text = str(error)
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and ("can't allocate memory" in text or "out of memory" in text)
    )
