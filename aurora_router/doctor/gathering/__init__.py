"""Finding out the facts: DNS, sockets, TLS, sessions. Nothing here judges."""
