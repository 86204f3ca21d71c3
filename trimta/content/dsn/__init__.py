"""Delivery status notifications: which to send, in `due` (RFC 3461 4.1, 5.2), and their form (RFC 3464, 6522, 6533).

`due` says which outcomes are reported to the sender.  `compose` makes one DSN of all reports of one kind: a
multipart/report (`multipart_report`) of a text for people (`explanation`), the fields for programs (`status_fields`)
and the message or its header (`returned`).  `shorter` makes less of a DSN that its host refused.

Nothing that came from the network (replies, ENVID, ORCPT, HELO, addresses) can add a field or a line: `escaping`.
"""
