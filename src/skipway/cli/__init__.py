"""The command line: every verb is one call of `skipway.api`, its messages, and an exit code."""

import sys


def main() -> None:
    """Entry point of the `skipway` command."""
    from skipway.cli.app import app
    from skipway.errors import SkipwayError

    try:
        app()
    except SkipwayError as error:
        for line in error.lines:
            print(line, file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of our output left; nothing is wrong with the work
        sys.stderr.close()
        sys.exit(0)
