"""The distribution specification's endpoints under /v2/, and their token authentication."""
