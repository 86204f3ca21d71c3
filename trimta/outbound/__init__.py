"""From the queue to other hosts: scheduling, DNS, attempts, reports."""
