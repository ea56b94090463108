"""Application protocols over a connection; no protocol imports another."""
