"""The keys of a hub in Redis, and the scripts that write to them.

The messages on the ``news`` channel of the ``trioglock`` hub are in the stream
``{trioglock}/news``. The hash ``{trioglock}`` contains the newest id of any channel, the one with
which the history began, and the longest time in milliseconds for which any channel has been kept, 0
for no limit. The sorted set ``{trioglock}:channels`` contains the time of the latest message of
each channel, or a time up to a second earlier. The braces put all keys of a hub into one hash slot,
and no hub name contains them.
"""

from __future__ import annotations

__all__ = ["PREPARE", "PUBLISH", "HubKeys", "publish_arguments"]

PREPARE = """
local time = redis.call('TIME')
local ms = time[1] * 1000 + math.floor(time[2] / 1000)
local known = redis.call('HMGET', KEYS[1], 'last', 'server')
if known[1] and known[2] == ARGV[1] then
  return known[1]
end
if known[1] then
  -- Messages that another server accepted may be missing here: their ids must not occur again.
  ms = math.max(ms, tonumber(string.match(known[1], '^%d+'))) + 1000
end
local start = string.format('%.0f-0', ms)
redis.call('HSET', KEYS[1], 'last', start, 'born', start, 'server', ARGV[1])
return start
"""
"""Called with the identity of the server on each new connection. If the history comes from another
server, it begins again, and a subscriber that resumes from before receives a gap."""

PUBLISH = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ms, number = now, 1
local known = redis.call('HMGET', KEYS[1], 'last', 'born')
local last, born = known[1], known[2]
if last then
  local dash = string.find(last, '-', 1, true)
  local last_ms = tonumber(string.sub(last, 1, dash - 1))
  if last_ms >= ms then
    ms, number = last_ms, tonumber(string.sub(last, dash + 1)) + 1
  end
else
  born = string.format('%.0f-0', ms)
  redis.call('HSET', KEYS[1], 'born', born)
end
-- Numbers with up to 14 digits become text as they are.
local id = ms .. '-' .. number
redis.call('HSET', KEYS[1], 'last', id)
redis.call('XADD', KEYS[3], 'MAXLEN', ARGV[3], id, 'data', ARGV[2])
local indexed = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not indexed or math.abs(now - indexed) >= 1000 then
  -- Once a second is enough for the rest, and every time would double the cost of a message.
  redis.call('ZADD', KEYS[2], now, ARGV[1])
  local kept = tonumber(ARGV[4])
  local longest = tonumber(redis.call('HGET', KEYS[1], 'kept') or '-1')
  if kept > 0 then
    redis.call('XTRIM', KEYS[3], 'MINID', string.format('%.0f', now - kept))
    redis.call('PEXPIRE', KEYS[3], kept + 1000)
  end
  if longest < 0 or (longest > 0 and (kept == 0 or kept > longest)) then
    longest = kept
    redis.call('HSET', KEYS[1], 'kept', ARGV[4])
  end
  if longest > 0 then
    local oldest = string.format('(%.0f', now - longest - 1000)
    redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', oldest)
  else
    -- The time does not show which streams have expired. With two samples each time, there are
    -- about as many expired ones as others, at most.
    local prefix = string.sub(KEYS[3], 1, -1 - #ARGV[1])
    for _, name in ipairs(redis.call('ZRANDMEMBER', KEYS[2], 2)) do
      if redis.call('EXISTS', prefix .. name) == 0 then
        redis.call('ZREM', KEYS[2], name)
      end
    end
  end
end
redis.call('PUBLISH', KEYS[3], id .. ' ' .. born .. ' ' .. ARGV[2])
return id
"""
"""Adds a message to the history of its channel and sends it to the hubs, with an id that is greater
than that of every earlier message of any channel. It also sends the id with which the history
began: a hub that knows another id is still connected to an earlier master, which relayed the
message."""


class HubKeys:
    """The names of a hub's keys and channels in Redis.

    Args:
        name: name of the hub.
    """

    def __init__(self, name: str) -> None:
        self.ids: str = f"{{{name}}}"
        self.index: str = f"{{{name}}}:channels"
        self.plain_prefix: str = f"{name}/"
        self.prefix: str = f"{{{name}}}/"
        # As in sock-drawer, the first pattern also matches other hubs. An ACL rule permits a
        # pattern only if it is the same text, and then permits the channels as well.
        self.patterns: tuple[str, str] = (f"{name}*", f"{{{name}}}*")

    def stream(self, channel: str) -> str:
        """The stream of a channel, and the Redis channel on which its messages are sent."""
        return self.prefix + channel

    def plain(self, channel: str) -> str:
        """The Redis channel of messages without a history."""
        return self.plain_prefix + channel


def publish_arguments(
    keys: HubKeys, channel: str, data: str | bytes, limit: int, seconds: float | None
) -> tuple[list[str], list[str | bytes | int]]:
    """The keys and arguments of PUBLISH.

    The stream keeps one entry more than the history; that entry shows whether anything is missing.
    """
    milliseconds = 0 if seconds is None else max(1, int(seconds * 1000))
    names = [keys.ids, keys.index, keys.stream(channel)]
    return names, [channel, data, limit + 1, milliseconds]
