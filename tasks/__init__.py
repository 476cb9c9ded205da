"""Stages as cached Prefect tasks: load handles, call one function, save, return a handle."""
