"""Responses: the thought/solution format, prompts, parsing and rendering."""
