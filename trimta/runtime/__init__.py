"""Tools that Trio tasks share: disk, clocks, events, streams, TLS, privileges.  No package below this one imports Trio:
`store`, `config`, `smtp`, `routing`, `content`, `mail`.
"""
