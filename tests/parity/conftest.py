"""Skips this folder where what it compares with is not installed."""

import pytest


def pytest_collect_file():
  for name in ("torch", "torchcrf", "transformers"):
    pytest.importorskip(name, reason="needs the extra [parity]")
