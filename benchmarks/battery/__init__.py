"""Problems that are known to go wrong, and how four libraries are asked for the answers."""
