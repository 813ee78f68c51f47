"""Version 1 of the wire: the one of Erlang's backwater."""
