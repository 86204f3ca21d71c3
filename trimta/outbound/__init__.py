"""From the queue to other hosts, commands and Maildirs: scheduling, DNS, attempts, DSNs.  Acceptance delivers its local
copies by the Maildir transport of this package, too.
"""
