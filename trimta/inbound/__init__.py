"""Listeners and sessions: mail that comes in, until it is accepted."""
