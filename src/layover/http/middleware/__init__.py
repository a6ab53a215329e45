"""Plain ASGI middleware: blobs stream through it untouched."""
