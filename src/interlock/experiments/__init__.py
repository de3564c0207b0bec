"""Online evidence: is the challenger better, said in a way that stays valid however often people look."""
