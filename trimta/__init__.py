"""trimta: a Trio structured-concurrency MTA with Maildir delivery."""

__version__ = "0.1.0"
