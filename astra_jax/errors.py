"""The one exception a user may see."""


class UserError(Exception):
    """Something the user can mend.

    The message is one line: what is wrong, where (file, match or config key) and how to
    mend it. The command lines print it without a traceback and exit with code 2.
    """
