"""Rivals of MIM-OOD behind the same API."""
