"""Names of TLS cipher suites: each that OpenSSL may agree on has the one of IANA's registry."""

from __future__ import annotations

import re
import ssl

import pytest

from trimta.smtp.cipher_suites import registered_name


@pytest.mark.parametrize(
    ("name", "registered"),
    [
        ("TLS_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384"),
        ("ECDHE-RSA-AES128-GCM-SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
        ("ECDHE-RSA-CHACHA20-POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
        ("AES256-SHA", "TLS_RSA_WITH_AES_256_CBC_SHA"),
        ("NO-SUCH-SUITE", ""),
    ],
)
def test_a_name_of_openssl_is_one_of_the_registry(name: str, registered: str) -> None:
    assert registered_name(name) == registered


def test_every_suite_that_a_server_offers_is_known() -> None:
    names = [cipher["name"] for cipher in ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).get_ciphers()]
    assert names
    assert [name for name in names if not re.fullmatch("TLS_[A-Z0-9_]+", registered_name(name))] == []
