"""Pure types of the OCI specifications: names, digests, descriptors, manifests, media types."""
