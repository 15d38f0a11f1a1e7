"""A table at which people play in a browser: the game, the server on loopback, and the page."""
