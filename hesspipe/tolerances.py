"""How far results may be apart that are equal in exact arithmetic."""
