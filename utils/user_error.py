"""The exception for a user's mistake, as opposed to a fault of the code."""


class UserError(ValueError):
    """A mistake in options, flags, files or data.

    The message names the mistake, the remedy and, where they are few, the choices. `utils.utils_cli.run_command` prints
    it on one line and ends with code 2; every other exception is a fault of the code and keeps its traceback.
    """
