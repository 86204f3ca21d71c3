"""trimta: a Trio structured-concurrency MTA with Maildir delivery, SMTP relaying, a durable queue, test fixtures."""

__version__ = "0.1.0"
