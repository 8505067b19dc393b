"""How does a run leave the toolkit: as compiled programs that need no flax, and as parameters with names?"""
