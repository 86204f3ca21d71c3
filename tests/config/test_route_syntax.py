"""The short and the long form of every route, and what is said about those that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimta.config.route_syntax import parse_route
from trimta.mail.status import EnhancedStatus
from trimta.routing.routes import (
    DiscardRoute,
    HoldRoute,
    HostRoute,
    MaildirRoute,
    MxRoute,
    PipeRoute,
    RejectRoute,
    Route,
    RouteError,
    TlsPolicy,
    describe,
    next_hop,
)

BASE = Path("/base")
UNIX_LMTP = HostRoute(protocol="lmtp", unix_path="/run/dovecot/lmtp", tls=TlsPolicy.NONE)

SHORT = [
    ("mx", MxRoute(), "mx"),
    ("smtp:127.0.0.1:2600", HostRoute(host="127.0.0.1", port=2600), "smtp:127.0.0.1:2600"),
    ("smtp:Mail.Partner.Test", HostRoute(host="mail.partner.test", port=25), "smtp:mail.partner.test:25"),
    ("smtp:bücher.test:25", HostRoute(host="xn--bcher-kva.test", port=25), "smtp:xn--bcher-kva.test:25"),
    ("smtp:[::1]:2600", HostRoute(host="::1", port=2600), "smtp:[::1]:2600"),
    ("smtp:[::1]", HostRoute(host="::1", port=25), "smtp:[::1]:25"),
    ("smtp:::1", HostRoute(host="::1", port=25), "smtp:[::1]:25"),
    ("smtp:2001:DB8:0::1", HostRoute(host="2001:db8::1", port=25), "smtp:[2001:db8::1]:25"),
    ("smtp:[mail.x.test]:587", HostRoute(host="mail.x.test", port=587), "smtp:mail.x.test:587"),
    ("smtp:unix:run/smtp", HostRoute(unix_path="/base/run/smtp", tls=TlsPolicy.NONE), "smtp:unix:/base/run/smtp"),
    (
        "smtps:mail.x.test",
        HostRoute(host="mail.x.test", port=465, tls=TlsPolicy.ENCRYPT, implicit_tls=True),
        "smtps:mail.x.test:465",
    ),
    ("lmtp:unix:/run/dovecot/lmtp", UNIX_LMTP, "lmtp:unix:/run/dovecot/lmtp"),
    ("lmtp:localhost:24", HostRoute(host="localhost", port=24, protocol="lmtp"), "lmtp:localhost:24"),
    ("lmtp:[::1]:24", HostRoute(host="::1", port=24, protocol="lmtp"), "lmtp:[::1]:24"),
    (
        "pipe:/usr/bin/uux - -r {nexthop}!rmail {recipients}",
        PipeRoute(("/usr/bin/uux", "-", "-r", "{nexthop}!rmail", "{recipients}")),
        "pipe:/usr/bin/uux - -r {nexthop}!rmail {recipients}",
    ),
    (
        "pipe:/bin/x 'a b' \"$HOME\" --from={sender}:{id} ''",
        PipeRoute(("/bin/x", "a b", "$HOME", "--from={sender}:{id}", "")),
        "pipe:/bin/x 'a b' $HOME --from={sender}:{id} ''",
    ),
    ("maildir:maildir-example/remote", MaildirRoute("/base/maildir-example/remote"), None),
    ("maildir:/srv/{domain}", MaildirRoute("/srv/{domain}"), "maildir:/srv/{domain}"),
    ("discard", DiscardRoute(), "discard"),
    ("hold", HoldRoute(), "hold"),
    (
        "reject:550 5.7.1 we do not talk to them",
        RejectRoute(550, EnhancedStatus(5, 7, 1), "we do not talk to them"),
        "reject:550 5.7.1 we do not talk to them",
    ),
    ("reject:450 4.2.0 later", RejectRoute(450, EnhancedStatus(4, 2, 0), "later"), "reject:450 4.2.0 later"),
    ("reject:554 no", RejectRoute(554, None, "no"), "reject:554 no"),
    ("reject:550", RejectRoute(550, None, "mail for this address is refused"), None),
]


@pytest.mark.parametrize(("text", "route", "written"), SHORT)
def test_a_short_form_is_a_route_and_back(text: str, route: Route, written: str | None) -> None:
    assert parse_route(text, BASE) == route
    if written is not None:
        assert str(route) == written
    assert parse_route(str(route), BASE) == route


@pytest.mark.parametrize(
    ("table", "route", "written"),
    [
        ({"transport": "mx"}, MxRoute(), "mx"),
        (
            {"transport": "mx", "port": 2525, "tls": "verify"},
            MxRoute(port=2525, tls=TlsPolicy.VERIFY),
            "mx port=2525 tls=verify",
        ),
        (
            {
                "transport": "smtp",
                "host": "smtp.example.com",
                "port": 587,
                "tls": "verify",
                "username": "u",
                "password_file": "relay.secret",
            },
            HostRoute(
                host="smtp.example.com",
                port=587,
                tls=TlsPolicy.VERIFY,
                username="u",
                password_file=BASE / "relay.secret",
            ),
            "smtp:smtp.example.com:587 tls=verify username=u",
        ),
        ({"transport": "smtp", "host": "[::1]"}, HostRoute(host="::1", port=25), "smtp:[::1]:25"),
        ({"transport": "smtp", "host": "::1", "port": 26}, HostRoute(host="::1", port=26), "smtp:[::1]:26"),
        ({"transport": "smtp", "host": "h", "tls": "none"}, HostRoute(host="h", port=25, tls=TlsPolicy.NONE), None),
        (
            {"transport": "smtps", "host": "h", "tls": "verify"},
            HostRoute(host="h", port=465, tls=TlsPolicy.VERIFY, implicit_tls=True),
            "smtps:h:465 tls=verify",
        ),
        ({"transport": "lmtp", "path": "/run/dovecot/lmtp"}, UNIX_LMTP, "lmtp:unix:/run/dovecot/lmtp"),
        ({"transport": "lmtp", "path": "unix:/run/dovecot/lmtp"}, UNIX_LMTP, None),
        ({"transport": "lmtp", "host": "h", "port": 24}, HostRoute(host="h", port=24, protocol="lmtp"), "lmtp:h:24"),
        ({"transport": "pipe", "command": "/bin/x {recipients}"}, PipeRoute(("/bin/x", "{recipients}")), None),
        ({"transport": "pipe", "command": ["/bin/x", "a b"]}, PipeRoute(("/bin/x", "a b")), "pipe:/bin/x 'a b'"),
        ({"transport": "maildir", "path": "x"}, MaildirRoute("/base/x"), "maildir:/base/x"),
        ({"transport": "discard"}, DiscardRoute(), "discard"),
        ({"transport": "hold"}, HoldRoute(), "hold"),
        ({"transport": "reject", "reply": "550 5.7.1 no"}, RejectRoute(550, EnhancedStatus(5, 7, 1), "no"), None),
    ],
)
def test_a_long_form_is_a_route(table: dict[str, Any], route: Route, written: str | None) -> None:
    assert parse_route(table, BASE) == route
    if written is not None:
        assert str(route) == written


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("", 'expected "mx"'),
        (5, "found 5"),
        (True, "found True"),
        (["mx"], "found ['mx']"),
        ("smpt:h:25", "did you mean 'smtp'"),
        ("MX", 'expected "mx"'),
        ("mx:25", '"mx" alone'),
        ("discard:x", '"discard" alone'),
        ("hold:", '"hold" alone'),
        ("smtp", 'expected "mx"'),
        ("smtp:", 'expected "mx"'),
        ("smtp:h:", "port ''"),
        ("smtp:h:0", "1 to 65535"),
        ("smtp:h:65536", "1 to 65535"),
        ("smtp:h:smtp", "port 'smtp'"),
        ("smtp:h:٢٥", "1 to 65535"),
        ("smtp:h:+25", "1 to 65535"),
        ("smtp::25", "found host ''"),
        ("smtp:a b:25", "a space"),
        ("smtp://h:25", "found host '//h'"),
        ("smtp:[::1", '"[ADDRESS]:PORT"'),
        ("smtp:[::1]25", '"[ADDRESS]:PORT"'),
        ("smtp:[]:25", "found host ''"),
        ("smtp:1:2:3", "found host '1:2:3'"),
        ("smtp:h.:25", "does not end with a dot"),
        ("smtps:unix:/x", '"smtps:HOST:PORT"'),
        ("lmtp:h", "lmtp has no usual port"),
        ("lmtp:unix:", "expected a path"),
        ("pipe:uux x", "absolute path"),
        ("pipe:  ", 'expected "mx"'),
        ("pipe:''", "absolute path"),
        ("pipe:/bin/{sender}", "absolute path"),
        ("pipe:/bin/x 'a", "No closing quotation"),
        ("pipe:/bin/x {recipient}", "did you mean 'recipients'"),
        ("pipe:/bin/x {user}", "found {user}"),
        ("pipe:/bin/x -t{recipients}", "word of its own"),
        ("pipe:/bin/x {recipients}{recipients}", "word of its own"),
        ("pipe:/bin/x \0", "NUL"),
        ("maildir:", 'expected "mx"'),
        ("maildir:~/Mail", "'~'"),
        ("maildir:x/{user}", "several users"),
        ("maildir:x/{doman}", "expected {domain}"),
        ("maildir:x\0", "expected a path"),
        ("reject:", 'expected "mx"'),
        ("reject:no", '"550 5.7.1 text"'),
        ("reject:250 ok", "expected 4xx or 5xx"),
        ("reject:599 x", "expected 4xx or 5xx"),
        ("reject:421 4.3.2 bye", "ends a session"),
        ("reject:550 4.7.1 no", "expected 5.x.x"),
        ("reject:450 5.7.1 no", "expected 4.x.x"),
        ("reject:550 9.9.9 no", "not an enhanced status code"),
        ("reject:550 5.7.1 a\tb", "printable"),
        ({}, "transport is missing"),
        ({"host": "h"}, "transport is missing"),
        ({"transport": "smpt"}, "did you mean 'smtp'"),
        ({"transport": 5}, "found transport = 5"),
        ({"transport": "mx", "prot": 25}, "'prot' is not an option of mx (did you mean 'port'?)"),
        ({"transport": "discard", "port": 25}, "'port' is not an option of discard; it has: none"),
        ({"transport": "smtp", "host": "h", "password": "s3cret"}, "did you mean 'password_file'"),
        ({"transport": "mx", "host": "h"}, "'host' is not an option of mx"),
        ({"transport": "mx", "port": "25"}, "found port = '25'"),
        ({"transport": "mx", "port": True}, "found port = True"),
        ({"transport": "mx", "port": 0}, "1 to 65535"),
        ({"transport": "mx", "tls": "yes"}, 'expected one of "none", "may", "encrypt", "verify"'),
        ({"transport": "mx", "tls": True}, "found tls = True"),
        ({"transport": "smtp"}, "expected host"),
        ({"transport": "smtps"}, "expected host"),
        ({"transport": "smtp", "host": ""}, "expected a text"),
        ({"transport": "smtp", "host": "h:25"}, "'h:25'"),
        ({"transport": "smtp", "host": "h", "path": "/x"}, "excludes host and port"),
        ({"transport": "smtp", "host": "h", "username": "u"}, "username needs password_file"),
        ({"transport": "smtp", "host": "h", "password_file": "f"}, "password_file needs username"),
        ({"transport": "smtps", "host": "h", "tls": "may"}, '"encrypt" or "verify"'),
        ({"transport": "smtps", "host": "h", "tls": "none"}, '"encrypt" or "verify"'),
        ({"transport": "lmtp", "host": "h"}, "no usual port"),
        ({"transport": "pipe"}, "command is missing"),
        ({"transport": "pipe", "command": []}, "absolute path"),
        ({"transport": "pipe", "command": 5}, "found command = 5"),
        ({"transport": "maildir"}, "path is missing"),
        ({"transport": "reject"}, "reply is missing"),
    ],
)
def test_a_mistake_is_told_with_what_is_expected(value: Any, problem: str) -> None:
    with pytest.raises(RouteError) as error:
        parse_route(value, BASE)
    assert problem in str(error.value)
    assert "s3cret" not in str(error.value)


@given(
    st.one_of(
        st.text(max_size=40),
        st.builds(
            "{}:{}".format,
            st.sampled_from(["smtp", "smtps", "lmtp", "pipe", "maildir", "reject"]),
            st.text(st.sampled_from("[]:/ a.0125{}'\"\\unix\x00é-"), max_size=30),
        ),
        st.dictionaries(
            st.sampled_from(["transport", "host", "port", "tls", "path", "command", "reply", "username", "x"]),
            st.one_of(st.text(max_size=5), st.integers(), st.sampled_from(["mx", "smtp", "lmtp", "pipe", "maildir"])),
        ),
    )
)
@settings(deadline=None, max_examples=100)
def test_any_value_is_a_route_or_a_route_error(value: str | dict[str, Any]) -> None:
    try:
        route = parse_route(value, BASE)
    except RouteError:
        return
    assert describe(route)
    assert next_hop(route, "far.test")
    if isinstance(value, str):
        assert parse_route(str(route), BASE) == route
