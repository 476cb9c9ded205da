"""Rollouts: engines, the actors that host them, the sampler and the durable bank."""
