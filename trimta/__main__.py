"""The process: `trimta`, or `python -m trimta`."""

import signal
import sys


def main() -> int:
    """Run this process's command line; returns the exit code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while the rest is imported is no traceback either
    from trimta.cli.main import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
