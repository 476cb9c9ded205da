"""The object store: content-addressed objects, manifests last, handles instead of payloads."""
