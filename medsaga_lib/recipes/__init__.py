"""One small file per method, and the registry."""
