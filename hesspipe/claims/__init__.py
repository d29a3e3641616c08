"""The paper's statements, checked on the tables."""
