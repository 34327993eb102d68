"""Methods that change the network: attach new parts, train them, merge them into the weights."""
