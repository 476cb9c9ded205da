"""Prefect flows that read as the diagrams of the papers."""
