"""MIME (RFC 2045, 2046): the structure of a message, the values of its fields, its transfer encodings."""
