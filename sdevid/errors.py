"""What a user can cause, told without a traceback."""


class UserError(Exception):
    """A mistake in the settings, the data or the files that a user gave.

    The message names the setting, file or tensor, the value found, the rule and the remedy.
    The command line prints it alone and ends with exit code 2.
    """
