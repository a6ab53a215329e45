"""Other registries over HTTP (distribution-spec v1.1.1), for pushes.

`registry` has the requests that a push makes, `uploads` sends a blob in parts and goes on where it
was cut off. Below them `requests` makes one request as the rules for outbound connections want it,
`schemes` says who is reached without TLS, `answers` reads what came back within bounds, and
`retries` what is tried again, when, and for how long.

A registry is a stranger, and so is whatever host it names: each connection is judged by
`layover.outbound`, an authorization goes to the registry itself alone, and no answer is read
without a bound in size and time.
"""
