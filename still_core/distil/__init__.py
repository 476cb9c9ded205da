"""Distillation: teachers' responses, brought into one form and judged, become D_0."""
