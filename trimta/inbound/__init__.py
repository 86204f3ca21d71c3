"""Listeners and sessions: mail that comes in, until somebody answers for it."""
