"""The durable queue, a SQLite database."""
