"""How frames cross from one worker to another: an edge with a sender and a receiver."""
