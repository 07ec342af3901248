"""The feed: it accepts or refuses what an exchange says, and hands it to the spine.

`handler` is the state machine: frames in, spine messages and requests out, no clock and no socket of its
own. It is put together from `trade_desk` (which trades are new), `trade_gaps` (which are missing),
`book_desk` (books and quotes) and `intake` (the counts), and fills an `outbox`. Around it are the parts
that touch the world: `connection` (the socket), `fetching` (what the handler asks for over REST),
`publisher` and `pump` (the spine), `sessions` (what a restart needs), and `live` and `recorded`, which run
it all.
"""
