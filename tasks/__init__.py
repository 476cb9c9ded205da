"""Stages as cached Prefect tasks: load handles, call one still_core function, save, return a handle."""
