"""Publish an event from a shell, a cron job or a web application, without trio.

python examples/live_events/publish.py visitors 17 --redis redis://127.0.0.1:6379
"""

from __future__ import annotations

import argparse

from trioglock.pubsub import publish

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("channel")
    parser.add_argument("message")
    parser.add_argument("--redis", default="redis://127.0.0.1:6379")
    options = parser.parse_args()
    publish(options.message, channel=options.channel, url=options.redis)
