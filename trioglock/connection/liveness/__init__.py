"""Whether the peer is alive: heartbeats and stalls."""
