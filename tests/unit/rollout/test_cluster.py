"""What Ray workers get to see."""

from __future__ import annotations

import os

import pytest

from still_core.rollout.cluster import _hide_secrets, worker_environment


def test_secrets_are_out_of_the_environment_while_ray_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "hidden-1")
    monkeypatch.setenv("GITHUB_TOKEN", "hidden-2")
    monkeypatch.setenv("DB_PASSWORD", "hidden-3")
    monkeypatch.setenv("PLAIN", "shown")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "for the store")
    hidden = _hide_secrets()
    assert not set(hidden) & set(os.environ)
    assert {"WANDB_API_KEY", "GITHUB_TOKEN", "DB_PASSWORD"} <= set(hidden)
    assert os.environ["PLAIN"] == "shown"
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == "for the store"
    os.environ.update(hidden)


def test_what_ray_logs_of_an_actor_says_where_the_store_is_and_holds_no_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "for the store")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("OPENAI_API_KEY", "for the endpoint")
    monkeypatch.setenv("WANDB_API_KEY", "not theirs")
    given = worker_environment({"OMP_NUM_THREADS": "1"})
    assert given["AWS_ENDPOINT_URL"] == "http://127.0.0.1:1"
    assert given["OMP_NUM_THREADS"] == "1"
    assert not {"AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "WANDB_API_KEY"} & set(given)
