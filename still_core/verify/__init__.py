"""Verification of answers: typed verdicts from a pool of killable workers."""
