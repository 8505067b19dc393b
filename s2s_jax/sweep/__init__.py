"""How are many experiments launched, watched, believed and told? A grid of named runs, one table, one report."""
