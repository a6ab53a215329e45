"""The registry: manifests, blobs, upload sessions, tags, referrers."""
