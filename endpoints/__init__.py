"""What we know about backends: tables, admin, probing, the network door."""
