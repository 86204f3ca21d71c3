"""The form of a body follows from BODY, and its size on the wire from its form."""

from __future__ import annotations

import pytest

from trimta.mail.body import BodyForm
from trimta.mail.envelope import BodyKind


@pytest.mark.parametrize(
    ("kind", "form", "line_end", "wire_size"),
    [
        (BodyKind.SEVEN_BIT, BodyForm.TEXT, b"\n", 12),
        (BodyKind.EIGHT_BIT, BodyForm.TEXT, b"\n", 12),
        (BodyKind.BINARY, BodyForm.RAW, b"\r\n", 10),
    ],
)
def test_only_binarymime_is_kept_raw(kind: BodyKind, form: BodyForm, line_end: bytes, wire_size: int) -> None:
    assert BodyForm.of(kind) is form
    assert form.line_end == line_end
    assert form.wire_size(10, 2) == wire_size
