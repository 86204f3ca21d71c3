from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.effort import bounded_effort
from trimta.mail.address import Mailbox, parse_mailbox
from trimta.routing.aliases import AliasCycle, AliasError, AliasTable
from trimta.routing.mailboxes import LocalDomains

LOCAL = LocalDomains(("dev.test", "second.test"), "host.test")


def table(**entries: list[str]) -> AliasTable:
    return AliasTable({key: tuple(targets) for key, targets in entries.items()}, LOCAL)


def expand(aliases: AliasTable, address: str) -> list[str]:
    return [str(mailbox) for mailbox in aliases.expand(parse_mailbox(address))]


TABLE = AliasTable(
    {
        "postmaster": ("alice",),
        "team": ("alice", "bob", "carol@partner.test"),
        "All": ("team", "dave", "ALICE"),
        "info@dev.test": ("bob",),
        "info": ("alice",),
        "far@partner.test": ("alice", "far@else.test"),
        "lists+news": ("dave",),
        "lists": ("bob",),
        "erin": ("erin", "bob"),
        "frank@dev.test": ("frank@dev.test", "bob"),
        "grace": ("erin",),
        "team@second.test": ("dave",),
        '"a b"': ('"c d"', Mailbox("x y", "partner.test")),
        "user%other.test": ("alice",),
    },
    LOCAL,
)


@pytest.mark.parametrize(
    ("address", "leaves", "key"),
    [
        ("nobody@dev.test", ["nobody@dev.test"], None),
        ("Nobody@else.test", ["Nobody@else.test"], None),
        ("team@dev.test", ["alice@dev.test", "bob@dev.test", "carol@partner.test"], "team"),
        ("Team@host.test", ["alice@host.test", "bob@host.test", "carol@partner.test"], "team"),
        ("team@second.test", ["dave@second.test"], "team@second.test"),
        ("team+x@second.test", ["dave@second.test"], "team@second.test"),
        ("team+x@dev.test", ["alice@dev.test", "bob@dev.test", "carol@partner.test"], "team"),
        ("team@else.test", ["team@else.test"], None),
        ("all@dev.test", ["alice@dev.test", "bob@dev.test", "carol@partner.test", "dave@dev.test"], "All"),
        ("postmaster", ["alice@host.test"], "postmaster"),
        ("POSTMASTER@second.test", ["alice@second.test"], "postmaster"),
        ("info@DEV.TEST", ["bob@dev.test"], "info@dev.test"),
        ("INFO@second.test", ["alice@second.test"], "info"),
        ("far@partner.test", ["alice@dev.test", "far@else.test"], "far@partner.test"),
        ("FAR@partner.test", ["alice@dev.test", "far@else.test"], "far@partner.test"),
        ("far+x@partner.test", ["far+x@partner.test"], None),
        ("lists+news@dev.test", ["dave@dev.test"], "lists+news"),
        ("lists+other@dev.test", ["bob@dev.test"], "lists"),
        ('"A b"@dev.test', ['"c d"@dev.test', '"x y"@partner.test'], '"a b"'),
        ("user%other.test@dev.test", ["alice@dev.test"], "user%other.test"),
        ('"team@dev.test"@else.test', ['"team@dev.test"@else.test'], None),
    ],
)
def test_an_alias_means_its_leaves(address: str, leaves: list[str], key: str | None) -> None:
    assert expand(TABLE, address) == leaves
    assert TABLE.matches(parse_mailbox(address)) == key


@pytest.mark.parametrize(
    ("address", "leaves"),
    [
        ("erin@dev.test", ["erin@dev.test", "bob@dev.test"]),
        ("erin@second.test", ["erin@second.test", "bob@second.test"]),
        ("Erin+x@dev.test", ["Erin+x@dev.test", "bob@dev.test"]),
        ("grace@second.test", ["erin@second.test", "bob@second.test"]),
        ("frank@dev.test", ["frank@dev.test", "bob@dev.test"]),
        ("frank@second.test", ["frank@second.test"]),
    ],
)
def test_an_alias_to_itself_means_the_mailbox(address: str, leaves: list[str]) -> None:
    assert expand(TABLE, address) == leaves


@pytest.mark.parametrize(
    ("entries", "cycle"),
    [
        ({"a": ["b"], "b": ["a"]}, "a -> b -> a"),
        ({"a": ["b"], "b": ["c"], "c": ["x@else.test", "b"]}, "b -> c -> b"),
        ({"a": ["b+x"], "b": ["A@second.test"]}, "a -> b -> a"),
        ({"a@dev.test": ["b"], "b": ["a"]}, "a@dev.test -> b -> a@dev.test"),
        ({"far@else.test": ["a"], "a": ["far@else.test"]}, "far@else.test -> a -> far@else.test"),
        ({"postmaster": ["root"], "root": ["postmaster"]}, "postmaster -> root -> postmaster"),
    ],
)
def test_a_cycle_is_named(entries: dict[str, list[str]], cycle: str) -> None:
    with pytest.raises(AliasCycle) as error:
        AliasTable(entries, LOCAL)
    assert str(error.value).endswith(f": {cycle}")
    assert error.value.key == cycle.partition(" ")[0]


def test_two_ways_to_one_address_are_no_cycle() -> None:
    diamond = table(a=["b", "c"], b=["d"], c=["d"], d=["x@else.test", "y@else.test"])
    assert expand(diamond, "a@dev.test") == ["x@else.test", "y@else.test"]


def test_leaves_stand_in_the_order_of_the_configuration() -> None:
    nested = table(a=["b", "z", "c"], b=["q", "r"], c=["p", "q"])
    assert expand(nested, "a@dev.test") == [f"{name}@dev.test" for name in ("q", "r", "z", "p")]


def test_a_mailbox_named_twice_is_one_leaf_without_regard_to_case_if_it_is_local() -> None:
    twice = table(a=["b", "B", "B@Dev.test", "c@else.test", "C@else.test", "c@ELSE.test"])
    assert expand(twice, "a@dev.test") == ["b@dev.test", "c@else.test", "C@else.test"]


@pytest.mark.parametrize(
    ("key", "targets", "problem"),
    [
        ("a b", ["x"], "a local part or an address"),
        ("", ["x"], "a local part or an address"),
        ("a@b@c", ["x"], "a local part or an address"),
        ("@dev.test", ["x"], "a local part or an address"),
        ("a", [], "one address or more"),
        ("a", ["b c"], "'b c' is neither an address nor a local part"),
        ("a", ["b@"], "'b@' is neither"),
        ("a", [""], "'' is neither"),
        ("a", ["|/usr/bin/procmail"], "routes"),
        ("a", ["/var/mail/a"], "routes"),
        ("a", [":include:/etc/list"], "routes"),
    ],
)
def test_an_entry_that_means_nothing_is_refused(key: str, targets: list[str], problem: str) -> None:
    with pytest.raises(AliasError, match=problem) as error:
        AliasTable({key: targets}, LOCAL)
    assert error.value.key == key


def test_a_key_stands_once() -> None:
    with pytest.raises(AliasError, match="same name as 'team'"):
        AliasTable({"team": ["a"], "TEAM": ["b"]}, LOCAL)
    with pytest.raises(AliasError, match="same name"):
        AliasTable({"a@dev.test": ["a"], "A@Dev.Test": ["b"]}, LOCAL)


def test_a_long_chain_and_a_wide_net_are_expanded_at_once() -> None:
    with bounded_effort():
        chain = AliasTable({f"a{n}": [f"a{n + 1}"] for n in range(5000)}, LOCAL)
        assert expand(chain, "a0@dev.test") == ["a5000@dev.test"]
        net = AliasTable({f"a{n}": [f"a{n + 1}", f"A{n + 1}", f"a{n + 1}@second.test"] for n in range(200)}, LOCAL)
        assert len(net.expand(parse_mailbox("a0@dev.test"))) == 2


NAMES = st.sampled_from(["a", "b", "c", "d", "a@dev.test", "b@second.test", "c@else.test"])


@given(st.dictionaries(NAMES, st.lists(NAMES, min_size=1, max_size=3), max_size=5), NAMES)
@settings(deadline=None, max_examples=100)
def test_any_table_is_a_cycle_or_expands_to_leaves(entries: dict[str, list[str]], name: str) -> None:
    address = parse_mailbox(name if "@" in name else f"{name}@dev.test")
    try:
        aliases = AliasTable(entries, LOCAL)
    except AliasCycle:
        return
    leaves = aliases.expand(address)
    assert leaves
    assert len(leaves) == len(set(leaves))
    for leaf in leaves:
        assert leaf in aliases.expand(leaf)
