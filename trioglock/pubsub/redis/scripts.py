"""The keys of a hub in Redis, and the scripts that write to them.

The messages on the ``news`` channel of the ``trioglock`` hub are in the stream
``{trioglock}/news``. The hash ``{trioglock}`` contains the newest id of any channel, the one with
which the history began, and the longest time in milliseconds for which any channel has been kept, 0
for no limit. The sorted set ``{trioglock}:channels`` contains the time of the latest message of
each channel, or a time up to a second earlier. The braces put all keys of a hub into one hash slot,
and no hub name contains them.

With sharded publishing and subscribing, each channel is independent of the others: its messages are
in the stream ``{trioglock/news}``.
"""

from __future__ import annotations

from .discovery import slot_of

__all__ = [
    "PREPARE",
    "PUBLISH",
    "PUBLISH_SHARDED",
    "READ_SHARDED",
    "SERVER_SCALE",
    "HubKeys",
    "ShardKeys",
    "kept_milliseconds",
    "publish_arguments",
    "publish_sharded_arguments",
]

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

SERVER_SCALE = 10_000_000
"""The second number in an id of a sharded channel is the server's number, times this constant, plus
the number of the message within its millisecond."""

_SERVER = """
-- Changes when the server restarts, and when a replica becomes the master.
local info = redis.call('INFO', 'replication')
local server = tonumber(string.sub(string.match(info, 'master_replid:(%x+)'), 1, 6), 16)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

PUBLISH_SHARDED = (
    _SERVER
    + """
local function add(ms, number)
  local id = string.format('%.0f-%.0f', ms, number)
  local added = redis.pcall('XADD', KEYS[1], 'MAXLEN', ARGV[2], id, 'data', ARGV[1])
  if type(added) == 'string' then return added end
  if not string.find(added.err, 'equal or smaller', 1, true) then return added end
end
local first = server * 10000000
local id = add(now, first + 1)
if not id then
  local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1][1]
  local dash = string.find(newest, '-', 1, true)
  local ms = tonumber(string.sub(newest, 1, dash - 1))
  local number = tonumber(string.sub(newest, dash + 1))
  if number < first or number >= first + 9999999 then
    ms, number = ms + 1, first  -- accepted by another server
  end
  id = add(ms, number + 1)
end
if type(id) ~= 'string' then return id end
local kept = tonumber(ARGV[3])
if kept > 0 and redis.call('PTTL', KEYS[1]) < kept then
  -- Once a second is enough.
  redis.call('XTRIM', KEYS[1], 'MINID', string.format('%.0f', now - kept))
  redis.call('PEXPIRE', KEYS[1], kept + 1000)
end
redis.call('SPUBLISH', KEYS[1], id .. ' ' .. ARGV[1])
return id
"""
)
"""Adds a message to the stream of a sharded channel and sends it to the hubs. Its id is greater
than those of earlier messages of the channel, and contains a number for the server: a subscriber
that resumes after a message from another server receives a gap, because messages that only that
server had accepted may be missing."""

READ_SHARDED = (
    _SERVER
    + """
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
local length, entries, more = redis.call('XLEN', KEYS[1]), {}, 0
local count, kept, start = tonumber(ARGV[3]), tonumber(ARGV[4]), ''
if count > 0 then
  start = '(' .. ARGV[1] .. '-' .. ARGV[2]
  if kept > 0 and now - kept > tonumber(ARGV[1]) then
    start = string.format('%.0f', now - kept)
  end
  entries = redis.call('XRANGE', KEYS[1], start, '+', 'COUNT', count)
  local size = 0
  for number, entry in ipairs(entries) do
    if size > tonumber(ARGV[5]) then
      entries[number], more = nil, 1
    else
      size = size + string.len(entry[2][2])
    end
  end
  if #entries == count then more = 1 end
end
return {
  server, now, newest and newest[1] or '', oldest and oldest[1] or '', length, more, entries
}
"""
)
"""Reads the messages of a sharded channel after a position, and the data that shows whether others
are missing. Only the last of the returned messages may exceed the limit in bytes, because Redis
disconnects a subscriber that has too much pending data."""


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


class ShardKeys:
    """The names of a hub's channels and streams in Redis with sharded publishing and subscribing.

    Both names of a channel are in the same hash slot, because no channel contains braces.

    Args:
        name: name of the hub.
    """

    def __init__(self, name: str) -> None:
        self._prefix = f"{name}/"

    def plain(self, channel: str) -> str:
        """The Redis channel of messages without a history."""
        return self._prefix + channel

    def stream(self, channel: str) -> str:
        """The stream of a channel, and the Redis channel on which its messages are sent."""
        return f"{{{self._prefix}{channel}}}"

    def slot(self, channel: str) -> int:
        """The hash slot of both names of a channel."""
        return slot_of(self.plain(channel))


def publish_arguments(
    keys: HubKeys, channel: str, data: str | bytes, limit: int, seconds: float | None
) -> tuple[list[str], list[str | bytes | int]]:
    """The keys and arguments of PUBLISH.

    The stream keeps one entry more than the history; that entry shows whether anything is missing.
    """
    names = [keys.ids, keys.index, keys.stream(channel)]
    return names, [channel, data, limit + 1, kept_milliseconds(seconds)]


def publish_sharded_arguments(
    keys: ShardKeys, channel: str, data: str | bytes, limit: int, seconds: float | None
) -> tuple[list[str], list[str | bytes | int]]:
    """The keys and arguments of PUBLISH_SHARDED."""
    return [keys.stream(channel)], [data, limit + 1, kept_milliseconds(seconds)]


def kept_milliseconds(seconds: float | None) -> int:
    """The maximum age of a message, as an argument of a script: 0 for no limit."""
    return 0 if seconds is None else max(1, int(seconds * 1000))
