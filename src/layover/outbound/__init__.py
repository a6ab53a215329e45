"""What is asked of hosts that somebody else names: an issuer's keys, another registry's tokens.

A client names hosts to the server, and a registry names one to the CLI, so none of this may become
a way into the network of whoever asks. The server's half and the client's both stand on it.
`rules` says which addresses may be dialled, `client` makes an HTTP client that dials no other,
and `documents` reads small answers within bounds.
"""
