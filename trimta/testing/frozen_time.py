"""Protection of the library `cryptography` from the datetime class of a frozen test.

`cryptography` looks up `datetime.datetime` when it first handles a certificate, and keeps that class as long as the
process lives.  If the class is the one by which freezegun replaces Python's own, all certificates fail once time is no
longer frozen: "'datetime' object is not an instance of 'FakeDatetime'".  time-machine leaves the class as it is.
"""

from __future__ import annotations

import contextlib
import datetime


def keep_real_datetime() -> None:
    """Have `cryptography` look up Python's own datetime class; called before a server makes or reads a certificate."""
    replaced = datetime.datetime
    real: type = replaced
    while real.__module__ != datetime.__name__ and real.__base__ is not None:
        real = real.__base__
    if real is replaced:
        return
    with contextlib.suppress(ImportError):  # without the extra `tls` the server's start says what to install
        import trustme

        # Other threads see real time, too, for about a millisecond.
        datetime.datetime = real  # type: ignore[misc, assignment]
        try:
            trustme.CA()
        finally:
            datetime.datetime = replaced  # type: ignore[misc]
