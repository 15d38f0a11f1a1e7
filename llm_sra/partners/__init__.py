"""Partners: rosters, the loader that turns their entries into policies, and the identity of a policy."""
