"""Messages in fragments, sent and received without buffering the whole message."""
