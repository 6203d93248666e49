"""A study's mobile back end, simulated: it talks HTTP as a real one would and checks every answer."""
