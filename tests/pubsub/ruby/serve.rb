# Forwards what is published in Redis to WebSockets, as the server of sock-drawer does: a client
# with the path /news receives what is published on NAME/news.
require "em-websocket"
require "redis"

url, name, port = ARGV
clients = Hash.new { |all, channel| all[channel] = [] }

EM.run do
  EM::WebSocket.run(host: "127.0.0.1", port: Integer(port)) do |socket|
    channel = nil
    socket.onopen do |handshake|
      channel = name + handshake.path
      clients[channel] << socket
      socket.send("subscribed to #{channel}")
    end
    socket.onclose { clients[channel].delete(socket) }
  end

  Thread.new do
    Redis.new(url: url).psubscribe("#{name}*") do |on|
      on.psubscribe { EM.schedule { puts "ready" } }
      on.pmessage do |_pattern, channel, message|
        EM.schedule { clients[channel].each { |socket| socket.send(message) } }
      end
    end
  end
  $stdout.sync = true
end
