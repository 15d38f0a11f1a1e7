"""Partners: rosters, the loader that turns their entries into policies, and what tells policies apart."""
