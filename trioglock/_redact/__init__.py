"""Redaction: what logs, traces, reprs and errors may show of addresses, headers and texts.

A value of the query may be a token whatever its name is, so none is shown; of headers and of texts
only those values are hidden whose names tell that they are secret. Nothing here raises, whatever it
is given, and the time that it takes grows with the length and no faster.
"""

from .addresses import redact_query, redact_url, without_secrets, without_user_info
from .headers import redact_header, redact_subprotocols
from .lines import LONGEST, printable, redact_line
from .names import HIDDEN, is_secret
from .texts import redact_text
from .values import label, redact_repr, shorten, shown, text_of

__all__ = [
    "HIDDEN",
    "LONGEST",
    "is_secret",
    "label",
    "printable",
    "redact_header",
    "redact_line",
    "redact_query",
    "redact_repr",
    "redact_subprotocols",
    "redact_text",
    "redact_url",
    "shorten",
    "shown",
    "text_of",
    "without_secrets",
    "without_user_info",
]
