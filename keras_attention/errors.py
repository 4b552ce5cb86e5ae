"""Errors that a user of the command line can cause and mend."""


class UserError(Exception):
    """A user's mistake: the message says what is wrong, where, and what to do about it.

    The command line prints it as one line, without a traceback, and exits with status 1.
    """
