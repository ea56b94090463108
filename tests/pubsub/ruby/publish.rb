# Publishes each message, given as CHANNEL=MESSAGE, as the client of sock-drawer does.
require "redis"

url, name, *messages = ARGV
redis = Redis.new(url: url)
messages.each do |message|
  channel, data = message.split("=", 2)
  redis.publish("#{name}/#{channel}", data)
end
