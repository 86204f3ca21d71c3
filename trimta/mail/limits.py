"""Lengths that the RFCs set for addresses, replies, parameters and lines of text (RFC 5321 4.5.3.1)."""

from __future__ import annotations

from typing import Final

MAX_LABEL: Final = 63
"""Octets of one label of a domain, as A-label: RFC 1035 2.3.4, RFC 5890 2.3.2.1."""

MAX_DOMAIN: Final = 255
"""Octets of a domain, which HELO and EHLO name too: RFC 5321 4.5.3.1.2."""

MAX_PATH: Final = 256
"""Octets of a path, its "<", ">" and source route included: RFC 5321 4.5.3.1.3."""

MAX_REPLY_LINE: Final = 512
"""Octets of a line of a reply, its code and CRLF included: RFC 5321 4.5.3.1.5."""

MAX_TEXT_LINE: Final = 998
"""Octets of a line of a message, its CRLF not included: RFC 5321 4.5.3.1.6, RFC 5322 2.1.1."""

MAX_ENVID: Final = 100
"""Characters of ENVID, decoded from xtext: RFC 3461 4.4."""

MAX_ORCPT: Final = 500
"""Characters of ORCPT, as the client wrote it: RFC 3461 4.2."""
