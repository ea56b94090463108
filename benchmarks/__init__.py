"""What a message, a connection and a round trip cost: trioglock beside other clients."""
