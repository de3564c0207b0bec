"""The ground floor: ids, time, errors, hashing, settings, signing and assignment. Imports nothing of the house."""
