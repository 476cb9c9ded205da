"""Rollout engines: vllm (default), transformers (portable, oracle), openai (any endpoint)."""
