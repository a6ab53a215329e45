"""The HTTP surface: each handler parses, authorizes, calls one service, shapes the response."""
