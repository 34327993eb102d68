"""What changes the network: attach, what trains, merge back."""
