"""Result tables: their schemas, their files, and what is computed from them."""
