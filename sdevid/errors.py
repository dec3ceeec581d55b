"""What a user can cause, told without a traceback."""


class UserError(Exception):
    """A mistake in the settings, the data or the files that a user gave.

    The message names the setting, file or tensor, the value found, the rule and the remedy.
    The command line prints it alone and ends with exit code 2.
    """


class NonFiniteError(UserError):
    """A tensor, loss or gradient that is infinite or not a number: the computation is lost."""
