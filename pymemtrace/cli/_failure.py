"""How a command ends that cannot do what it was asked: one line and an exit status."""

import os
import sys

EXIT_CHECK_FAILED = 1
EXIT_USAGE = 2
EXIT_INPUT = 3
EXIT_IMPOSSIBLE = 4


class Failure(Exception):
    """What is wrong, where, and what to do about it; main() prints it and returns the status."""

    def __init__(self, status: int, what: str, where: object, remedy: str) -> None:
        super().__init__(f"{what}: {where}: {remedy}")
        self.status = status


def drop_stdout() -> None:
    """What is written to standard output from now on, and what waits in its buffer, is lost."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
