"""How are many experiments launched, watched, believed and told? A sweep: a grid of named runs, one table, one report."""
