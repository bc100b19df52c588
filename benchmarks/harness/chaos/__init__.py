"""Chaos: whole runs whose processes are killed and stopped at random, and what must be true of each afterwards.

``make chaos`` runs it; a short seeded part is among the tests.
"""
