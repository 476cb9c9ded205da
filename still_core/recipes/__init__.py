"""Typed, frozen recipes and the presets that ship with the package."""
