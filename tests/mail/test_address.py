"""The address table, and what holds for every address."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.effort import bounded_effort
from trimta.mail.address import (
    AddressError,
    Mailbox,
    fold_local_part,
    parse_domain,
    parse_forward_path,
    parse_local_part,
    parse_mailbox,
    parse_reverse_path,
    path_faults,
)
from trimta.mail.limits import MAX_PATH

LONG_LABEL = "x" * 63
LONG_DOMAIN = f"{LONG_LABEL}.{LONG_LABEL}.{LONG_LABEL}"

# What stands between "<" and ">": the text, the local part's content, the domain for DNS, and why it is a mailbox.
MAILBOXES = [
    # Dot-string, RFC 5321 4.1.2
    ("alice@dev.test", "alice", "dev.test", "the ordinary address"),
    ("Alice@Dev.Test", "Alice", "dev.test", "a local part keeps its case, a domain has none: 5321 2.4"),
    ("a@b", "a", "b", "a domain of one label: 5321 4.1.2"),
    ("a@b.c", "a", "b.c", "labels of one letter"),
    ("alice@localhost", "alice", "localhost", "localhost is a domain like any"),
    ("a.b.c@x.test", "a.b.c", "x.test", "dots inside of a Dot-string"),
    ("1234567890@x.test", "1234567890", "x.test", "digits: 3696 3"),
    ("user+mailbox@example.com", "user+mailbox", "example.com", "3696 3"),
    ("customer/department=shipping@example.com", "customer/department=shipping", "example.com", "3696 3"),
    ("$A12345@example.com", "$A12345", "example.com", "3696 3"),
    ("!def!xyz%abc@example.com", "!def!xyz%abc", "example.com", "3696 3"),
    ("_somename@example.com", "_somename", "example.com", "3696 3"),
    ("#@x.test", "#", "x.test", "atext: 5322 3.2.3"),
    ("&@x.test", "&", "x.test", "atext"),
    ("'@x.test", "'", "x.test", "atext"),
    ("o'brien@x.test", "o'brien", "x.test", "atext"),
    ("*@x.test", "*", "x.test", "atext"),
    ("-@x.test", "-", "x.test", "atext; a hyphen is bound to labels only"),
    ("-oQ/tmp@x.test", "-oQ/tmp", "x.test", "an option's look is none of the grammar's business"),
    ("/etc/passwd@x.test", "/etc/passwd", "x.test", "a path's neither"),
    ("?@x.test", "?", "x.test", "atext"),
    ("^@x.test", "^", "x.test", "atext"),
    ("`@x.test", "`", "x.test", "atext"),
    ("{}@x.test", "{}", "x.test", "atext"),
    ("|@x.test", "|", "x.test", "atext"),
    ("~@x.test", "~", "x.test", "atext"),
    ("!#$%&'*+-/=?^_`{|}~@x.test", "!#$%&'*+-/=?^_`{|}~", "x.test", "all of atext at once"),
    ("list-bounces+alice=dev.test@x.test", "list-bounces+alice=dev.test", "x.test", "VERP"),
    ("prvs=tag=alice@x.test", "prvs=tag=alice", "x.test", "BATV"),
    ("SRS0=HHH=TT=example.org=alice@x.test", "SRS0=HHH=TT=example.org=alice", "x.test", "SRS"),
    ("postmaster@x.test", "postmaster", "x.test", "5321 4.5.1"),
    ("PostMaster@x.test", "PostMaster", "x.test", "5321 4.5.1"),
    # Quoted-string, RFC 5321 4.1.2
    ('"alice"@x.test', "alice", "x.test", "quotes are no part of the name: 5321 4.1.2"),
    ('"Joe.\\\\Blow"@example.com', "Joe.\\Blow", "example.com", "3696 3, erratum 246"),
    ('"Abc@def"@example.com', "Abc@def", "example.com", "3696 3, erratum 246"),
    ('"Fred Bloggs"@example.com', "Fred Bloggs", "example.com", "3696 3, erratum 246"),
    ('"Fred\\ Bloggs"@example.com', "Fred Bloggs", "example.com", "a quoted-pair that needs none"),
    ('"Abc\\@def"@example.com', "Abc@def", "example.com", "a quoted-pair that needs none"),
    ('"a\\"b"@x.test', 'a"b', "x.test", "a quote in quotes"),
    ('"\\\\"@x.test', "\\", "x.test", "a backslash in quotes"),
    ('""@x.test', "", "x.test", "*QcontentSMTP may be none"),
    ('" "@x.test', " ", "x.test", "a space alone"),
    ('"a..b"@x.test', "a..b", "x.test", "two dots, quoted"),
    ('".a"@x.test', ".a", "x.test", "a dot in front, quoted"),
    ('"a."@x.test', "a.", "x.test", "a dot behind, quoted"),
    ('"a>b"@x.test', "a>b", "x.test", 'a ">" in quotes ends no path'),
    ('"a<b"@x.test', "a<b", "x.test", 'a "<" in quotes begins none'),
    ('"a> SIZE=1"@x.test', "a> SIZE=1", "x.test", "no parameters begin in quotes"),
    ('"(),:;<>[]"@x.test', "(),:;<>[]", "x.test", "all specials in quotes"),
    ('"a,b"@x.test', "a,b", "x.test", "a comma separates nothing"),
    ('"\\a"@x.test', "a", "x.test", "quoted-pairSMTP of a letter"),
    ('"\\~\\ "@x.test', "~ ", "x.test", "both ends of %d32-126 as quoted-pairSMTP"),
    ('"/dev/null"@x.test', "/dev/null", "x.test", "a path's look"),
    ('"|cat"@x.test', "|cat", "x.test", "a command's look"),
    # Relay tricks: each is a local part of the domain behind the last "@"
    ("user%other.test@dev.test", "user%other.test", "dev.test", "percent hack: 5321 gives it no meaning"),
    ("a%b%c.test@dev.test", "a%b%c.test", "dev.test", "percent hack twice"),
    ("user%@dev.test", "user%", "dev.test", "percent hack without a host"),
    ("%@dev.test", "%", "dev.test", "percent alone"),
    ("user%40other.test@dev.test", "user%40other.test", "dev.test", "percent-encoding is not decoded"),
    ("other.test!user@dev.test", "other.test!user", "dev.test", "bang path: 5321 gives it no meaning"),
    ("a!b!c!user@dev.test", "a!b!c!user", "dev.test", "a long bang path"),
    ("a!user%b.test@dev.test", "a!user%b.test", "dev.test", "bang and percent mixed"),
    ('"user@other.test"@dev.test', "user@other.test", "dev.test", "quoted @"),
    ('"@other.test:user"@dev.test', "@other.test:user", "dev.test", "source route in quotes"),
    ('"user%other.test"@dev.test', "user%other.test", "dev.test", "percent hack in quotes"),
    ('"other.test!user"@dev.test', "other.test!user", "dev.test", "bang path in quotes"),
    ('"<user@other.test>"@dev.test', "<user@other.test>", "dev.test", "a path in quotes"),
    ('"user\\@other.test"@dev.test', "user@other.test", "dev.test", "escaped @ in quotes"),
    ('"user@[127.0.0.1]"@dev.test', "user@[127.0.0.1]", "dev.test", "literal in quotes"),
    ("user%127.0.0.1@dev.test", "user%127.0.0.1", "dev.test", "percent hack with an address"),
    ("user=other.test@dev.test", "user=other.test", "dev.test", "equals sign for @"),
    ("smtp+user@dev.test", "smtp+user", "dev.test", "a transport's name in front"),
    ("user#other.test@dev.test", "user#other.test", "dev.test", "a fragment's look"),
    # Source routes, accepted and ignored: RFC 5321 4.1.1.3, appendix C
    ("@a.test:bob@b.test", "bob", "b.test", "one host"),
    ("@a.test,@b.test:bob@c.test", "bob", "c.test", "two hosts: 5321 appendix C"),
    ("@A.TEST,@b.test,@c.test:bob@d.test", "bob", "d.test", "three hosts"),
    ('@a.test:"b c"@d.test', "b c", "d.test", "before a quoted local part"),
    ("@dev.test:user@other.test", "user", "other.test", "the destination is behind the colon, not our own name"),
    ("@other.test:user%third.test@dev.test", "user%third.test", "dev.test", "source route and percent hack"),
    ("@a.test:bob@[127.0.0.1]", "bob", "[127.0.0.1]", "before a literal"),
    ("@bücher.test:bob@b.test", "bob", "b.test", "a U-label on the way"),
    # Domains, RFC 5321 4.1.2, 2.3.5; underscores as PRODUCT says
    ("a@x-y.test", "a", "x-y.test", "a hyphen inside of a label"),
    ("a@x--y.test", "a", "x--y.test", "two hyphens inside of a label"),
    ("a@ab--cd.test", "a", "ab--cd.test", "hyphens in third and fourth place, no A-label"),
    ("a@1.test", "a", "1.test", "a label may begin with a digit: 1123 2.1"),
    ("a@3com.com", "a", "3com.com", "1123 2.1"),
    ("a@0", "a", "0", "a label of one digit"),
    ("a@127.0.0.1", "a", "127.0.0.1", "four labels of digits: a domain by the grammar, not a literal"),
    ("a@_dmarc.x.test", "a", "_dmarc.x.test", "an underscore in front"),
    ("a@my_host.test", "a", "my_host.test", "an underscore inside"),
    ("a@x_.test", "a", "x_.test", "an underscore behind"),
    ("a@a.b.c.d.e.f.g.h.i.j.test", "a", "a.b.c.d.e.f.g.h.i.j.test", "many labels"),
    (f"a@{LONG_LABEL}.test", "a", f"{LONG_LABEL}.test", "a label of 63 octets: 5321 4.1.2, 1035 2.3.4"),
    (f"{'a' * 64}@x.test", "a" * 64, "x.test", "a local part of 64 octets: 5321 4.5.3.1.1"),
    (f"{'a' * 65}@x.test", "a" * 65, "x.test", "a longer one, as VERP needs"),
    (f"{'a' * 247}@x.test", "a" * 247, "x.test", "a path of 256 octets: 5321 4.5.3.1.3, 3696 erratum 1690"),
    (f"a@{LONG_DOMAIN}.{'x' * 60}", "a", f"{LONG_DOMAIN}.{'x' * 60}", "a path of 256 octets, by its domain"),
    # Address literals, RFC 5321 4.1.3
    ("a@[127.0.0.1]", "a", "[127.0.0.1]", "IPv4"),
    ("a@[0.0.0.0]", "a", "[0.0.0.0]", "IPv4, all zero"),
    ("a@[255.255.255.255]", "a", "[255.255.255.255]", "IPv4, all ones"),
    ("a@[127.000.000.001]", "a", "[127.0.0.1]", "Snum is 1*3DIGIT, decimal"),
    ("a@[010.0.0.1]", "a", "[10.0.0.1]", "a leading zero makes no octal"),
    ("a@[IPv6:::1]", "a", "[ipv6:::1]", "IPv6-comp"),
    ("a@[ipv6:::1]", "a", "[ipv6:::1]", "the tag in any case: 5321 2.4"),
    ("a@[IPV6:2001:DB8::1]", "a", "[ipv6:2001:db8::1]", "hex digits in any case"),
    ("a@[IPv6:::]", "a", "[ipv6:::]", "all zero"),
    ("a@[IPv6:1:2:3:4:5:6:7:8]", "a", "[ipv6:1:2:3:4:5:6:7:8]", "IPv6-full"),
    ("a@[IPv6:1:2:3:4:5:6::]", "a", "[ipv6:1:2:3:4:5:6::]", '"::" for two groups behind'),
    ("a@[IPv6:::3:4:5:6:7:8]", "a", "[ipv6:::3:4:5:6:7:8]", '"::" for two groups in front'),
    ("a@[IPv6:2001:0db8:0:0:0:0:0:1]", "a", "[ipv6:2001:db8::1]", "leading zeros and zero groups"),
    ("a@[IPv6:::ffff:192.0.2.1]", "a", "[ipv6:::ffff:c000:201]", "IPv6v4-comp"),
    ("a@[IPv6:::192.0.2.1]", "a", "[ipv6:::c000:201]", "IPv6v4-comp without a group"),
    ("a@[IPv6:0:0:0:0:0:ffff:192.0.2.1]", "a", "[ipv6:::ffff:c000:201]", "IPv6v4-full"),
    # UTF-8, RFC 6531 3.3
    ("josé@x.test", "josé", "x.test", "UTF8-non-ascii is atext"),
    ("JOSÉ@x.test", "JOSÉ", "x.test", "case is kept beyond ASCII too"),
    ("jose\u0301@x.test", "jose\u0301", "x.test", "no normalization"),
    ("用户@例え.test", "用户", "xn--r8jz45g.test", "both sides"),
    ("δοκιμή@παράδειγμα.test", "δοκιμή", "xn--hxajbheg2az3al.test", "Greek"),
    ("😀@x.test", "😀", "x.test", "four octets of UTF-8"),
    ('"josé garcía"@x.test', "josé garcía", "x.test", "UTF8-non-ascii is qtextSMTP"),
    ("a\u3000b@x.test", "a\u3000b", "x.test", "an ideographic space is UTF8-non-ascii"),
    ("a\u2028b@x.test", "a\u2028b", "x.test", "a line separator is UTF8-non-ascii and ends no line"),
    ("a@bücher.test", "a", "xn--bcher-kva.test", "U-label"),
    ("a@BÜCHER.test", "a", "xn--bcher-kva.test", "a capital U-label is mapped: UTS 46"),
    ("a@bu\u0308cher.test", "a", "xn--bcher-kva.test", "a decomposed one too"),
    ("a@xn--bcher-kva.test", "a", "xn--bcher-kva.test", "A-label"),
    ("a@XN--BCHER-KVA.TEST", "a", "xn--bcher-kva.test", "A-labels have no case"),
    ("a@straße.test", "a", "xn--strae-oqa.test", "IDNA2008 keeps the sharp s: 5894 7.2"),
    ("a@例.例.例", "a", "xn--fsq.xn--fsq.xn--fsq", "U-labels only"),
    (f"a@{'例' * 22}.test", "a", f"xn--fsq{'a' * 21}.test", "66 octets as U-label but 28 as A-label: 5890 4.2"),
    ("a@ｅｘａｍｐｌｅ.test", "a", "example.test", "wide letters are mapped to ASCII"),
    # The one path without a domain, RFC 5321 4.1.1.3
    ("postmaster", "postmaster", "", "the reserved mailbox"),
    ("Postmaster", "Postmaster", "", "in any case"),
    ("POSTMASTER", "POSTMASTER", "", "in any case"),
]

# What stands between "<" and ">", what the error says of it, and why it is none.
ERRORS = [
    # No address at all
    ("", "empty", "<> is no forward-path"),
    (" ", "a space", "a space alone"),
    ("@", "domain is empty", "an at sign alone"),
    ("alice", "needs a domain", "only postmaster has no domain"),
    ("postmaster ", "a space", "white space behind"),
    ('"postmaster"', "needs a domain", "5321 has it unquoted only"),
    ("postmaste", "needs a domain", "nearly postmaster"),
    ("dev.test", "needs a domain", "a domain alone"),
    ("@dev.test", "':' after a source route", "no local part: it reads as a source route"),
    ("alice@", "domain is empty", "no domain"),
    ("alice@@dev.test", "second '@'", "two at signs"),
    ("a@b@c", "second '@'", "an at sign in a local part is quoted"),
    ("user@other.test@dev.test", "second '@'", "routed by two at signs"),
    ("alice.dev.test", "needs a domain", "no at sign"),
    # Local parts
    (".alice@dev.test", "no dot at its ends", "a dot in front"),
    ("alice.@dev.test", "no dot at its ends", "a dot behind"),
    ("a..b@dev.test", "two in a row", "two dots"),
    (".@dev.test", "no dot at its ends", "a dot alone"),
    ("a b@dev.test", "a space", "a space outside of quotes"),
    (" alice@dev.test", "a space", "a space in front"),
    ("alice @dev.test", "a space", "a space before the at sign"),
    ("a\tb@dev.test", "U+0009", "a tab"),
    ("a(comment)b@dev.test", "'('", "a comment: 5321 has no CFWS"),
    ("(comment)alice@dev.test", "'('", "a comment in front"),
    ("alice@(comment)dev.test", "'('", "a comment behind the at sign"),
    ("alice@dev.test(comment)", "'('", "a comment behind"),
    ("a,b@dev.test", "','", "a comma"),
    ("a@dev.test,b@dev.test", "','", "two addresses"),
    ("a;b@dev.test", "';'", "a semicolon"),
    ("a:b@dev.test", "':'", "a colon"),
    ("group:a@dev.test;", "':'", "a group of 5322 3.4"),
    ("a[b@dev.test", "'['", "a bracket"),
    ("a]b@dev.test", "']'", "a bracket"),
    ("a\\b@dev.test", "'\\'", "a backslash outside of quotes: 3696 erratum 246"),
    ("Abc\\@def@example.com", "'\\'", "3696 3 as printed, which erratum 246 corrects"),
    ("Fred\\ Bloggs@example.com", "'\\'", "3696 3 as printed, which erratum 246 corrects"),
    ("Joe.\\\\Blow@example.com", "no dot", "3696 3 as printed, which erratum 246 corrects"),
    ("a<b@dev.test", "'<'", "an angle bracket"),
    ("<alice@dev.test>", "'<'", "brackets twice"),
    ("Alice <alice@dev.test>", "a space", "a display name: 5322 3.4"),
    ("mailto:alice@dev.test", "':'", "a URI: 6068"),
    ('a"b"@dev.test', "quoted as a whole", "quotes in the middle: obs-local-part of 5322 4.4"),
    ('"a"b@dev.test', "not allowed in a local part", "text behind quotes"),
    ('"a"."b"@dev.test', "no dot", "obs-local-part of 5322 4.4"),
    ('a."b"@dev.test', "no dot", "obs-local-part of 5322 4.4"),
    ('"alice@dev.test', "not closed", "an open quote"),
    ('alice"@dev.test', "quoted as a whole", "a quote that closes nothing"),
    ('"a"b"@dev.test', "not allowed in a local part", "a bare quote in quotes"),
    ('"a\\"@dev.test', "not closed", "the closing quote is escaped"),
    ('"a\tb"@dev.test', "may not be quoted", "a tab is not qtextSMTP"),
    ('"a\\\tb"@dev.test', "may not be quoted", "nor for a quoted-pairSMTP"),
    ('"a\\éb"@dev.test', "may not be quoted", "a quoted-pairSMTP is ASCII, 6531 3.3 too"),
    # Control characters and octets that are not UTF-8
    ("a\x00b@dev.test", "U+0000", "NUL"),
    ("a\x1b[31m@dev.test", "U+001B", "an escape sequence is not echoed"),
    ("a\x7fb@dev.test", "U+007F", "DEL"),
    ("a\x85b@dev.test", "U+0085", "a C1 control"),
    ("a\rb@dev.test", "U+000D", "CR"),
    ("a\nb@dev.test", "U+000A", "LF"),
    ('"a\nb"@dev.test', "may not be quoted", "LF in quotes"),
    ('"a\x00b"@dev.test', "may not be quoted", "NUL in quotes"),
    ("a@dev\x00.test", "U+0000", "NUL in a domain"),
    ("a@dev.test\n", "U+000A", "LF behind a domain"),
    ("a\udce9@dev.test", "0xE9, which is not UTF-8", "Latin-1"),
    ("a@b\udcfccher.test", "0xFC, which is not UTF-8", "Latin-1 in a domain"),
    ("\ud800@dev.test", "U+D800", "a surrogate"),
    # Domains
    ("a@.", "label of the domain is empty", "the root"),
    ("a@dev.test.", "does not end with a dot", "a trailing dot: 5321 2.3.5"),
    ("a@.dev.test", "label of the domain is empty", "a dot in front"),
    ("a@dev..test", "label of the domain is empty", "two dots"),
    ("a@-dev.test", "hyphen", "a label begins with a hyphen"),
    ("a@dev-.test", "hyphen", "a label ends with a hyphen"),
    ("a@dev.-", "hyphen", "a label is a hyphen"),
    ("a@dev .test", "a space", "a space"),
    ("a@ dev.test", "a space", "a space in front"),
    ("a@dev,test", "','", "a comma"),
    ("a@dev/test", "'/'", "a slash"),
    ("a@dev:25", "':'", "a port"),
    ("a@dev.test:25", "':'", "a port"),
    ("a@dev!test", "'!'", "a bang path behind the at sign"),
    ("a@dev%other.test", "'%'", "a percent hack behind the at sign"),
    ("a@other.test%dev.test", "'%'", "a percent hack behind the at sign"),
    ("a@*.test", "'*'", "a wildcard"),
    ('a@"dev.test"', "'\"'", "a quoted domain"),
    ("a@dev\\.test", "'\\'", "a backslash"),
    ("a@#123", "'#'", "821's number: obsolete since 2821"),
    ("a@dev+x.test", "'+'", "a plus sign"),
    ("a@dev.test>", "a space is expected", "a bracket too many"),
    (f"a@{LONG_LABEL}x.test", "label of the domain is too long", "a label of 64 octets"),
    (f"a@{LONG_DOMAIN}.{'x' * 61}", "address is too long", "a path of 257 octets"),
    (f"a@{LONG_DOMAIN}.{LONG_LABEL}.x", "too long", "a domain over 255 octets"),
    (f"{'a' * 248}@x.test", "address is too long", "a path of 257 octets"),
    (f"{'é' * 124}@x.test", "address is too long", "octets count, not characters: 6531 3.3"),
    (f"@a.test:{'a' * 240}@x.test", "address is too long", "the source route counts"),
    # Address literals
    ("a@[]", "IPv4 address literal", "nothing inside"),
    ("a@[127.0.0.1", "address literal is written", "not closed"),
    ("a@127.0.0.1]", "']'", "not opened"),
    ("a@[127.0.0.1]x", "'x'", "text behind"),
    ("a@[127.0.0.1].test", "'.'", "a label behind"),
    ("a@x[127.0.0.1]", "'['", "a label in front"),
    ("a@[[127.0.0.1]]", "address literal is written", "brackets twice"),
    ("a@[256.0.0.1]", "IPv4 address literal", "256"),
    ("a@[1.2.3]", "IPv4 address literal", "three numbers"),
    ("a@[1.2.3.4.5]", "IPv4 address literal", "five numbers"),
    ("a@[1.2.3.]", "IPv4 address literal", "an empty number"),
    ("a@[1.2.3.0004]", "IPv4 address literal", "four digits"),
    ("a@[0x7f.0.0.1]", "IPv4 address literal", "hexadecimal"),
    ("a@[2130706433]", "IPv4 address literal", "one number"),
    ("a@[127.0.0.1 ]", "address literal is written", "a space inside"),
    ("a@[localhost]", "IPv4 address literal", "a name"),
    ("a@[::1]", "[IPv6:", "IPv6 without its tag"),
    ("a@[IPv6::1]", "IPv6 address literal", "one colon for two: the tag's is not part of the address"),
    ("a@[IPv6:]", "IPv6 address literal", "no address"),
    ("a@[IPv6:1:2:3:4:5:6:7]", "IPv6 address literal", "seven groups"),
    ("a@[IPv6:1:2:3:4:5:6:7:8:9]", "IPv6 address literal", "nine groups"),
    ("a@[IPv6:1:2:3:4:5:6:7::]", "IPv6 address literal", '"::" stands for two groups or more'),
    ("a@[IPv6:1::2::3]", "IPv6 address literal", '"::" twice'),
    ("a@[IPv6::::1]", "IPv6 address literal", "three colons"),
    ("a@[IPv6:12345::]", "IPv6 address literal", "five hex digits"),
    ("a@[IPv6:g::]", "IPv6 address literal", "no hex digit"),
    ("a@[IPv6:fe80::1%eth0]", "IPv6 address literal", "a zone: 4007 is not for the wire"),
    ("a@[IPv6:192.0.2.1]", "IPv6 address literal", "an IPv4 address alone"),
    ("a@[IPv6:::192.0.2.1:1]", "IPv6 address literal", "an IPv4 address in the middle"),
    ("a@[IPv6:1:2:3:4:5:6:7:192.0.2.1]", "IPv6 address literal", "too many groups before an IPv4 address"),
    ("a@[IPv6:::ffff:256.0.2.1]", "IPv4 address literal", "256 in the IPv4 part"),
    ("a@[X400:something]", "no other tag is known", "General-address-literal with an unknown tag"),
    ("a@[IPv4:127.0.0.1]", "no other tag is known", "IPv4 has no tag"),
    ("a@[é]", "address literal is written", "dcontent is ASCII"),
    # Source routes
    ("@a.test:", "empty", "nothing behind the colon"),
    ("@:bob@b.test", "domain is empty", "no host"),
    ("@a.test,:bob@b.test", "source route is written", "an empty element"),
    ("@a.test,b.test:bob@c.test", "source route is written", "an element without at sign"),
    ("@a.test@b.test:bob@c.test", "':' after a source route", "elements without comma"),
    ("@a.test, @b.test:bob@c.test", "source route is written", "a space behind the comma"),
    ("@a.test;bob@b.test", "':' after a source route", "a semicolon for the colon"),
    ("@a.test:bob", "needs a domain", "no domain behind it"),
    ("@a.test:postmaster", "needs a domain", "postmaster without domain has no route"),
    ("@[127.0.0.1]:bob@b.test", "domain is empty", "At-domain has no literals"),
    ("@-a.test:bob@b.test", "hyphen", "an element is a Domain like any"),
    ("bob@b.test:@a.test", "':'", "the wrong way round"),
    ("@a.test:@b.test:bob@c.test", "local part is empty", "two routes"),
    # Internationalized domains, RFC 5891, 5892
    ("a@☃.test", "not a label of an internationalized domain", "a symbol is DISALLOWED: 5892"),
    ("a@例。test", "not a label of an internationalized domain", "an ideographic full stop is no separator here"),
    ("a@a．b.test", "not a label of an internationalized domain", "a wide full stop is no separator here"),
    ("a@dev＠other.test", "not a label of an internationalized domain", "a wide at sign"),
    ("a@a⒈test", "not a label of an internationalized domain", "a digit that brings a dot along"),
    ("a@\u00ad.test", "not a label of an internationalized domain", "mapped to nothing"),
    ("a@\u200b.test", "not a label of an internationalized domain", "mapped to nothing"),
    ("a@\u0301a.test", "not a label of an internationalized domain", "a combining mark in front: 5891 4.2.3.2"),
    ("a@ü_x.test", "not a label of an internationalized domain", "an underscore in a U-label"),
    ("a@ab--ü.test", "not a label of an internationalized domain", "hyphens in third and fourth place: 5891 4.2.3.1"),
    ("a@-ü.test", "hyphen", "a U-label begins with a hyphen"),
    ("a@אa.test", "not a label of an internationalized domain", "two directions in one label: 5893"),
    (f"a@{''.join(map(chr, range(0x4E00, 0x4E00 + 60)))}.test", "label of the domain is too long", "as A-label"),
    (f"a@{'.'.join('ü' * 60)}.test", "at most 255 octets as A-labels", "179 octets of UTF-8"),
]


def test_the_table_is_large_enough() -> None:
    texts = [row[0] for row in MAILBOXES] + [row[0] for row in ERRORS]
    assert len(texts) == len(set(texts)) >= 150


@pytest.mark.parametrize(("text", "local_part", "domain_key", "reason"), MAILBOXES)
def test_an_address_of_the_grammar_is_a_mailbox(text: str, local_part: str, domain_key: str, reason: str) -> None:
    mailbox, rest = parse_forward_path(f"<{text}>")
    assert (mailbox.local_part, mailbox.domain_key, rest) == (local_part, domain_key, ""), reason
    assert parse_mailbox(str(mailbox)) == mailbox
    assert parse_forward_path(f" <{text}> NOTIFY=NEVER") == (mailbox, " NOTIFY=NEVER")
    if mailbox.domain:
        assert parse_reverse_path(f"<{text}> SIZE=1") == (mailbox, " SIZE=1")
        assert parse_domain(mailbox.domain) == parse_domain(domain_key) == domain_key
    if not text.startswith("@"):
        assert parse_mailbox(text) == parse_mailbox(f"<{text}>") == mailbox


@pytest.mark.parametrize(("text", "problem", "reason"), ERRORS)
def test_any_other_text_is_refused_with_what_is_wrong(text: str, problem: str, reason: str) -> None:
    for path in (parse_forward_path, parse_reverse_path):
        if path is parse_reverse_path and text == "":
            continue
        with pytest.raises(AddressError) as error:
            path(f"<{text}>")
        assert problem in str(error.value), reason
        assert str(error.value).isascii()
        assert str(error.value).isprintable()
    if not text.startswith("<"):
        with pytest.raises(AddressError):
            parse_mailbox(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "empty"),
        ("  ", "empty"),
        (" SIZE=1", "needs a domain"),
        ("\t<alice@dev.test>", "U\\+0009 is not allowed"),
        ("\u3000<alice@dev.test>", "'<' is not allowed"),
        ("alice@dev.test>", "between '<' and '>'"),
        ("Alice <alice@dev.test>", "needs a domain"),
        ("Alice<alice@dev.test>", "'<' is not allowed"),
        ("alice@dev.test\tSIZE=1", "U\\+0009 is not allowed"),
        ("alice@dev.test,bob@dev.test", "',' is not allowed"),
        ('"a b@dev.test', "not closed"),
        ('"a b"c@dev.test', "'c' is not allowed"),
        ("alice", "needs a domain"),
        ("alice dev.test", "needs a domain"),
        ("@dev.test", "'@'|':'|empty"),
        ("<", "empty"),
        ("<alice@dev.test", "'>' after the address is missing"),
        ("<alice@dev.test SIZE=1>", "a space"),
        ("<alice@dev.test>SIZE=1", "a space is expected after '>'"),
        ("<alice@dev.test>>", "a space is expected after '>'"),
        ("<alice@dev.test>\tSIZE=1", "a space is expected after '>'"),
    ],
)
def test_a_path_stands_in_brackets_and_a_space_follows(text: str, problem: str) -> None:
    for path in (parse_forward_path, parse_reverse_path):
        with pytest.raises(AddressError, match=problem):
            path(text)


@pytest.mark.parametrize("rest", ["", " ", " SIZE=1 X"])
@pytest.mark.parametrize(
    "text",
    [
        *("alice@dev.test", '"a b"@dev.test', '"<a> \\" @"@dev.test', "a@[IPv6:::1]", "jürgen@bücher.test"),
        *("@a.test,@b.test:alice@dev.test", "x" * 230 + "@dev.test"),
    ],
)
def test_a_path_without_its_brackets_is_taken(text: str, rest: str) -> None:
    for path in (parse_forward_path, parse_reverse_path):
        assert path(f"{text}{rest}") == path(f"  {text}{rest}") == path(f"<{text}>{rest}")


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("<a@b.test>", ()),
        ("<>", ()),
        (" <>", ("a space before the path",)),
        ("a@b.test", ("a path without angle brackets",)),
        ("   a@b.test", ("a space before the path", "a path without angle brackets")),
    ],
)
def test_what_is_tolerated_has_a_name(text: str, faults: tuple[str, ...]) -> None:
    assert path_faults(text) == faults


def test_postmaster_needs_no_brackets_but_a_sender_needs_a_domain_without_them_too() -> None:
    assert parse_forward_path("Postmaster NOTIFY=NEVER") == (Mailbox("Postmaster", ""), " NOTIFY=NEVER")
    for text in ("postmaster", "alice", " alice SIZE=1"):
        with pytest.raises(AddressError, match="needs a domain"):
            parse_reverse_path(text)


def test_only_a_reverse_path_may_be_null() -> None:
    assert parse_reverse_path("<>") == (None, "")
    assert parse_reverse_path("  <> BODY=7BIT") == (None, " BODY=7BIT")
    with pytest.raises(AddressError, match="a space is expected"):
        parse_reverse_path("<>BODY=7BIT")
    with pytest.raises(AddressError, match="empty"):
        parse_forward_path("<>")
    with pytest.raises(AddressError):
        parse_mailbox("<>")
    with pytest.raises(AddressError, match="nothing may follow"):
        parse_mailbox("<alice@dev.test> SIZE=1")


@pytest.mark.parametrize("name", ["postmaster", "Postmaster", "POSTMASTER"])
def test_a_sender_needs_a_domain_even_postmaster(name: str) -> None:
    with pytest.raises(AddressError, match="sender needs a domain"):
        parse_reverse_path(f"<{name}>")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("alice@dev.test", "alice@DEV.TEST", True),
        ("alice@dev.test", "Alice@dev.test", False),
        ('"alice"@dev.test', "alice@dev.test", True),
        ('"a\\lice"@dev.test', "alice@dev.test", True),
        ("a@bücher.test", "a@XN--bcher-KVA.test", True),
        ("a@[IPv6:0:0:0:0:0:0:0:1]", "a@[ipv6:::1]", True),
        ("a@[127.0.0.1]", "a@127.0.0.1", False),
        ("a@[127.0.0.1]", "a@[IPv6:::ffff:127.0.0.1]", False),
        ("josé@x.test", "jose\u0301@x.test", False),
    ],
)
def test_mailboxes_are_equal_by_local_part_and_dns_name(one: str, other: str, same: bool) -> None:
    first, second = parse_mailbox(one), parse_mailbox(other)
    assert (first == second) is same
    assert (len({first, second}) == 1) is same
    assert first != one


@pytest.mark.parametrize(
    ("text", "with_smtputf8", "without"),
    [
        ("Alice@Dev.Test", "Alice@Dev.Test", "Alice@Dev.Test"),
        ("alice@bücher.test", "alice@bücher.test", "alice@xn--bcher-kva.test"),
        ("alice@xn--bcher-kva.test", "alice@xn--bcher-kva.test", "alice@xn--bcher-kva.test"),
        ('"a b"@Bücher.test', '"a b"@Bücher.test', '"a b"@xn--bcher-kva.test'),
        ("a@[IPv6:::1]", "a@[IPv6:::1]", "a@[IPv6:::1]"),
        ("Postmaster", "Postmaster", "Postmaster"),
        ("josé@bücher.test", "josé@bücher.test", None),
        ("josé@x.test", "josé@x.test", None),
    ],
)
def test_a_domain_goes_as_a_labels_where_there_is_no_smtputf8(
    text: str, with_smtputf8: str, without: str | None
) -> None:
    mailbox = parse_mailbox(text)
    assert mailbox.wire(smtputf8=True) == with_smtputf8
    assert mailbox.is_ascii is (without is not None)
    if without is not None:
        assert mailbox.wire(smtputf8=False) == without
    else:
        with pytest.raises(ValueError, match="needs SMTPUTF8"):
            mailbox.wire(smtputf8=False)


@pytest.mark.parametrize(
    ("text", "key", "is_literal"),
    [
        ("a@[127.0.0.1]", "[127.0.0.1]", True),
        ("a@[010.0.0.1]", "[10.0.0.1]", True),
        ("a@[IPv6:2001:db8::1]", "[ipv6:2001:db8::1]", True),
        ("a@127.0.0.1", "127.0.0.1", False),
        ("a@dev.test", "dev.test", False),
        ("postmaster", "", False),
    ],
)
def test_an_address_literal_is_told_from_a_domain(text: str, key: str, is_literal: bool) -> None:
    mailbox = parse_mailbox(text)
    assert mailbox.domain_key == key
    assert mailbox.is_literal is is_literal


@pytest.mark.parametrize(
    ("local_part", "written"),
    [
        ("a.b", "a.b"),
        ("a b", '"a b"'),
        ("", '""'),
        (".", '"."'),
        ('"', '"\\""'),
        ("\\", '"\\\\"'),
        ("a@b", '"a@b"'),
        ("josé", "josé"),
    ],
)
def test_a_local_part_is_quoted_only_if_it_must_be(local_part: str, written: str) -> None:
    assert str(Mailbox(local_part, "x.test")) == f"{written}@x.test"
    assert parse_local_part(written) == local_part


@pytest.mark.parametrize("text", ["", "a b", '"a', 'a"', "a@b", ".a", "a.", '"a"b', "a\n", "\udc80"])
def test_a_local_part_alone_follows_the_same_grammar(text: str) -> None:
    with pytest.raises(AddressError):
        parse_local_part(text)


@pytest.mark.parametrize(
    ("local_part", "domain"),
    [
        ("alice", ""),
        ("a\nb", "x.test"),
        ("\udc80", "x.test"),
        ("a", "x test"),
        ("a", "x.test."),
        ("a", "[127.0.0.1"),
        ("a", "["),
        ("a", "[127.0.0.1]]"),
        ("a" * 250, "x.test"),
        ('"' * 124, "x.test"),
        ("a" * 200, ".".join("ü" * 10)),  # 230 octets as given, 280 with A-labels
    ],
)
def test_a_mailbox_that_no_text_means_cannot_be_built(local_part: str, domain: str) -> None:
    with pytest.raises(AddressError):
        Mailbox(local_part, domain)


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a b", "a@b", "*", "[::1]", "[", "]", "a" * 64, "a." * 128])
def test_a_domain_alone_follows_the_same_grammar(text: str) -> None:
    with pytest.raises(AddressError):
        parse_domain(text)


def test_a_domain_alone_may_have_255_octets() -> None:
    domain = f"{LONG_DOMAIN}.{LONG_LABEL}"
    assert len(domain) == 255
    assert parse_domain(domain) == domain


@pytest.mark.parametrize(
    ("local_part", "folded"),
    [
        ("Alice", "alice"),
        ("JOSÉ", "josé"),
        ("ΟΔΟΣ", "οδοσ"),
        ("\u212aelly", "\u212aelly"),  # KELVIN SIGN
        ("\u0130stanbul", "\u0130stanbul"),  # LATIN CAPITAL LETTER I WITH DOT ABOVE
        ("straße", "straße"),
        ("Ⱥ", "Ⱥ"),  # two octets of UTF-8; its small letter has three
    ],
)
def test_a_local_part_is_folded_but_never_into_another_letter(local_part: str, folded: str) -> None:
    assert fold_local_part(local_part) == folded


# What holds for all.

LOCAL_PARTS = st.text(
    st.one_of(
        st.sampled_from(string.ascii_letters + string.digits + '."\\ @%!<>'),
        st.characters(blacklist_categories=("Cc", "Cs")),
    ),
    max_size=40,
)
LABELS = st.from_regex(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,20}[A-Za-z0-9_])?", fullmatch=True)
U_LABELS = st.sampled_from(["bücher", "Bücher", "例え", "straße", "παράδειγμα", "xn--bcher-kva"])
DOMAINS = st.one_of(
    st.lists(st.one_of(LABELS, U_LABELS), min_size=1, max_size=4).map(".".join),
    st.ip_addresses(v=4).map(lambda address: f"[{address}]"),
    st.ip_addresses(v=6).map(lambda address: f"[IPv6:{address}]"),
)


@given(LOCAL_PARTS, DOMAINS)
@settings(deadline=None, max_examples=100)
def test_any_mailbox_is_read_back_from_what_is_written(local_part: str, domain: str) -> None:
    mailbox = Mailbox(local_part, domain)
    assert parse_mailbox(str(mailbox)) == mailbox
    assert parse_forward_path(f"<{mailbox}> X=1") == (mailbox, " X=1")
    assert parse_reverse_path(f"<{mailbox.wire(smtputf8=True)}>") == (mailbox, "")
    if mailbox.is_ascii:
        wire = mailbox.wire(smtputf8=False)
        assert wire.isascii()
        assert parse_mailbox(wire) == mailbox
    assert parse_domain(mailbox.domain_key) == mailbox.domain_key
    assert fold_local_part(fold_local_part(local_part)) == fold_local_part(local_part)


@given(
    st.one_of(
        st.text(st.sampled_from('<>@",:.\\[]() a-_é%!\x00\udc80'), max_size=60),
        st.binary(max_size=60).map(lambda octets: octets.decode(errors="surrogateescape")),
        st.text(max_size=60),
    )
)
@settings(deadline=None, max_examples=100)
def test_any_text_is_an_address_or_an_address_error(text: str) -> None:
    for path in (parse_forward_path, parse_reverse_path):
        for candidate in (text, f"<{text}>", f"<a@{text}>", f"<{text}@x.test>"):
            try:
                mailbox, rest = path(candidate)
            except AddressError as error:
                problem = str(error)
            else:
                problem = ""
                assert rest == "" or rest.startswith(" ")
                if mailbox is not None:
                    assert parse_mailbox(str(mailbox)) == mailbox
                    assert len(str(mailbox).encode()) + 2 <= MAX_PATH
            assert problem.isascii()
            assert problem.isprintable()


@given(st.one_of(st.text(st.sampled_from('<>@",:.\\[]() a-_é%!'), max_size=30), LOCAL_PARTS))
@settings(deadline=None, max_examples=200)
def test_a_path_is_the_address_between_its_brackets(text: str) -> None:
    for address in (text, f"{text}@x.test", f'"{text}"@x.test', f"a@{text}", f"a@[{text}]"):
        if address.startswith(("@", "<")) or "> " in address:  # a source route, a path by itself, parameters
            continue
        for rest in ("", " X=<1>"):
            try:
                expected: object = (parse_mailbox(address), rest)
            except AddressError:
                expected = None
            try:
                assert parse_forward_path(f"<{address}>{rest}") == expected
            except AddressError:
                assert expected is None


def test_a_path_is_read_again_as_the_client_writes_it() -> None:
    assert [str(parse_forward_path(f"<{text}>")[0]) for text in ("a@x.test", "A@x.test", "a@X.test")] == [
        *("a@x.test", "A@x.test", "a@X.test"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "<" + "a" * 1_000_000,
        "<" + "a." * 500_000,
        '<"' + "a" * 1_000_000,
        '<"' + "\\" * 1_000_000,
        "<a@" + "a" * 1_000_000,
        "<a@" + "a." * 500_000,
        "<a@" + "ü" * 1_000_000,
        "<a@[" + "1" * 1_000_000,
        "<a@[" + "1" * 1_000_000 + "]>",
        "<a@[IPv6:" + ":" * 1_000_000 + "]>",
        "<" + "@a," * 333_333,
        "<" + "@a," * 333_333 + "@a:b@c>",
        " " * 1_000_000,
        '"' * 999_999,
        'a"' * 333_333,
        '"' + "\\" * 999_999,
        "<" + "@" * 1_000_000,
    ],
    ids=range(17),
)
def test_a_very_long_text_is_refused_at_once(text: str) -> None:
    with bounded_effort(), pytest.raises(AddressError):
        parse_forward_path(text)
