"""Delivery status notifications (RFC 3461, 3464): which are due, and what they look like."""
