"""Addresses, envelopes, replies, statuses and outcomes: values and pure functions.  No I/O, no clock, no trio."""
