"""Problems: sources, difficulty, decontamination.

SourceSpec -> collect -> Problem -> filters -> decontaminate -> require_clean (STILL-2 section 2.2,
STILL-3 section 2.1)
"""
