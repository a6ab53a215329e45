"""Where blobs' bytes lie."""
