"""What the server asks of other hosts on a client's behalf: an issuer's keys, another registry.

A client names those hosts, so none of this may become a way into the server's own network.
`rules` says which addresses may be dialled, `client` makes an HTTP client that dials no other,
and `documents` reads small answers within bounds.
"""
