"""The simulated exchange: a WebSocket and REST server that speaks Coinbase Exchange's protocol.

The market (`noise`, `products`, `prices`, `activity`, `market`, `book`) is a pure function of a seed, a
rate and time, so any past day can be asked for and is always the same. The server (`clock`, `frames`,
`subscriptions`, `connection`, `stream`, `faults`, `rest`, `server`) shows it to clients, and breaks on
demand. What reads this exchange does not belong here: `streaming.exchanges.coinbase` does, over a socket.
"""
