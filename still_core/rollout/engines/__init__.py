"""Rollout engines: vllm (default), transformers (portable, oracle), openai (teachers)."""
