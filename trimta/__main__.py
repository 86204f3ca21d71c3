"""The entry point of the process, for `trimta` and `python -m trimta`."""

import gc
import signal
import sys


def main() -> int:
    """Run this process's command line; returns the exit code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # so that Ctrl-C during the imports below prints no traceback
    gc.disable()  # until the command runs: imports make objects that stay, and looking through them finds nothing
    from trimta.cli.main import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
