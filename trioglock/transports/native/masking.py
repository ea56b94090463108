"""Masking (RFC 6455, section 5.3): websockets' function, in C wherever its wheel has it."""

from __future__ import annotations

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without the compiled wheel
    from websockets.utils import apply_mask

__all__ = ["apply_mask"]
