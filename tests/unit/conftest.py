"""Fixtures of several files."""

import pytest

from skipway.images import paged
from skipway.predict import room


@pytest.fixture
def small_regions(monkeypatch):
    """Several regions in toy images, and files written from windows."""
    monkeypatch.setitem(room.STORED, 2, 16)
    monkeypatch.setattr(paged, "SMALL", 0)
